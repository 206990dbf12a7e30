"""Prompts far too long for the context: what is kept is what cutting the whole would keep, at the cost of what is kept."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import msgspec
import pytest
from native_kit import plain_rendered

from olm.chat.prompt import cut_tokens
from olm.chat.rendering import Rendered
from olm.chat.types import ChatMessage, ChatPrompt, Sampling, TextPrompt
from olm.errors import ContextTooLong
from olm.native.handles import Model
from olm.native.prompting import fit_inputs, prepare
from olm.native.wire import Turn

pytestmark = pytest.mark.native

N_CTX = 100
HUGE = "The quick brown fox, numbers 1234567 and Grüße jump over the lazy dog.\n" * 4000


@attrs.define
class Counting:
    """The built-in model's vocabulary and a plain template; counts the characters that both are given."""

    model: Model
    add_bos: bool = False
    add_eos: bool = False
    n_tokenized: int = 0
    rendered: list[int] = attrs.Factory(list)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> Sequence[int]:
        self.n_tokenized += len(text)
        return self.model.tokenize(text, add_special=add_special, parse_special=parse_special)

    def render(self, prompt: ChatPrompt) -> Rendered:
        self.rendered.append(len(prompt.messages))
        return plain_rendered("".join(f"<{m.role}>{m.content}\n" for m in prompt.messages))


@pytest.fixture
def seams(tiny: Model) -> Counting:
    return Counting(tiny)


@pytest.mark.parametrize("n_keep", [-1, 0, 4, 60, 5000])
def test_long_text_is_cut_before_it_is_tokenized(seams: Counting, n_keep: int) -> None:
    turn = Turn(prompt=TextPrompt(HUGE), sampling=Sampling(n_keep=n_keep))

    try:
        prepared = prepare(turn, n_ctx=N_CTX, tokenizer=seams, template=seams)
    except ContextTooLong:
        assert n_keep == 5000
    else:
        whole = seams.model.tokenize(HUGE)
        assert tuple(prepared.tokens) == cut_tokens(
            whole, n_ctx=N_CTX, n_keep=n_keep, add_bos=False
        )
        assert prepared.truncated
    assert seams.n_tokenized < 40 * N_CTX


@pytest.mark.parametrize("change", [{"truncate": False}, {"shift": False}])
def test_text_that_may_not_be_cut_is_refused_without_reading_it(
    seams: Counting, change: dict[str, bool]
) -> None:
    turn = msgspec.structs.replace(Turn(prompt=TextPrompt(HUGE)), **change)

    with pytest.raises(ContextTooLong):
        prepare(turn, n_ctx=N_CTX, tokenizer=seams, template=seams)

    assert seams.n_tokenized < 40 * N_CTX


def test_text_to_embed_keeps_its_beginning(seams: Counting) -> None:
    (row,) = fit_inputs([HUGE], n_ctx=N_CTX, truncate=True, tokenizer=seams)

    assert list(row) == list(seams.model.tokenize(HUGE))[:N_CTX]
    assert seams.n_tokenized < 40 * N_CTX
    with pytest.raises(ContextTooLong):
        fit_inputs([HUGE], n_ctx=N_CTX, truncate=False, tokenizer=seams)


@pytest.mark.parametrize("truncate", [True, False])
def test_a_long_chat_costs_renderings_of_about_the_context(seams: Counting, truncate: bool) -> None:
    messages = tuple(ChatMessage("user", str(n)) for n in range(10_000))
    turn = Turn(prompt=ChatPrompt(messages=messages), truncate=truncate)

    if truncate:
        prepared = prepare(turn, n_ctx=N_CTX, tokenizer=seams, template=seams)
        assert N_CTX // 2 < len(prepared.tokens) < N_CTX
        assert prepared.truncated
    else:
        with pytest.raises(ContextTooLong):
            prepare(turn, n_ctx=N_CTX, tokenizer=seams, template=seams)

    assert max(seams.rendered, default=0) <= N_CTX
    assert len(seams.rendered) <= 10


def test_one_huge_message_is_cut_before_it_is_tokenized(seams: Counting) -> None:
    turn = Turn(prompt=ChatPrompt(messages=(ChatMessage("user", HUGE),)))

    prepared = prepare(turn, n_ctx=N_CTX, tokenizer=seams, template=seams)

    assert len(prepared.tokens) < N_CTX
    assert seams.n_tokenized < 80 * N_CTX


def test_a_huge_message_that_may_not_be_cut_is_not_rendered(seams: Counting) -> None:
    turn = Turn(prompt=ChatPrompt(messages=(ChatMessage("user", HUGE),)), truncate=False)

    with pytest.raises(ContextTooLong):
        prepare(turn, n_ctx=N_CTX, tokenizer=seams, template=seams)

    assert seams.rendered == []
