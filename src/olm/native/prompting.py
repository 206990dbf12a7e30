"""From a turn's prompt to tokens that fit the context: render, tokenize, drop or cut what is too long.

Synchronous and without state: the worker runs it in its loop when the prompt is small and in a thread when it is not.
How messages are dropped is decided in `olm.chat.prompt`; the template engine and the tokenizer come in as seams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, Protocol, assert_never

import attrs
import msgspec

from olm.chat.media import mark, media_of
from olm.chat.prompt import (
    EMBED_TOO_LONG,
    PROMPT_TOO_LONG,
    cut_tokens,
    fit_messages,
    is_too_long,
)
from olm.chat.rendering import Rendered
from olm.chat.types import ChatMessage, ChatPrompt, InfillPrompt, Prompt, TextPrompt
from olm.errors import ContextTooLong, InvalidRequest, ModelError
from olm.native.wire import Turn

__all__ = [
    "Prepared",
    "Template",
    "Tokenizer",
    "check_given",
    "check_tokenizer",
    "count_tokens",
    "fit_inputs",
    "prepare",
    "prompt_size_bytes",
    "runs_go_template",
    "tokenize_head",
]

_CUT_CHARS: Final = 6
"""Characters of a token that are tried first for the ends of a text that is too long; doubled where too few."""

_NO_CONTEXT: Final = 1 << 40
"""More tokens than any text has: nothing is cut."""

_CUT_MARGIN: Final = 32
"""Tokens next to such a cut that are not trusted: special tokens, halves of words."""


class Template(Protocol):
    """The way from messages to a prompt that the turn asks for."""

    def render(self, prompt: ChatPrompt | InfillPrompt) -> Rendered:
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
    """A prompt that fits: its tokens, what its rendering came to (None for bare text), whether something was left out."""

    tokens: Sequence[int]
    rendered: Rendered | None = None
    truncated: bool = False


def prompt_size_bytes(prompt: Prompt) -> int:
    """Measure a prompt roughly; decides whether it is worked on in a thread."""
    match prompt:
        case TextPrompt():
            n_chars = len(prompt.text)
        case InfillPrompt():
            n_chars = len(prompt.prompt) + len(prompt.suffix)
        case ChatPrompt():
            n_chars = len(prompt.tools_json) + len(prompt.template_kwargs_json)
            n_chars += sum(map(_n_chars, prompt.messages))
        case _:
            assert_never(prompt)
    return n_chars + 4 * len(prompt.context)


def runs_go_template(prompt: Prompt) -> bool:
    """Whether a Go template makes the prompt: the model's, or one that came with the request."""
    return not isinstance(prompt, TextPrompt) and bool(prompt.style.template)


def prepare(turn: Turn, *, n_ctx: int, tokenizer: Tokenizer, template: Template) -> Prepared:
    """Make the tokens of a turn.

    Raises:
        ContextTooLong: it does not fit and may not be cut. TemplateError: the template failed.
    """
    text = _Tokens(turn, n_ctx, tokenizer)
    match turn.prompt:
        case TextPrompt():
            prepared = Prepared(text.of(turn.prompt.text))
        case InfillPrompt():
            rendered = template.render(turn.prompt)
            prepared = Prepared(text.of_rendered(rendered.text), rendered)
        case ChatPrompt():
            prepared = _prepare_chat(turn, turn.prompt, n_ctx, text, template)
        case _:
            assert_never(turn.prompt)
    if len(prepared.tokens) < n_ctx:
        return prepared
    if not (turn.truncate and turn.shift):
        raise ContextTooLong(PROMPT_TOO_LONG)
    tokens = cut_tokens(
        prepared.tokens, n_ctx=n_ctx, n_keep=turn.sampling.n_keep, add_bos=tokenizer.add_bos
    )
    return attrs.evolve(prepared, tokens=tokens, truncated=True)


def count_tokens(prompt: Prompt, *, tokenizer: Tokenizer, template: Template) -> int:
    """Count the tokens of a whole prompt, nothing dropped; marks of pictures and sounds count nothing.

    Raises:
        TemplateError: the template failed.
    """
    text = _Tokens(Turn(prompt=prompt), _NO_CONTEXT, tokenizer)
    if isinstance(prompt, TextPrompt):
        return len(text.of(prompt.text))
    written = template.render(prompt).text
    messages = prompt.messages if isinstance(prompt, ChatPrompt) else ()
    for number in range(len(media_of(messages))):
        written = written.replace(mark(number), "", 1)
    return len(text.of_rendered(written))


def check_given(tokens: Sequence[int], n_vocab: int) -> None:
    """Refuse tokens of a client's that the model does not have. Raises InvalidRequest, which names the first."""
    if not tokens or (min(tokens) >= 0 and max(tokens) < n_vocab):
        return
    at, wrong = next((at, id_) for at, id_ in enumerate(tokens) if not 0 <= id_ < n_vocab)
    raise InvalidRequest(
        f"token {wrong} at place {at} is not in the model's vocabulary of {n_vocab} tokens"
    )


