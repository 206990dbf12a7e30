"""From a turn's prompt to tokens that fit the context: render, tokenize, drop or cut what is too long.

Synchronous and without state: the worker runs it in its loop when the prompt is small and in a thread when it is not.
How messages are dropped is decided in `olm.chat.prompt`; the template engine and the tokenizer come in as seams.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

import attrs
import msgspec

from olm.chat.prompt import EMBED_TOO_LONG, PROMPT_TOO_LONG, cut_tokens, drop_oldest, fits_whole
from olm.chat.types import ChatMessage, ChatPrompt, TextPrompt
from olm.errors import ContextTooLong
from olm.native.wire import Turn

__all__ = [
    "Prepared",
    "Rendered",
    "Template",
    "Tokenizer",
    "fit_inputs",
    "prepare",
    "prompt_size_bytes",
]

MAX_TOKEN_BYTES: Final = 512
"""No vocabulary has longer tokens (runs of blanks are the longest, below 300): text of n bytes has at least n/512."""

_CUT_CHARS: Final = 6
"""Characters of a token that are tried first for the ends of a text that is too long; doubled where too few."""

_CUT_MARGIN: Final = 32
"""Tokens next to such a cut that are not trusted: special tokens, halves of words."""


@attrs.frozen
class Rendered:
    """A rendered chat: its text, and strings that end an answer besides the request's own."""

    text: str
    stops: tuple[str, ...] = ()


class Template(Protocol):
    """The model's chat template."""

    def render(self, prompt: ChatPrompt) -> Rendered:
        """Raises TemplateError."""


class Tokenizer(Protocol):
    """The model's vocabulary. `add_bos` and `add_eos`: what `add_special` adds."""

    @property
    def add_bos(self) -> bool: ...
    @property
    def add_eos(self) -> bool: ...

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> Sequence[int]:
        """Turn text into ids."""


@attrs.frozen
class Prepared:
    """A prompt that fits: its tokens, further stop strings, and whether something was left out."""

    tokens: Sequence[int]
    stops: tuple[str, ...] = ()
    truncated: bool = False


def prompt_size_bytes(turn: Turn) -> int:
    """Measure a prompt roughly; decides whether it is worked on in a thread."""
    if isinstance(turn.prompt, TextPrompt):
        return len(turn.prompt.text) + 4 * len(turn.prompt.context)
    return sum(len(message.content) for message in turn.prompt.messages) + len(
        turn.prompt.tools_json
    )


def prepare(turn: Turn, *, n_ctx: int, tokenizer: Tokenizer, template: Template) -> Prepared:
    """Make the tokens of a turn.

    Raises:
        ContextTooLong: it does not fit and may not be cut. TemplateError: the template failed.
    """
    if isinstance(turn.prompt, TextPrompt):
        prepared = _prepare_text(turn, turn.prompt, n_ctx, tokenizer)
    else:
        prepared = _prepare_chat(turn, turn.prompt, n_ctx, tokenizer, template)
    if len(prepared.tokens) < n_ctx:
        return prepared
    if not (turn.truncate and turn.shift):
        raise ContextTooLong(PROMPT_TOO_LONG)
    tokens = cut_tokens(
        prepared.tokens, n_ctx=n_ctx, n_keep=turn.sampling.n_keep, add_bos=tokenizer.add_bos
    )
    return attrs.evolve(prepared, tokens=tokens, truncated=True)


def _prepare_text(turn: Turn, prompt: TextPrompt, n_ctx: int, tokenizer: Tokenizer) -> Prepared:
    # Tokens of an earlier answer begin with their own BOS.
    tokens = _tokenize_ends(
        prompt.text,
        partial(tokenizer.tokenize, add_special=not prompt.context, parse_special=True),
        n_head=min(turn.sampling.n_keep + 1, n_ctx),
        n_tail=n_ctx,
    )
    return Prepared((*prompt.context, *tokens) if prompt.context else tokens)


def _tokenize_ends(
    text: str, tokenize: Callable[[str], Sequence[int]], *, n_head: int, n_tail: int
) -> Sequence[int]:
    """Tokenize what can matter of a text whose middle will be cut out if it is too long.

    Returns:
        All tokens, or if they are many more: at least the first `n_head` and the last `n_tail` of them. Tokens near
        a cut could be others than in the whole text, and are left out.
    """
    n_head, n_tail = max(n_head, 0), max(n_tail, 0)
    chars_per_token = _CUT_CHARS
    while True:
        head = (n_head + _CUT_MARGIN) * chars_per_token
        tail = (n_tail + _CUT_MARGIN) * chars_per_token
        if 2 * (head + tail) >= len(text):
            return tokenize(text)
        first = tokenize(text[:head])[:-_CUT_MARGIN] if n_head else ()
        final = tokenize(text[-tail:])[_CUT_MARGIN:] if n_tail else ()
        if len(first) >= n_head and len(final) >= n_tail:
            return (*first, *final)
        chars_per_token *= 2


def _prepare_chat(
    turn: Turn, prompt: ChatPrompt, n_ctx: int, tokenizer: Tokenizer, template: Template
) -> Prepared:
    latest: Prepared | None = None

    def count(messages: Sequence[ChatMessage]) -> int:
        nonlocal latest
        part = msgspec.structs.replace(prompt, messages=tuple(messages))
        rendered = template.render(part)
        tokens = _tokenize_ends(
            rendered.text,
            partial(tokenizer.tokenize, add_special=True, parse_special=True),
            n_head=min(turn.sampling.n_keep + 1, n_ctx),
            n_tail=n_ctx,
        )
        latest = Prepared(tokens, rendered.stops, truncated=len(messages) < len(prompt.messages))
        return len(tokens)

    messages: Sequence[ChatMessage] = prompt.messages
    if turn.truncate:
        messages, _ = drop_oldest(messages, n_ctx - 1, count)
    elif _least_tokens(messages) >= n_ctx or not fits_whole(messages, n_ctx - 1, count):
        raise ContextTooLong(PROMPT_TOO_LONG)
    # The last candidate counted need not be the one that was taken.
    if latest is None or len(messages) < len(prompt.messages):
        count(messages)
    if latest is None:
        raise ContextTooLong(PROMPT_TOO_LONG)
    return latest


def _least_tokens(messages: Sequence[ChatMessage]) -> int:
    """Say how many tokens there are at least, without rendering. A template writes out every user's text but blanks."""
    n_bytes = sum(len(message.content.strip()) for message in messages if message.role == "user")
    return n_bytes // MAX_TOKEN_BYTES


def fit_inputs(
    inputs: Sequence[str], *, n_ctx: int, truncate: bool, tokenizer: Tokenizer
) -> list[Sequence[int]]:
    """Tokenize texts to embed; those that are too long lose their end, special tokens at the end stay.

    Raises:
        ContextTooLong: a text is too long and `truncate` is off, or the context has no room at all.
    """
    if n_ctx <= tokenizer.add_bos + tokenizer.add_eos:
        raise ContextTooLong("input after truncation exceeds maximum context length")
    rows: list[Sequence[int]] = []
    for text in inputs:
        tokenize = partial(tokenizer.tokenize, add_special=True, parse_special=False)
        # One token more than fit shows that it is too long; the last may be the EOS.
        tokens = _tokenize_ends(text, tokenize, n_head=n_ctx + 1, n_tail=0)
        if len(tokens) > n_ctx:
            if not truncate:
                raise ContextTooLong(EMBED_TOO_LONG)
            tail = tokenize("")[-1:] if tokenizer.add_eos else ()
            tokens = (*tokens[: n_ctx - len(tail)], *tail)
        rows.append(tokens)
    return rows
