"""Chat templates: the same prompt as the reference renderer, what comes with it, and errors in the template's own words."""

from __future__ import annotations

from collections.abc import Iterator

import jinja2
import msgspec
import pytest
from jinja_kit import NO_TEMPLATES, TEMPLATES, TOOLS_JSON, prompt, source

from olm.chat.rendering import Rendered, ThinkTags, ToolGrammar
from olm.chat.types import ChatMessage, ChatPrompt, Piece, ToolCall, ToolChoice
from olm.errors import InvalidRequest
from olm.native.chat import ChatTemplate
from olm.native.handles import Model
from olm.native.lib import ChatTemplateFailed, InvalidArgument, check, lib, new_pointer

pytestmark = pytest.mark.native
needs_tree = pytest.mark.skipif(not TEMPLATES, reason=NO_TEMPLATES)


@pytest.fixture
def chat(tiny: Model) -> Iterator[ChatTemplate]:
    with ChatTemplate(tiny) as template:
        yield template


def render(chat: ChatTemplate, asked: ChatPrompt) -> Rendered:
    return chat.render(asked, new_id=lambda: "new")


def render_by(tiny: Model, template: str, asked: ChatPrompt) -> Rendered:
    with ChatTemplate(tiny, template) as chat:
        return render(chat, asked)


