"""Which messages a prompt is made of, and which of them stay when it does not fit.

Pure: no tokenizer, no template engine; counting is a function given by the caller (the worker). Rendering itself is
the template's business (`olm.native.chat`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from olm.chat.types import ChatMessage
from olm.errors import ContextTooLong, TemplateError

__all__ = [
    "EMBED_TOO_LONG",
    "PROMPT_TOO_LONG",
    "chat_messages",
    "completion_messages",
    "cut_tokens",
    "fit_messages",
    "is_too_long",
    "plain_text",
    "without_old_thoughts",
]

PROMPT_TOO_LONG: Final = (
    "the prompt is longer than the context length currently available to the model; shorten the prompt, adjust the"
    " context length in settings, or use a model with a longer context length"
)
"""Ollama's words (commit fb30760, llm/llama_server.go); clients match on them."""

EMBED_TOO_LONG: Final = "the input length exceeds the context length"

_GUESS_CHARS: Final = 6
_FRAME_TOKENS: Final = 4
"""Characters of a token, and tokens a template puts around a message: a guess at the low end of what models have."""

_TRIMMED_TOKENS: Final = 2

_THOUGHT: Final = re.compile(r"<think>.*?</think>\s*", re.DOTALL)


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


def without_old_thoughts(messages: Sequence[ChatMessage]) -> tuple[ChatMessage, ...]:
    """Take `<think>…</think>` out of the content of assistants' turns before the last user's message.

    Clients without a notion of thinking send it back with the answer. Ollama does this for the family `qwen3` and models
    named `deepseek-r1` (spec/ollama §1.5); whom it is done for is the caller's choice.
    """
    last_user = max((n for n, m in enumerate(messages) if m.role == "user"), default=-1)
    return tuple(
        msgspec.structs.replace(message, content=_THOUGHT.sub("", message.content, count=1))
        if n < last_user and message.role == "assistant" and "<think>" in message.content
        else message
        for n, message in enumerate(messages)
    )


def plain_text(messages: Sequence[ChatMessage]) -> str:
    """Write messages for a model without any template, as Ollama's fallback template `{{ .Prompt }}` does.

    That template knows no system messages; user and assistant texts follow each other bare.
    """
    return "".join(message.content for message in messages if message.role in ("user", "assistant"))


def fit_messages(
    messages: Sequence[ChatMessage],
    n_limit: int,
    *,
    size: Callable[[ChatMessage], int],
    count: Callable[[Sequence[ChatMessage]], int],
) -> tuple[tuple[ChatMessage, ...], bool]:
    """Drop the oldest turns until the prompt has at most `n_limit` tokens; system messages and the last turn stay.

    A turn is a user's message with all that answers it. Which turns stay is decided by the tokens of each message,
    counted once and from the newest on, so that a history without end is not read; one rendering then shows what the
    template adds, and seldom a second one is needed. Ollama renders and tokenizes once for each dropped message
    (spec/ollama §1.10). Only when the last turn does not fit alone do its own oldest messages go too; the last message
    always stays.

    Args:
        size: the tokens of a message's own texts; asked once at most for each message.
        count: renders messages and returns their tokens.

    Returns:
        The messages that stay and whether they fit. When even the smallest cut is too long, that cut and False.

    Raises:
        TemplateError: what stays does not render, and neither does any smaller cut.
    """
    if _least_tokens(messages) <= n_limit:
        n_tokens = count(messages)
        if n_tokens <= n_limit:
            return tuple(messages), True
    cuts = _cuts(messages)
    sizes = _Sizes(messages, size)
    at = _first_that_fits(sizes, cuts, 0, n_limit)
    while True:
        kept = _cut(messages, cuts[at])
        try:
            n_tokens = count(kept)
        except TemplateError:
            if at == len(cuts) - 1:
                raise
            at += 1
            continue
        if n_tokens <= n_limit or at == len(cuts) - 1:
            return kept, n_tokens <= n_limit
        sizes.learn(cuts[at], len(kept), n_tokens)
        at = _first_that_fits(sizes, cuts, at + 1, n_limit)


