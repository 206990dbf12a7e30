"""Which messages make a prompt, which stay when it is too long, and what a request asks of the worker."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.models import stored_model
from olm.actors.client import ChatRequest, GenerateRequest
from olm.actors.turns import embed_result, plan_chat, plan_generate, turn_message
from olm.chat.options import LoadOptions
from olm.chat.prompt import chat_messages, cut_tokens, drop_oldest, fits_whole, plain_text
from olm.chat.types import ChatMessage, ChatPrompt, TextPrompt
from olm.errors import (
    ContextTooLong,
    InvalidOption,
    InvalidRequest,
    NotSupported,
    NotYetSupported,
    OlmError,
    TemplateError,
)
from olm.native.wire import Embedded

USER = ChatMessage(role="user", content="hi")
SYSTEM = ChatMessage(role="system", content="be brief")


def said(messages: Sequence[ChatMessage]) -> list[str]:
    return [message.content for message in messages]


def test_modelfile_system_and_messages_come_first() -> None:
    preset = (ChatMessage(role="user", content="q"), ChatMessage(role="assistant", content="a"))

    assert said(chat_messages([USER], system="s", preset=preset)) == ["s", "q", "a", "hi"]
    assert said(chat_messages([SYSTEM, USER], system="s", preset=preset)) == [
        "q",
        "a",
        "be brief",
        "hi",
    ]


def test_a_model_without_template_gets_bare_text() -> None:
    assert plain_text([SYSTEM, USER, ChatMessage(role="assistant", content="!")]) == "hi!"


def length(messages: Sequence[ChatMessage]) -> int:
    return sum(len(message.content) for message in messages)


def test_the_oldest_messages_go_but_never_system_or_last() -> None:
    messages = [SYSTEM, *(ChatMessage(role="user", content=str(n) * 10) for n in range(5))]

    kept, fits = drop_oldest(messages, 30, length)

    assert fits
    assert said(kept) == ["be brief", "3" * 10, "4" * 10]


def test_the_last_message_stays_even_if_too_long() -> None:
    kept, fits = drop_oldest([USER, ChatMessage(role="user", content="x" * 50)], 10, length)

    assert (said(kept), fits) == (["x" * 50], False)


@given(
    st.lists(
        st.builds(
            ChatMessage,
            role=st.sampled_from(["system", "user", "assistant"]),
            content=st.text("x", max_size=20),
        ),
        min_size=1,
        max_size=30,
    ),
    st.integers(0, 200),
)
def test_as_few_messages_as_possible_are_dropped(messages: list[ChatMessage], limit: int) -> None:
    kept, fits = drop_oldest(messages, limit, length)

    last = len(messages) - 1
    cuts = [
        [m for i, m in enumerate(messages) if i >= n or m.role == "system" or i == last]
        for n in range(last + 1)
    ]
    best = next((cut for cut in cuts if length(cut) <= limit), cuts[-1])
    assert list(kept) == best
    assert fits == (length(best) <= limit)


def test_a_cut_the_template_refuses_is_passed_over() -> None:
    def count(messages: Sequence[ChatMessage]) -> int:
        if messages[0].role == "assistant":
            raise TemplateError("conversation must start with user")
        return length(messages)

    roles = ["user", "assistant", "user", "assistant", "user"]
    messages = [ChatMessage(role=role, content="x" * 10) for role in roles]

    kept, fits = drop_oldest(messages, 45, count)

    assert fits
    assert [message.role for message in kept] == ["user", "assistant", "user"]


def test_long_histories_cost_few_renderings() -> None:
    n_calls = 0

    def count(messages: Sequence[ChatMessage]) -> int:
        nonlocal n_calls
        n_calls += 1
        return length(messages)

    drop_oldest([USER] * 1000, 100, count)

    assert n_calls <= 12


def test_a_long_history_is_never_rendered_whole() -> None:
    counted: list[int] = []

    def count(messages: Sequence[ChatMessage]) -> int:
        counted.append(len(messages))
        return 5 * len(messages)

    messages = [USER] * 100_000
    kept, fits = drop_oldest(messages, 1000, count)

    assert (len(kept), fits) == (200, True)
    assert not fits_whole(messages, 1000, count)
    assert max(counted) <= 1000
    assert len(counted) <= 14


def test_a_dialogue_of_refused_cuts_keeps_what_fits() -> None:
    def count(messages: Sequence[ChatMessage]) -> int:
        if messages[0].role == "assistant":
            raise TemplateError("conversation must start with user")
        return 5 * len(messages)

    roles = ["user", "assistant"] * 5000
    messages = [ChatMessage(role=role, content="x") for role in roles] + [USER]

    kept, fits = drop_oldest(messages, 1000, count)

    assert fits
    assert len(kept) == 199
    assert kept[0].role == "user"


@given(
    st.lists(st.builds(ChatMessage, content=st.text("x", max_size=40)), min_size=1, max_size=30),
    st.integers(0, 200),
)
def test_whole_or_not_is_what_counting_the_whole_says(
    messages: list[ChatMessage], limit: int
) -> None:
    assert fits_whole(messages, limit, length) == (length(messages) <= limit)


@given(
    n_ctx=st.integers(4, 200),
    n_tokens=st.integers(0, 300),
    n_keep=st.integers(0, 50),
    add_bos=st.booleans(),
)
def test_cut_tokens_keeps_head_and_tail_within_the_context(
    n_ctx: int, n_tokens: int, n_keep: int, *, add_bos: bool
) -> None:
    tokens = tuple(range(n_tokens))
    cut = cut_tokens(tokens, n_ctx=n_ctx, n_keep=n_keep, add_bos=add_bos)

    assert len(cut) < n_ctx
    if n_tokens < n_ctx:
        assert cut == tokens
    else:
        head = min(n_keep + add_bos, n_ctx - 2)
        assert cut[:head] == tokens[:head]
        assert cut[-1] == tokens[-1]


def test_half_the_window_survives_a_cut() -> None:
    cut = cut_tokens(tuple(range(1000)), n_ctx=100, n_keep=4, add_bos=False)

    assert len(cut) == 100 - 48


def test_a_context_too_small_to_keep_anything_is_an_error() -> None:
    with pytest.raises(ContextTooLong, match="longer than the context length"):
        cut_tokens(tuple(range(10)), n_ctx=1, n_keep=0, add_bos=False)


def chat(**fields: object) -> ChatRequest:
    return ChatRequest(**{"model": "m", "messages": (USER,), **fields})  # type: ignore[arg-type]  # by name


def generate(**fields: object) -> GenerateRequest:
    return GenerateRequest(**{"model": "m", "prompt": "p", **fields})  # type: ignore[arg-type]  # by name


MODEL = stored_model("m:latest", parameters={"temperature": 0.5, "num_ctx": 64, "stop": ["X"]})
EMBEDDER = stored_model("m:latest", capabilities=("embedding",))
THINKER = stored_model("m:latest", capabilities=("completion", "thinking", "tools"))


@pytest.mark.parametrize(
    ("request_", "model", "error", "text"),
    [
        (chat(), EMBEDDER, NotSupported, '"m" does not support chat'),
        (chat(think=True), MODEL, NotSupported, '"m" does not support thinking'),
        (chat(think=True), THINKER, NotYetSupported, "thinking"),
        (
            chat(tools_json="[{}]"),
            MODEL,
            NotSupported,
            "registry.ollama.ai/library/m:latest does not support tools",
        ),
        (chat(tools_json="[{}]"), THINKER, NotYetSupported, "tools"),
        (chat(format_json='"json"'), MODEL, NotYetSupported, "format"),
        (
            chat(messages=(ChatMessage(role="user", images=(b"x",)),)),
            MODEL,
            NotYetSupported,
            "images",
        ),
        (
            chat(options={"num_ctx": "many"}),
            MODEL,
            InvalidOption,
            'option "num_ctx" must be of type integer',
        ),
        (
            chat(),
            stored_model(has_chat_template=False, template="{{ .Prompt }}"),
            NotYetSupported,
            "Go templates",
        ),
        (generate(), EMBEDDER, NotSupported, '"m" does not support generate'),
        (
            generate(suffix="s"),
            MODEL,
            NotSupported,
            "registry.ollama.ai/library/m:latest does not support insert",
        ),
        (generate(template="t"), MODEL, NotYetSupported, "template"),
        (generate(images=(b"x",)), MODEL, NotYetSupported, "images"),
        (
            generate(raw=True, system="s"),
            MODEL,
            InvalidRequest,
            "raw mode does not support template, system, or context",
        ),
    ],
)
def test_what_cannot_be_done_is_said(
    request_: ChatRequest | GenerateRequest, model: object, error: type[OlmError], text: str
) -> None:
    plan = plan_chat if isinstance(request_, ChatRequest) else plan_generate

    with pytest.raises(error) as caught:
        plan(request_, model)  # type: ignore[arg-type]  # the parameters pair them

    assert text in str(caught.value)


def test_request_options_win_over_the_modelfile() -> None:
    plan = plan_chat(chat(options={"temperature": 1.5, "top_k": 3.0}), MODEL)

    assert (plan.sampling.temperature, plan.sampling.top_k, plan.sampling.stop) == (1.5, 3, ("X",))
    assert plan.load == LoadOptions(n_ctx=64)


@pytest.mark.parametrize(("asked", "sent"), [(-1, 640), (7, 7), (10_000, 640), (0, 0)])
def test_generation_is_bounded_by_ten_contexts(asked: int, sent: int) -> None:
    plan = plan_chat(chat(options={"num_predict": asked}), MODEL)

    assert turn_message(plan, n_ctx=64).sampling.n_predict == sent


def test_a_completion_is_a_chat_of_one_turn_unless_raw() -> None:
    model = stored_model(system="from the file")

    plan = plan_generate(generate(), model)
    raw = plan_generate(generate(raw=True), model)

    assert isinstance(plan.prompt, ChatPrompt)
    assert said(plan.prompt.messages) == ["from the file", "p"]
    assert plan.want_context
    assert (raw.prompt, raw.want_context) == (TextPrompt("p"), False)


def test_the_requests_system_replaces_the_modelfiles() -> None:
    plan = plan_generate(generate(system="mine"), stored_model(system="from the file"))

    assert isinstance(plan.prompt, ChatPrompt)
    assert said(plan.prompt.messages) == ["mine", "p"]


def test_context_drops_the_modelfiles_messages() -> None:
    model = stored_model(messages=(ChatMessage(role="user", content="preset"),))

    plan = plan_generate(generate(context=[1, 2]), model)

    assert isinstance(plan.prompt, ChatPrompt)
    assert said(plan.prompt.messages) == ["p"]
    assert turn_message(plan, n_ctx=8, rendered="text").prompt == TextPrompt("text", (1, 2))


def test_dimensions_cut_and_scale_again() -> None:
    vectors = b"".join(value for value in (b"\0\0\x40\x40", b"\0\0\x80\x40", b"\0\0\x80\x3f"))

    whole = embed_result(Embedded(vectors, 3, (5,)), dimensions=0, load_ns=1)
    cut = embed_result(Embedded(vectors, 3, (5,)), dimensions=2, load_ns=1)

    assert whole.vectors == [[3.0, 4.0, 1.0]]
    assert cut.vectors == [[pytest.approx(0.6), pytest.approx(0.8)]]


def test_an_embedding_that_is_no_number_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="embedding contains NaN or Inf values"):
        embed_result(Embedded(b"\0\0\xc0\x7f", 1, (1,)), dimensions=0, load_ns=0)
