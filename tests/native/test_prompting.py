"""Prompts far too long for the context: what is kept is what cutting the whole would keep, at the cost of what is kept."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import msgspec
import pytest
from native_kit import plain_rendered

from olm.chat.prompt import cut_tokens
from olm.chat.rendering import Rendered
from olm.chat.types import ChatMessage, ChatPrompt, InfillPrompt, Sampling, TextPrompt
from olm.errors import ContextTooLong, InvalidRequest
from olm.native.handles import Model
from olm.native.prompting import check_given, count_tokens, fit_inputs, prepare
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
    end: list[int] = attrs.Factory(list)
    n_tokenized: int = 0
    rendered: list[int] = attrs.Factory(list)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> Sequence[int]:
        self.n_tokenized += len(text)
        tokens = self.model.tokenize(text, add_special=add_special, parse_special=parse_special)
        return tokens + self.end if add_special else tokens

    def render(self, prompt: ChatPrompt | InfillPrompt) -> Rendered:
        assert isinstance(prompt, ChatPrompt), "no gaps here"
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


def test_tokens_to_embed_are_taken_as_they_are(seams: Counting) -> None:
    seams.add_bos = True
    text, given = fit_inputs(["a", (7, 8)], n_ctx=N_CTX, truncate=True, tokenizer=seams)

    assert list(text) == seams.model.tokenize("a")
    assert list(given) == [7, 8]


@pytest.mark.parametrize("n_over", [0, 1, 50])
def test_too_many_tokens_to_embed_lose_their_end_but_for_an_end_token(
    seams: Counting, n_over: int
) -> None:
    seams.add_eos = True
    [eos] = seams.end = seams.model.tokenize("<|im_end|>")
    open_end, closed = [5] * (N_CTX + n_over), [5] * (N_CTX + n_over - 1) + [eos]

    rows = fit_inputs([open_end, closed], n_ctx=N_CTX, truncate=True, tokenizer=seams)

    assert [list(row) for row in rows] == [[5] * N_CTX, [5] * (N_CTX - 1) + [eos]]
    if n_over:
        with pytest.raises(ContextTooLong):
            fit_inputs([open_end], n_ctx=N_CTX, truncate=False, tokenizer=seams)


def test_a_prompt_of_tokens_gets_no_special_ones_and_stands_before_the_text(
    seams: Counting,
) -> None:
    seams.end = [1]  # where special tokens are added, this is one
    turn = Turn(prompt=TextPrompt("Hello", context=(9, 8)))

    mixed = prepare(turn, n_ctx=N_CTX, tokenizer=seams, template=seams)
    alone = prepare(
        Turn(prompt=TextPrompt("", context=(9, 8))), n_ctx=N_CTX, tokenizer=seams, template=seams
    )

    hello = seams.model.tokenize("Hello", add_special=False)
    assert list(mixed.tokens) == [9, 8, *hello]
    assert list(alone.tokens) == [9, 8]


@pytest.mark.parametrize(
    ("tokens", "text"), [((1, 512), "512 at place 1"), ((-1,), "-1 at place 0")]
)
def test_tokens_that_the_model_lacks_are_named(tokens: tuple[int, ...], text: str) -> None:
    check_given((), 512)
    check_given((0, 511), 512)
    with pytest.raises(
        InvalidRequest, match=f"token {text} is not in the model's vocabulary of 512"
    ):
        check_given(tokens, 512)


def test_a_whole_prompt_is_counted_whatever_the_context(seams: Counting) -> None:
    pictures = ChatMessage("user", "[img-0][img-1]Look", images=(b"a", b"b"))
    messages = (*(ChatMessage("user", str(n)) for n in range(500)), pictures)

    n_tokens = count_tokens(ChatPrompt(messages=messages), tokenizer=seams, template=seams)

    text = "".join(f"<user>{m.content}\n" for m in messages).replace("[img-0][img-1]", "")
    assert n_tokens == len(seams.model.tokenize(text)) > 5 * N_CTX
    assert count_tokens(TextPrompt("Hello"), tokenizer=seams, template=seams) == len(
        seams.model.tokenize("Hello")
    )


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