def is_too_long(
    messages: Sequence[ChatMessage],
    n_limit: int,
    *,
    size: Callable[[ChatMessage], int],
    count: Callable[[Sequence[ChatMessage]], int],
) -> bool:
    """Say whether something would have to go. What users said alone may show it, and nothing is rendered then.

    Raises:
        TemplateError: the whole conversation does not render.
    """
    if _least_tokens(messages) > n_limit:
        n_said = 0
        for message in reversed(messages):
            # A template writes out every user's text, but may trim it: its ends do not count.
            n_said += max(size(message) - _TRIMMED_TOKENS, 0) if message.role == "user" else 0
            if n_said > n_limit:
                return True
    return count(messages) > n_limit


class _Sizes:
    """Tokens of messages, each counted when it is first needed, summed from the newest on.

    What a template adds is unknown until something was rendered. The first rendering is taken to show what it adds to
    each message; the next tells this from what it adds besides (tools, a system prompt of its own).
    """

    def __init__(self, messages: Sequence[ChatMessage], size: Callable[[ChatMessage], int]) -> None:
        self._messages = messages
        self._size = size
        # System messages stay wherever they stand: what a cut takes is the others'.
        systems = [message for message in messages if message.role == "system"]
        self._n_systems = len(systems)
        self._system_tokens = sum(map(size, systems))
        self._last = [(0, 0)]
        self._frame = float(_FRAME_TOKENS)
        self._fixed = 0.0
        self._seen: tuple[int, float] | None = None
        """Of the last rendering: messages, and tokens that are not theirs."""

    def of_cut(self, n_drop: int) -> float:
        """The tokens of what stays when the first `n_drop` messages go."""
        last = self._last
        while len(last) <= len(self._messages) - n_drop:
            message = self._messages[-len(last)]
            n_tokens, n_messages = last[-1]
            if message.role != "system":
                n_tokens, n_messages = n_tokens + self._size(message), n_messages + 1
            last.append((n_tokens, n_messages))
        n_tokens, n_messages = last[len(self._messages) - n_drop]
        n_framed = n_messages + self._n_systems
        return self._system_tokens + n_tokens + self._fixed + self._frame * n_framed

    def learn(self, n_drop: int, n_kept: int, n_tokens: int) -> None:
        """Take note of how many tokens a cut really has; a later one must have fewer messages."""
        added = n_tokens - self.of_cut(n_drop) + self._fixed + self._frame * n_kept
        frame = added / n_kept
        if self._seen is not None:
            n_before, added_before = self._seen
            frame = min(frame, max(added_before - added, 0.0) / (n_before - n_kept))
        self._frame, self._fixed = frame, added - frame * n_kept
        self._seen = n_kept, added


def _first_that_fits(sizes: _Sizes, cuts: Sequence[int], low: int, n_limit: int) -> int:
    """Find the first of `cuts[low:]` that fits by sizes, else the last. Searched from the end: only what stays is read."""
    at = len(cuts) - 1
    while at > low and sizes.of_cut(cuts[at - 1]) <= n_limit:
        at -= 1
    return at


def _cuts(messages: Sequence[ChatMessage]) -> list[int]:
    """List how many messages may be dropped, fewest first: up to a user's turn, and inside the last turn as it must be.

    Inside a turn no cut leaves the result of a tool without its call.
    """
    last = len(messages) - 1
    users = [index for index, message in enumerate(messages) if message.role == "user"]
    last_turn = users[-1] if users else 0
    inside = [n for n in range(last_turn + 1, last) if messages[n].role not in ("tool", "system")]
    return [*users, *inside, *([last] if last > last_turn else [])] or [last]


def _kept_indices(messages: Sequence[ChatMessage], n_drop: int) -> list[int]:
    systems = [n for n in range(min(n_drop, len(messages))) if messages[n].role == "system"]
    return [*systems, *range(n_drop, len(messages))]


def _cut(messages: Sequence[ChatMessage], n_drop: int) -> tuple[ChatMessage, ...]:
    return tuple(messages[index] for index in _kept_indices(messages, n_drop))


def _least_tokens(messages: Sequence[ChatMessage]) -> int:
    """Guess the tokens of messages by their lengths alone, rather too few: most conversations fit as a whole."""
    n_chars = sum(len(message.content) for message in messages)
    return n_chars // _GUESS_CHARS + len(messages) * _FRAME_TOKENS


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