def reference(template: str, **variables: object) -> str:
    """Render as Hugging Face's tokenizers do."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
    environment.filters["tojson"] = lambda value, **_: msgspec.json.encode(value).decode()
    return environment.from_string(template).render(
        bos_token="", eos_token="<|im_end|>", **variables
    )


CONVERSATIONS = {
    "one": [ChatMessage("user", "Why is the sky blue?")],
    "system": [ChatMessage("system", "Be brief."), ChatMessage("user", "Hello")],
    "turns": [
        ChatMessage("user", "Hello"),
        ChatMessage("assistant", "Hi."),
        ChatMessage("user", "Grüße, 😀!"),
    ],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("think", [True, False])
def test_the_prompt_is_the_reference_renderers(chat: ChatTemplate, name: str, think: bool) -> None:
    messages = CONVERSATIONS[name]

    text = render(chat, prompt(*messages, think=think)).text

    assert text == reference(
        chat.caps().source,
        messages=[{"role": m.role, "content": m.content} for m in messages],
        add_generation_prompt=True,
        enable_thinking=think,
    )


def test_the_caps_of_the_built_in_model(chat: ChatTemplate) -> None:
    caps = chat.caps()

    assert caps.explicit
    assert caps.supports_thinking
    assert caps.caps["supports_tools"]


# -- thinking ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("think", [None, True, "high"])
def test_thinking_is_on_unless_it_is_not_wanted(chat: ChatTemplate, think: str | None) -> None:
    assert render(chat, prompt(think=think)).think == ThinkTags("<think>", ("</think>",))  # type: ignore[arg-type]  # literals


def test_a_prompt_that_closes_the_thinking_leaves_none(chat: ChatTemplate) -> None:
    assert render(chat, prompt(think=False)).think is None


@needs_tree
@pytest.mark.parametrize("name", ["deepseek-ai-DeepSeek-V3.1", "llama-cpp-rwkv-world"])
def test_a_prompt_that_opens_the_thinking_says_so(tiny: Model, name: str) -> None:
    rendered = render_by(tiny, source(name), prompt(think=True))
    parser = rendered.make_parser()

    assert rendered.think == ThinkTags("<think>", ("</think>",), is_open=True)
    assert parser.push("Hm.</think>Yes") == [Piece(thinking="Hm."), Piece(content="Yes")]


@needs_tree
def test_levels_reach_the_template(tiny: Model) -> None:
    text = render_by(tiny, source("openai-gpt-oss-120b"), prompt(think="high")).text

    assert "Reasoning: high" in text


def test_earlier_thoughts_are_the_templates_business(tiny: Model) -> None:
    template = "{% for m in messages %}{{ m.content }}/{{ m.reasoning_content }};{% endfor %}"
    turn = ChatMessage("assistant", "Hi.", thinking="They greet.")

    asked = prompt(ChatMessage("user", "a"), turn, ChatMessage("user", "b"))

    assert render_by(tiny, template, asked).text == "a/;Hi./They greet.;b/;"


# -- tools ---------------------------------------------------------------------------------------------


def test_tools_reach_the_prompt_and_give_a_grammar(chat: ChatTemplate) -> None:
    rendered = render(chat, prompt(tools=True))

    assert "get_weather" in rendered.text
    assert isinstance(rendered.calls, ToolGrammar)
    assert rendered.calls.triggers == ("<tool_call>\n",)
    assert "get-weather" in rendered.calls.gbnf


def test_every_keyword_of_a_schema_reaches_the_prompt(chat: ChatTemplate) -> None:
    parameters = '{"type":"object","x-order":[3],"properties":{"n":{"minimum":3,"type":"integer"}}}'
    tools = f'[{{"function": {{"name": "f", "parameters": {parameters}}}}}]'

    text = render(chat, ChatPrompt((ChatMessage("user", "a"),), tools_json=tools)).text

    assert parameters in text.replace('": ', '":').replace(", ", ",")


def test_calls_have_a_grammar_if_there_are_tools_even_if_none_is_wanted(chat: ChatTemplate) -> None:
    none = msgspec.structs.replace(prompt(tools=True), tool_choice=ToolChoice("none"))

    assert render(chat, prompt()).calls is None
    calls = render(chat, none).calls
    assert isinstance(calls, ToolGrammar)
    assert calls.triggers  # what must not be written


@pytest.mark.parametrize(("name", "other"), [("", "add"), ("get_weather", "")])
def test_a_call_can_be_required(chat: ChatTemplate, name: str, other: str) -> None:
    asked = msgspec.structs.replace(
        prompt(tools=True), tool_choice=ToolChoice("required", name), parallel_tool_calls=False
    )

    rendered = render(chat, asked)

    assert isinstance(rendered.calls, ToolGrammar)
    assert rendered.calls.triggers == ()
    assert "root ::= tool-call" in rendered.calls.gbnf
    assert ("tool-add" in rendered.calls.gbnf) == bool(other)
    assert "add" in rendered.text, "the prompt still offers all of them"


def test_to_require_a_tool_that_is_not_offered_is_refused(chat: ChatTemplate) -> None:
    asked = msgspec.structs.replace(prompt(tools=True), tool_choice=ToolChoice("required", "fly"))

    with pytest.raises(InvalidRequest, match="names no tool"):
        render(chat, asked)


@needs_tree
def test_a_trigger_that_is_no_plain_text_gives_no_grammar(tiny: Model) -> None:
    assert render_by(tiny, source("openai-gpt-oss-120b"), prompt(tools=True)).calls is None


def test_a_tool_round_is_rendered(chat: ChatTemplate) -> None:
    call = ToolCall("get_weather", '{"city": "Paris"}', "call_1")
    asked = prompt(
        ChatMessage("user", "Weather in Paris?"),
        ChatMessage("assistant", tool_calls=(call,)),
        ChatMessage("tool", "Sunny", tool_name="get_weather", tool_call_id="call_1"),
        tools=True,
    )

    text = render(chat, asked).text

    assert text.index("Paris") < text.index("Sunny")


# -- variables, continuation, pictures -------------------------------------------------------------------


def test_variables_of_the_request_reach_the_template_and_win(tiny: Model) -> None:
    template = "{{ mood }} {{ thinking }} {{ messages[0].content }}"
    asked = ChatPrompt(
        (ChatMessage("user", "a"),),
        think=True,
        template_kwargs_json='{"mood": "glad", "thinking": 7}',
    )

    assert render_by(tiny, template, asked).text == "glad 7 a"


@pytest.mark.parametrize("json", ["[]", "{", '{"enable_thinking": "no"}', "[" * 100_000])
def test_variables_that_are_none_are_refused(chat: ChatTemplate, json: str) -> None:
    with pytest.raises(InvalidRequest, match="chat_template_kwargs"):
        render(chat, msgspec.structs.replace(prompt(), template_kwargs_json=json))


def test_a_last_answer_is_continued(chat: ChatTemplate) -> None:
    asked = prompt(
        ChatMessage("user", "Count."), ChatMessage("assistant", "One, two,"), think=False
    )

    rendered = render(chat, asked)

    assert rendered.text.endswith("One, two,")
    parser = rendered.make_parser()
    assert parser.push(" three") + parser.finish() == [Piece(content=" three")]


def test_a_last_answer_with_calls_is_not_continued(chat: ChatTemplate) -> None:
    turn = ChatMessage("assistant", "Look.", tool_calls=(ToolCall("add", "{}"),))

    text = render(chat, prompt(ChatMessage("user", "Count."), turn, think=True)).text

    assert text.endswith("<|im_start|>assistant\n")


def test_pictures_have_their_places(tiny: Model) -> None:
    template = "{% for m in messages %}{{ m.content }}|{% endfor %}"
    asked = prompt(
        ChatMessage("user", "Look [img] here", images=(b"a", b"b")),
        ChatMessage("user", "and", images=(b"c",)),
    )

    assert render_by(tiny, template, asked).text == "[img-1]Look [img-0] here|[img-2]and|"


# -- what goes wrong -------------------------------------------------------------------------------------


def test_a_template_that_does_not_parse(tiny: Model) -> None:
    with pytest.raises(ChatTemplateFailed, match="template"):
        ChatTemplate(tiny, "{% for m in %}")


def test_a_template_that_fails_says_where_and_why(tiny: Model) -> None:
    template = "hello\n{% if messages[0].content == 'bad' %}{{ raise_exception('no such talk') }}{% endif %}{{ messages[0].content }}"

    with ChatTemplate(tiny, template) as chat:
        assert render(chat, prompt(ChatMessage("user", "good"))).text == "hello\ngood"
        with pytest.raises(ChatTemplateFailed, match=r"template failed, line 2, .*no such talk"):
            render(chat, prompt(ChatMessage("user", "bad")))


def test_a_template_that_the_library_cannot_analyse_renders_all_the_same(tiny: Model) -> None:
    template = "{% if messages | length != 1 or messages[0].content != 'a' %}{{ raise_exception('only a') }}{% endif %}ok"

    rendered = render_by(tiny, template, prompt(ChatMessage("user", "a")))

    parser = rendered.make_parser()
    assert rendered.text == "ok"
    assert parser.push("Hi") + parser.finish() == [Piece(content="Hi")]


@pytest.mark.parametrize(
    "messages",
    [
        (),
        (ChatMessage("", ""),),
        (ChatMessage("user", ""), ChatMessage("user", "")),
        (ChatMessage("wizard", "abra"),),
        (ChatMessage("tool", "3"),),
        (ChatMessage("assistant", tool_calls=(ToolCall("", ""),)),),
        (ChatMessage("user", "a\0b\x7f\ufffd"),),
    ],
    ids=["none", "blank", "empty", "role", "result", "call", "zeros"],
)
def test_odd_messages_are_rendered_or_refused(
    chat: ChatTemplate, messages: tuple[ChatMessage, ...]
) -> None:
    try:
        text = render(chat, ChatPrompt(messages)).text
    except (ChatTemplateFailed, InvalidRequest):
        return
    assert isinstance(text, str)


def test_text_that_is_no_unicode_is_refused(chat: ChatTemplate) -> None:
    with pytest.raises(InvalidRequest, match="Unicode"):
        render(chat, prompt(ChatMessage("user", "a\ud800b")))


def test_arguments_that_are_no_json_are_refused(chat: ChatTemplate) -> None:
    turn = ChatMessage("assistant", tool_calls=(ToolCall("add", "{oops"),))

    with pytest.raises(InvalidRequest, match="arguments"):
        render(chat, prompt(ChatMessage("user", "a"), turn, ChatMessage("tool", "3")))


@pytest.mark.parametrize("tools", ["{", "[1]", "[{}]", '[{"type": "x", "function": {"name": 3}}]'])
def test_malformed_tools_are_refused(chat: ChatTemplate, tools: str) -> None:
    with pytest.raises(InvalidRequest, match="tool"):
        render(chat, ChatPrompt((ChatMessage("user", "a"),), tools_json=tools))


@pytest.mark.parametrize(
    "json",
    [b"{}", b"{", b'{"messages": 1}', b'{"messages": [{"content": "x"}]}', b'{"messages": [], "tool_choice": "maybe"}',
     b'{"messages": [], "tools": [1]}', b'{"messages": [], "reasoning_format": "loud"}'],
)  # fmt: skip
def test_malformed_requests_are_refused(chat: ChatTemplate, json: bytes) -> None:
    with pytest.raises(InvalidArgument):
        check(lib.olm_chat_apply(chat.pointer, json, new_pointer("char **")))


# -- memory of what is derived ---------------------------------------------------------------------------


def test_what_is_kept_is_bounded_and_stays_right(chat: ChatTemplate) -> None:
    """More kinds of requests than are kept: those that were forgotten are derived again."""
    requests = [
        ChatPrompt(
            (ChatMessage("user", "Hello"),),
            tools_json=TOOLS_JSON.replace("get_weather", f"get_{n}"),
            think=think,
        )
        for n in range(20)
        for think in (True, False)
    ]

    first = [chat.apply(request) for request in requests]

    assert [chat.apply(request) for request in requests] == first
    assert first[:2] == [chat.apply(request, fresh=True) for request in requests[:2]]


@needs_tree
def test_messages_that_change_the_prompts_end_change_what_is_derived(tiny: Model) -> None:
    """Nemotron's thinking is switched in the text of a message, which is no part of a request's fields."""
    loud, silent = prompt(), prompt(ChatMessage("user", "Hello /no_think"))

    with ChatTemplate(tiny, source("NVIDIA-Nemotron-Nano-v2")) as chat:
        for asked in (loud, silent, loud, silent):
            assert chat.apply(asked) == chat.apply(asked, fresh=True)
            assert (render(chat, asked).think is None) == (asked is silent)


def test_a_prompt_without_an_end_is_told_from_one_that_has_it(tiny: Model) -> None:
    template = (
        "{% for m in messages %}{{ m.content }};{% endfor %}"
        "{% if add_generation_prompt and messages | length > 1 %}answer:{% endif %}"
    )
    short = prompt(ChatMessage("user", "a"))
    long = prompt(ChatMessage("user", "a"), ChatMessage("user", "b"))

    with ChatTemplate(tiny, template) as chat:
        for asked in (short, long, short):
            assert chat.apply(asked) == chat.apply(asked, fresh=True)
