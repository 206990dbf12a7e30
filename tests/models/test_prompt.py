"""Which messages make a prompt, which stay when it is too long, and what a request asks of the worker."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.models import stored_model
from olm.actors.client import (
    ChatRequest,
    GenerateRequest,
    ModelDetails,
    StoredModel,
)
from olm.actors.turns import embed_result, plan_chat, plan_generate, turn_message
from olm.chat.options import LoadOptions
from olm.chat.prompt import (
    chat_messages,
    cut_tokens,
    fit_messages,
    is_too_long,
    plain_text,
    without_old_thoughts,
)
from olm.chat.types import (
    ChatMessage,
    ChatPrompt,
    Constraint,
    InfillPrompt,
    PromptStyle,
    TextPrompt,
    Think,
    ToolChoice,
)
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


def size(message: ChatMessage) -> int:
    return len(message.content)


def fit(messages: Sequence[ChatMessage], n_limit: int) -> tuple[Sequence[ChatMessage], bool]:
    return fit_messages(messages, n_limit, size=size, count=length)


def dialogue(*pairs: tuple[str, str]) -> list[ChatMessage]:
    return [ChatMessage(role=role, content=content) for role, content in pairs]


def test_the_oldest_turns_go_but_never_system_or_the_last() -> None:
    turns = [(role, str(n) * 10) for n in range(5) for role in ("user", "assistant")]
    messages = dialogue(("system", "be brief"), *turns, ("user", "now"))

    kept, fits = fit(messages, 80)

    assert fits
    assert said(kept) == ["be brief", "3" * 10, "3" * 10, "4" * 10, "4" * 10, "now"]


def test_the_last_turn_stays_whole_while_it_fits() -> None:
    messages = dialogue(("user", "x" * 30), ("user", "q"), ("assistant", "a"), ("tool", "r" * 10))

    kept, fits = fit(messages, 30)

    assert (said(kept), fits) == (["q", "a", "r" * 10], True)


def test_in_a_last_turn_that_is_too_long_no_result_loses_its_call() -> None:
    messages = dialogue(
        ("user", "q" * 50),
        ("assistant", "call 1"),
        ("tool", "one"),
        ("assistant", "call 2"),
        ("tool", "two"),
    )

    kept, fits = fit(messages, 50)

    assert (said(kept), fits) == (["call 1", "one", "call 2", "two"], True)
    assert said(fit(messages, 20)[0]) == ["call 2", "two"]


def test_the_last_message_stays_even_if_too_long() -> None:
    kept, fits = fit([USER, ChatMessage(role="user", content="x" * 50)], 10)

    assert (said(kept), fits) == (["x" * 50], False)


MESSAGES = st.lists(
    st.builds(
        ChatMessage,
        role=st.sampled_from(["system", "user", "assistant", "tool"]),
        content=st.text("x", max_size=20),
    ),
    min_size=1,
    max_size=30,
)


@given(MESSAGES, st.integers(0, 400))
def test_what_stays_is_system_messages_and_the_end_of_the_conversation(
    messages: list[ChatMessage], limit: int
) -> None:
    def framed(part: Sequence[ChatMessage]) -> int:
        return length(part) + 4 * len(part)

    kept, fits = fit_messages(messages, limit, size=size, count=framed)

    n_drop = len(messages) - sum(m is not None for m in kept if m.role != "system")
    assert fits == (framed(kept) <= limit)
    assert kept[-1] == messages[-1]
    assert [m for m in kept if m.role == "system"] == [m for m in messages if m.role == "system"]
    others = [m for m in messages if m.role != "system"]
    assert [m for m in kept if m.role != "system"] == others[
        max(n_drop - len(messages) + len(others), 0) :
    ]
    if framed(messages) <= limit:
        assert list(kept) == messages


def test_a_cut_the_template_refuses_is_passed_over() -> None:
    def count(messages: Sequence[ChatMessage]) -> int:
        if messages[0].content == "odd":
            raise TemplateError("conversation must start otherwise")
        return length(messages)

    messages = dialogue(*(("user", "x" * 30),) * 3, ("user", "odd"), ("user", "even"))

    kept, fits = fit_messages(messages, 20, size=size, count=count)

    assert (said(kept), fits) == (["even"], True)


@pytest.mark.parametrize(("frame", "fixed"), [(0, 0), (4, 0), (25, 0), (4, 600)])
def test_each_message_is_counted_once_and_few_are_rendered(frame: int, fixed: int) -> None:
    counted: list[int] = []
    sized = 0

    def count(messages: Sequence[ChatMessage]) -> int:
        counted.append(len(messages))
        return sum(len(m.content) + frame for m in messages) + fixed

    def size(message: ChatMessage) -> int:
        nonlocal sized
        sized += 1
        return len(message.content)

    messages = [ChatMessage(role="user", content="x" * 5)] * 100_000
    kept, fits = fit_messages(messages, 1000, size=size, count=count)

    assert fits
    room = 1000 - fixed
    assert 0.8 * room / (5 + max(frame, 4)) < len(kept) <= room / (5 + frame)
    assert max(counted) <= 1000
    assert len(counted) <= 4
    assert sized <= 300
    assert is_too_long(messages, 1000, size=size, count=count)
    assert len(counted) <= 4


@given(MESSAGES, st.integers(0, 200))
def test_whole_or_not_is_what_counting_the_whole_says(
    messages: list[ChatMessage], limit: int
) -> None:
    assert is_too_long(messages, limit, size=size, count=length) == (length(messages) > limit)


def test_thoughts_of_earlier_turns_are_taken_out() -> None:
    thought = ChatMessage(role="assistant", content="<think>\nhm</think>\n\nyes")

    kept = without_old_thoughts([USER, thought, USER, thought])

    assert said(kept) == ["hi", "yes", "hi", thought.content]


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
        (
            chat(tools_json="[{}]"),
            MODEL,
            NotSupported,
            "registry.ollama.ai/library/m:latest does not support tools",
        ),
        (
            chat(messages=(ChatMessage(role="user", images=(b"x",)),)),
            MODEL,
            NotSupported,
            "registry.ollama.ai/library/m:latest does not support vision",
        ),
        (
            chat(options={"num_ctx": "many"}),
            MODEL,
            InvalidOption,
            'option "num_ctx" must be of type integer',
        ),
        (generate(), EMBEDDER, NotSupported, '"m" does not support generate'),
        (
            generate(suffix="s"),
            MODEL,
            NotSupported,
            "registry.ollama.ai/library/m:latest does not support insert",
        ),
        (generate(images=(b"RIFF1234WAVE",)), MODEL, NotSupported, "does not support audio"),
        (generate(images=(b"x",), raw=True), MODEL, NotYetSupported, "images"),
        (
            generate(raw=True, system="s"),
            MODEL,
            InvalidRequest,
            "raw mode does not support template, system, or context",
        ),
        (generate(prompt_tokens=[1]), MODEL, InvalidRequest, "a prompt of tokens needs raw mode"),
        (
            generate(prompt_tokens=[1, 1 << 40], raw=True),
            MODEL,
            InvalidRequest,
            "token 1099511627776 at place 1 is not in any model's vocabulary",
        ),
        (
            generate(context=[-5]),
            MODEL,
            InvalidRequest,
            "token -5 at place 0 is not in any model's vocabulary",
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


def test_a_raw_prompt_of_tokens_stands_before_its_text() -> None:
    plan = plan_generate(generate(prompt="", prompt_tokens=[3, 4], raw=True), MODEL)

    assert plan.prompt == TextPrompt("", context=(3, 4))


@pytest.mark.parametrize(("options", "tells"), [({}, False), ({"stop": ["Y"]}, True)])
def test_stops_of_a_modelfile_are_an_ordinary_end(options: dict[str, object], tells: bool) -> None:
    turns = (
        turn_message(plan, n_ctx=64)
        for plan in (
            plan_chat(chat(options=options), MODEL),
            plan_generate(generate(options=options), MODEL),
        )
    )

    for turn in turns:
        assert turn.sampling.stop == (("Y",) if tells else ("X",))
        assert turn.tell_stop is tells


def test_the_requests_system_replaces_the_modelfiles() -> None:
    plan = plan_generate(generate(system="mine"), stored_model(system="from the file"))

    assert isinstance(plan.prompt, ChatPrompt)
    assert said(plan.prompt.messages) == ["mine", "p"]


def test_context_drops_the_modelfiles_messages() -> None:
    model = stored_model(messages=(ChatMessage(role="user", content="preset"),))

    plan = plan_generate(generate(context=[1, 2]), model)

    assert isinstance(plan.prompt, ChatPrompt)
    assert said(plan.prompt.messages) == ["p"]
    assert plan.prompt.context == (1, 2)


GO = {"template": "{{ .Prompt }}", "uses_go_template": True, "has_chat_template": False}


@pytest.mark.parametrize(
    ("fields", "style"),
    [
        ({}, PromptStyle()),
        ({"template": "t"}, PromptStyle()),
        (GO, PromptStyle(template="{{ .Prompt }}")),
        ({**GO, "parser": "qwen3"}, PromptStyle(parser="qwen3", template="{{ .Prompt }}")),
        ({**GO, "renderer": "r", "parser": "p"}, PromptStyle("r", "p")),
        (
            {"template": "<|start|>{{ .Prompt }}<|end|>", "details": ModelDetails(family="gptoss")},
            PromptStyle(parser="harmony", template="<|start|>{{ .Prompt }}<|end|>"),
        ),
    ],
)
def test_the_way_to_the_prompt_is_the_models(fields: dict[str, object], style: PromptStyle) -> None:
    plan = plan_chat(chat(), stored_model(**fields))  # type: ignore[arg-type]  # by name

    assert isinstance(plan.prompt, ChatPrompt)
    assert plan.prompt.style == style


@pytest.mark.parametrize(
    ("fields", "content"),
    [
        ({}, "<think>hm</think>yes"),
        ({"details": ModelDetails(family="qwen3")}, "yes"),
        ({"name": "me/deepseek-r1:8b"}, "yes"),
        ({"name": "my-deepseek-r1:8b"}, "<think>hm</think>yes"),
    ],
)
def test_some_models_never_see_thoughts_that_come_back_as_content(
    fields: dict[str, object], content: str
) -> None:
    answer = ChatMessage("assistant", "<think>hm</think>yes")

    plan = plan_chat(chat(messages=(USER, answer, USER)), stored_model(**fields))  # type: ignore[arg-type]  # by name

    assert isinstance(plan.prompt, ChatPrompt)
    assert said(plan.prompt.messages) == ["hi", content, "hi"]


def test_a_template_of_the_request_takes_the_models_place() -> None:
    plan = plan_generate(generate(template="mine"), stored_model(renderer="r", parser="p"))

    assert isinstance(plan.prompt, ChatPrompt)
    assert plan.prompt.style == PromptStyle(template="mine")


def test_a_suffix_makes_a_gap_to_fill() -> None:
    model = stored_model(capabilities=("completion", "insert"), **GO)  # type: ignore[arg-type]  # by name

    plan = plan_generate(generate(suffix="s", context=[3]), model)

    assert plan.prompt == InfillPrompt("p", "s", PromptStyle(template="{{ .Prompt }}"), (3,))


@pytest.mark.parametrize(
    ("asked", "model", "sent"),
    [
        (None, MODEL, None),
        (False, MODEL, False),
        (None, THINKER, True),
        (False, THINKER, False),
        ("max", THINKER, "max"),
        ("max", attrs.evolve(THINKER, parser="harmony"), "high"),
    ],
)
def test_a_model_that_can_think_does_unless_told_not_to(
    asked: Think | None, model: StoredModel, sent: Think | None
) -> None:
    plan = plan_chat(chat(think=asked), model)

    assert isinstance(plan.prompt, ChatPrompt)
    assert plan.prompt.think == sent


def test_tools_and_constraints_travel_to_the_worker() -> None:
    wanted = Constraint("regex", "[0-9]+")
    choice = ToolChoice("required", "f")

    plan = plan_chat(chat(tools_json="[]", tool_choice=choice, constraint=wanted), THINKER)
    turn = turn_message(plan, n_ctx=8)

    assert isinstance(turn.prompt, ChatPrompt)
    assert (turn.prompt.tools_json, turn.prompt.tool_choice) == ("[]", choice)
    assert turn.constraint == wanted


def test_pictures_are_placed_but_not_seen_yet() -> None:
    model = stored_model(capabilities=("completion", "vision"))
    plan = plan_chat(chat(messages=(ChatMessage(role="user", images=(b"x",)),)), model)

    with pytest.raises(NotYetSupported):
        turn_message(plan, n_ctx=8)


def test_dimensions_cut_and_scale_again() -> None:
    vectors = b"".join(value for value in (b"\0\0\x40\x40", b"\0\0\x80\x40", b"\0\0\x80\x3f"))

    whole = embed_result(Embedded(vectors, 3, (5,)), dimensions=0, load_ns=1)
    cut = embed_result(Embedded(vectors, 3, (5,)), dimensions=2, load_ns=1)

    assert whole.vectors == [[3.0, 4.0, 1.0]]
    assert cut.vectors == [[pytest.approx(0.6), pytest.approx(0.8)]]


def test_an_embedding_that_is_no_number_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="embedding contains NaN or Inf values"):
        embed_result(Embedded(b"\0\0\xc0\x7f", 1, (1,)), dimensions=0, load_ns=0)
