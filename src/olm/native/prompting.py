"""From a turn's prompt to tokens that fit the context: render, tokenize, drop or cut what is too long.

Synchronous and without state: the worker runs it in its loop when the prompt is small and in a thread when it is not.
How messages are dropped is decided in `olm.chat.prompt`; the template engine and the tokenizer come in as seams.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import attrs
import msgspec

from olm.chat.prompt import EMBED_TOO_LONG, PROMPT_TOO_LONG, cut_tokens, drop_oldest
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
        prepared = _prepare_text(turn.prompt, tokenizer)
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


def _prepare_text(prompt: TextPrompt, tokenizer: Tokenizer) -> Prepared:
    # Tokens of an earlier answer begin with their own BOS.
    tokens = tokenizer.tokenize(prompt.text, add_special=not prompt.context, parse_special=True)
    return Prepared((*prompt.context, *tokens) if prompt.context else tokens)


def _prepare_chat(
    turn: Turn, prompt: ChatPrompt, n_ctx: int, tokenizer: Tokenizer, template: Template
) -> Prepared:
    latest: Prepared | None = None

    def count(messages: Sequence[ChatMessage]) -> int:
        nonlocal latest
        part = msgspec.structs.replace(prompt, messages=tuple(messages))
        rendered = template.render(part)
        least = len(rendered.text) // MAX_TOKEN_BYTES
        if least >= n_ctx and len(messages) > 1:
            return least  # far too long: not worth tokenizing
        tokens = tokenizer.tokenize(rendered.text, add_special=True, parse_special=True)
        latest = Prepared(tokens, rendered.stops, truncated=len(messages) < len(prompt.messages))
        return len(tokens)

    messages: Sequence[ChatMessage] = prompt.messages
    if turn.truncate:
        messages, _ = drop_oldest(messages, n_ctx - 1, count)
    # The last candidate counted need not be the one that was taken.
    if latest is None or not turn.truncate or len(messages) < len(prompt.messages):
        count(messages)
    if latest is None:
        raise ContextTooLong(PROMPT_TOO_LONG)
    return latest


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
        tokens = tokenizer.tokenize(text, add_special=True, parse_special=False)
        if len(tokens) > n_ctx:
            if not truncate:
                raise ContextTooLong(EMBED_TOO_LONG)
            tail = tokens[-1:] if tokenizer.add_eos else ()
            tokens = (*tokens[: n_ctx - len(tail)], *tail)
        rows.append(tokens)
    return rows
