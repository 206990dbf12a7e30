"""Which messages a prompt is made of, and which of them stay when it does not fit.

Pure: no tokenizer, no template engine; counting is a function given by the caller (the worker). Rendering itself is
the template's business (`olm.native.chat`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from olm.chat.types import ChatMessage
from olm.errors import ContextTooLong, TemplateError

__all__ = [
    "EMBED_TOO_LONG",
    "PROMPT_TOO_LONG",
    "chat_messages",
    "completion_messages",
    "cut_tokens",
    "drop_oldest",
    "fits_whole",
    "plain_text",
]

PROMPT_TOO_LONG: Final = (
    "the prompt is longer than the context length currently available to the model; shorten the prompt, adjust the"
    " context length in settings, or use a model with a longer context length"
)
"""Ollama's words (commit fb30760, llm/llama_server.go); clients match on them."""

EMBED_TOO_LONG: Final = "the input length exceeds the context length"

_GUESS_CHARS: Final = 6
_GUESS_FRAME_TOKENS: Final = 4
"""Characters of a token, and tokens a template puts around a message: a guess at the low end of what models have."""


def chat_messages(
    messages: Sequence[ChatMessage], *, system: str, preset: Sequence[ChatMessage]
) -> tuple[ChatMessage, ...]:
    """Put the Modelfile's SYSTEM and MESSAGEs in front of a request's messages.

    MESSAGEs always come first; SYSTEM stands before everything unless the request's own first message is a system
    message (spec/ollama §1.5).
    """
    whole = (*preset, *messages)
    if system and not (messages and messages[0].role == "system"):
        return (ChatMessage(role="system", content=system), *whole)
    return whole


def completion_messages(
    prompt: str,
    *,
    system: str,
    preset: Sequence[ChatMessage] = (),
    images: tuple[bytes, ...] = (),
) -> tuple[ChatMessage, ...]:
    """Make the messages of a completion: system (request, else Modelfile), Modelfile MESSAGEs, the prompt as user."""
    first = (ChatMessage(role="system", content=system),) if system else ()
    return (*first, *preset, ChatMessage(role="user", content=prompt, images=images))


def plain_text(messages: Sequence[ChatMessage]) -> str:
    """Write messages for a model without any template, as Ollama's fallback template `{{ .Prompt }}` does.

    That template knows no system messages; user and assistant texts follow each other bare.
    """
    return "".join(message.content for message in messages if message.role in ("user", "assistant"))


def drop_oldest(
    messages: Sequence[ChatMessage],
    n_limit: int,
    count: Callable[[Sequence[ChatMessage]], int],
) -> tuple[tuple[ChatMessage, ...], bool]:
    """Drop the oldest messages until `count` is at most `n_limit`; system messages and the last message stay.

    The search starts at the cut that should about fit by the length of its texts, doubles or halves what stays until
    the answer is enclosed, and bisects. So a long history costs O(log n) renderings, each of about `n_limit` tokens,
    where Ollama renders once for each dropped message (spec/ollama §1.10). A cut that the template refuses (some
    insist on a user's turn first) is passed over.

    Returns:
        The messages that stay and whether they fit. When even the smallest cut is too long, that cut and False.

    Raises:
        TemplateError: the whole conversation (when it is tried), or what stays of it at the end, does not render.
    """
    last = len(messages) - 1

    def cut(n_drop: int) -> tuple[ChatMessage, ...]:
        return _cut(messages, n_drop)

    def fits_about(n_drop: int) -> bool:
        return _fits_about(messages, n_drop, n_limit, count)

    n_drop = _first_guess(messages, n_limit)
    # All cuts below `low` are too long, the one at `high` fits or is the smallest.
    low, high = 0, max(last, 0)
    if n_drop == 0:
        if count(messages) <= n_limit:
            return tuple(messages), True
        low, n_drop = 1, (last + 1) // 2
    while low < high:
        if fits_about(n_drop):
            high, n_drop = n_drop, max(low, n_drop - (last + 1 - n_drop))
        else:
            low, n_drop = n_drop + 1, n_drop + 1 + (last - n_drop) // 2
        if not low <= n_drop < high:
            n_drop = (low + high) // 2
    # Refused cuts make the search inexact: go on from where it ended until one renders.
    for n_drop in range(low, last):
        if _fits(cut(n_drop), n_limit, count):
            return cut(n_drop), True
    smallest = cut(max(last, 0))
    return smallest, count(smallest) <= n_limit


def fits_whole(
    messages: Sequence[ChatMessage],
    n_limit: int,
    count: Callable[[Sequence[ChatMessage]], int],
) -> bool:
    """Say whether nothing has to go. A history that is far too long shows it by its end: little of it is rendered.

    Raises:
        TemplateError: the whole conversation does not render.
    """
    n_drop = _first_guess(messages, n_limit)
    while n_drop > 0:
        if not _fits_about(messages, n_drop, n_limit, count):
            return False
        n_drop -= len(messages) - n_drop
    return count(messages) <= n_limit


def _first_guess(messages: Sequence[ChatMessage], n_limit: int) -> int:
    """Guess how many messages have to go, by lengths alone, rather too few: most conversations fit as a whole."""
    n_tokens = 0
    for n_drop in range(len(messages) - 1, -1, -1):
        n_tokens += len(messages[n_drop].content) // _GUESS_CHARS + _GUESS_FRAME_TOKENS
        if n_tokens > n_limit:
            return min(n_drop + 1, len(messages) - 1)
    return 0


def _cut(messages: Sequence[ChatMessage], n_drop: int) -> tuple[ChatMessage, ...]:
    last = len(messages) - 1
    return tuple(
        message
        for index, message in enumerate(messages)
        if index >= n_drop or message.role == "system" or index == last
    )


def _fits_about(
    messages: Sequence[ChatMessage],
    n_drop: int,
    n_limit: int,
    count: Callable[[Sequence[ChatMessage]], int],
) -> bool:
    """Ask the next cut where the template refuses this one: in a dialogue, one of two begins with the user."""
    try:
        return count(_cut(messages, n_drop)) <= n_limit
    except TemplateError:
        return n_drop + 1 < len(messages) and _fits(_cut(messages, n_drop + 1), n_limit, count)


def _fits(
    messages: Sequence[ChatMessage], n_limit: int, count: Callable[[Sequence[ChatMessage]], int]
) -> bool:
    try:
        return count(messages) <= n_limit
    except TemplateError:
        return False


def cut_tokens(tokens: Sequence[int], *, n_ctx: int, n_keep: int, add_bos: bool) -> tuple[int, ...]:
    """Cut the middle out of a prompt that is too long, so that about half of the window is left to answer in.

    The first `n_keep` tokens (one more with a BOS) stay, and the tail; together `n_ctx - max((n_ctx - n_keep) / 2, 1)`
    (Ollama, spec/ollama §1.10 step 2).

    Raises:
        ContextTooLong: the context is too small to keep anything.
    """
    if len(tokens) < n_ctx:
        return tuple(tokens)
    n_first = max(min(n_keep + add_bos, n_ctx - 2), 0)
    n_total = n_ctx - max((n_ctx - n_first) // 2, 1)
    n_tail = n_total - n_first
    if n_tail < 1:
        raise ContextTooLong(PROMPT_TOO_LONG)
    return (*tokens[:n_first], *tokens[-n_tail:])