def check_tokenizer(tokens: Sequence[int], n_vocab: int) -> None:
    """Refuse tokens that a damaged vocabulary gave: the model's fault. Raises ModelError."""
    low, high = min(tokens), max(tokens)
    if low >= 0 and high < n_vocab:
        return
    wrong = low if low < 0 else high
    raise ModelError(
        f"the model's tokenizer data is invalid: it gives token {wrong}, outside the vocabulary of {n_vocab}"
    )


class _Tokens:
    """The tokens of one turn's texts, as far as they can matter in its context."""

    def __init__(self, turn: Turn, n_ctx: int, tokenizer: Tokenizer) -> None:
        self._context = turn.prompt.context
        self._n_head = min(turn.sampling.n_keep + 1, n_ctx)
        self._n_ctx = n_ctx
        self._tokenizer = tokenizer

    def of(self, prompt: str) -> Sequence[int]:
        """Tokenize a prompt; special tokens written in it are recognised."""
        # Tokens of an earlier answer begin with their own BOS.
        tokenize = partial(
            self._tokenizer.tokenize, add_special=not self._context, parse_special=True
        )
        tokens = _tokenize_ends(prompt, tokenize, n_head=self._n_head, n_tail=self._n_ctx)
        return (*self._context, *tokens) if self._context else tokens

    def of_rendered(self, prompt: str) -> Sequence[int]:
        """Tokenize what a template wrote. A BOS that it wrote itself does not stand there twice."""
        tokens = self.of(prompt)
        adds_bos = self._tokenizer.add_bos and not self._context
        return tokens[1:] if adds_bos and len(tokens) > 1 and tokens[0] == tokens[1] else tokens

    def size(self, message: ChatMessage) -> int:
        """Count the tokens of a message's own texts; of one that is too long anyway, as many as show that."""
        tokenize = partial(self._tokenizer.tokenize, add_special=False, parse_special=False)
        return sum(
            len(_tokenize_ends(text, tokenize, n_head=0, n_tail=self._n_ctx))
            for text in _texts(message)
        )


def _texts(message: ChatMessage) -> Iterator[str]:
    yield message.content
    if message.thinking:
        yield message.thinking
    for call in message.tool_calls:
        yield call.name
        yield call.arguments_json


def _n_chars(message: ChatMessage) -> int:
    return sum(map(len, _texts(message)))


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
    turn: Turn, prompt: ChatPrompt, n_ctx: int, text: _Tokens, template: Template
) -> Prepared:
    latest: Prepared | None = None

    def count(messages: Sequence[ChatMessage]) -> int:
        nonlocal latest
        rendered = template.render(msgspec.structs.replace(prompt, messages=tuple(messages)))
        truncated = len(messages) < len(prompt.messages)
        latest = Prepared(text.of_rendered(rendered.text), rendered, truncated)
        return len(latest.tokens)

    if turn.truncate:
        fit_messages(prompt.messages, n_ctx - 1, size=text.size, count=count)
    elif is_too_long(prompt.messages, n_ctx - 1, size=text.size, count=count):
        raise ContextTooLong(PROMPT_TOO_LONG)
    assert latest is not None, "what stays was counted last"
    return latest


def fit_inputs(
    inputs: Sequence[str | Sequence[int]], *, n_ctx: int, truncate: bool, tokenizer: Tokenizer
) -> list[Sequence[int]]:
    """Tokenize what is to be embedded; what is too long loses its end, a special token at the end stays.

    Args:
        inputs: texts, which get the special tokens that the vocabulary asks for, or tokens, which get nothing.

    Raises:
        ContextTooLong: an input is too long and `truncate` is off, or the context has no room at all.
    """
    if n_ctx <= tokenizer.add_bos + tokenizer.add_eos:
        raise ContextTooLong("input after truncation exceeds maximum context length")
    tokenize = partial(tokenizer.tokenize, add_special=True, parse_special=False)
    rows: list[Sequence[int]] = []
    for given in inputs:
        # One token more than fit shows that it is too long; the last may be the EOS.
        tokens = tokenize_head(given, tokenize, n_ctx + 1) if isinstance(given, str) else given
        if len(tokens) > n_ctx:
            if not truncate:
                raise ContextTooLong(EMBED_TOO_LONG)
            tail = tokenize("")[-1:] if tokenizer.add_eos else ()
            has_tail = isinstance(given, str) or list(given[-1:]) == list(tail)
            tokens = _cut_end(tokens, n_ctx, tail if has_tail else ())
        rows.append(tokens)
    return rows


def _cut_end(tokens: Sequence[int], n_tokens: int, tail: Sequence[int]) -> Sequence[int]:
    return (*tokens[: n_tokens - len(tail)], *tail)


def tokenize_head(
    text: str, tokenize: Callable[[str], Sequence[int]], n_head: int
) -> Sequence[int]:
    """Tokenize the beginning of a text: all of it, or at least `n_head` tokens where it has many more."""
    return _tokenize_ends(text, tokenize, n_head=n_head, n_tail=0)
