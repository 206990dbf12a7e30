"""Chat templates: the same prompt as the reference renderer, and errors in the template's own words."""

from __future__ import annotations

from collections.abc import Iterator

import jinja2
import msgspec
import pytest

from olm.chat.types import ChatMessage, ToolCall
from olm.errors import NotYetSupported
from olm.native.chat import ChatTemplate
from olm.native.handles import Model
from olm.native.lib import ChatTemplateFailed, InvalidArgument, check, lib, new_pointer

pytestmark = pytest.mark.native

WEATHER = """[{"type": "function", "function": {"name": "get_weather", "description": "The weather.",
  "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]"""


@pytest.fixture
def chat(tiny: Model) -> Iterator[ChatTemplate]:
    with ChatTemplate(tiny) as template:
        yield template


def reference(source: str, **variables: object) -> str:
    """Render as Hugging Face's tokenizers do."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
    environment.filters["tojson"] = lambda value, **_: msgspec.json.encode(value).decode()
    return environment.from_string(source).render(bos_token="", eos_token="<|im_end|>", **variables)


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

    rendered = chat.render(messages, think=think)

    assert rendered.prompt == reference(
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


def test_tools_reach_the_prompt_and_give_a_grammar(chat: ChatTemplate) -> None:
    rendered = chat.render([ChatMessage("user", "Weather in Paris?")], tools_json=WEATHER)

    assert "get_weather" in rendered.prompt
    assert "get-weather" in rendered.grammar or "get_weather" in rendered.grammar
    assert rendered.grammar_lazy
    assert rendered.triggers


def test_a_tool_round_is_rendered(chat: ChatTemplate) -> None:
    call = ToolCall("get_weather", '{"city": "Paris"}', "call_1")
    messages = [
        ChatMessage("user", "Weather in Paris?"),
        ChatMessage("assistant", tool_calls=(call,)),
        ChatMessage("tool", "Sunny", tool_name="get_weather", tool_call_id="call_1"),
    ]

    prompt = chat.render(messages, tools_json=WEATHER).prompt

    assert prompt.index("Paris") < prompt.index("Sunny")


def test_a_reply_is_taken_apart(chat: ChatTemplate) -> None:
    rendered = chat.render([ChatMessage("user", "Weather?")], tools_json=WEATHER, think=True)
    text = (
        "<think>\nLook it up.\n</think>\n\n"
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
    )

    parsed = ChatTemplate.parse(rendered.parser, text, partial=False)

    assert parsed.complete
    assert parsed.reasoning_content.strip() == "Look it up."
    [call] = parsed.tool_calls
    assert call.name == "get_weather"
    assert msgspec.json.decode(call.arguments) == {"city": "Paris"}


@pytest.mark.parametrize(
    "text", ["Sure. <tool_call>\nnot json\n</tool_call> tail", "<tool_call>\n{]</tool_call>"]
)
def test_a_reply_that_does_not_match_is_content_and_no_error(chat: ChatTemplate, text: str) -> None:
    rendered = chat.render([ChatMessage("user", "Weather?")], tools_json=WEATHER, think=False)

    parsed = ChatTemplate.parse(rendered.parser, text, partial=False)

    assert not parsed.complete
    assert parsed.content == text


def test_a_part_of_a_reply(chat: ChatTemplate) -> None:
    rendered = chat.render([ChatMessage("user", "Hi")], think=False)

    assert ChatTemplate.parse(rendered.parser, "Hel", partial=True).content == "Hel"


def test_a_template_of_ones_own(tiny: Model) -> None:
    source = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{{ mood }}"

    with ChatTemplate(tiny, source) as chat:
        rendered = chat.render(
            [ChatMessage("user", "a")], extra={"chat_template_kwargs": {"mood": "glad"}}
        )

    assert rendered.prompt == "[user] a\nglad"


def test_a_template_that_does_not_parse(tiny: Model) -> None:
    with pytest.raises(ChatTemplateFailed):
        ChatTemplate(tiny, "{% for m in %}")


def test_a_template_that_fails_says_why(tiny: Model) -> None:
    source = "{% if messages[0].content == 'bad' %}{{ raise_exception('no such talk') }}{% endif %}{{ messages[0].content }}"

    with ChatTemplate(tiny, source) as chat:
        assert chat.render([ChatMessage("user", "good")]).prompt == "good"
        with pytest.raises(ChatTemplateFailed, match="no such talk"):
            chat.render([ChatMessage("user", "bad")])


def test_pictures_are_not_there_yet(chat: ChatTemplate) -> None:
    with pytest.raises(NotYetSupported):
        chat.render([ChatMessage("user", "Look", images=(b"png",))])


@pytest.mark.parametrize(
    "json",
    [b"{}", b"{", b'{"messages": 1}', b'{"messages": [{"content": "x"}]}', b'{"messages": [], "tool_choice": "maybe"}',
     b'{"messages": [], "tools": [1]}', b'{"messages": [], "reasoning_format": "loud"}'],
)  # fmt: skip
def test_malformed_requests_are_refused(chat: ChatTemplate, json: bytes) -> None:
    with pytest.raises(InvalidArgument):
        check(lib.olm_chat_apply(chat.pointer, json, new_pointer("char **")))
