"""The prompts of qwen3-coder, qwen3-vl, qwen3.5, qwen3.8 and ornith, byte for byte.

Vectors of Ollama's `model/renderers/{qwen3coder,qwen3vl_*,qwen35,qwen38,ornith}_test.go`. In the expected texts `{`
stands for `<|im_start|>` and `}` for `<|im_end|>` and a line's end, wherever no JSON is near.
"""

from __future__ import annotations

import json

import pytest

from chat.chat_kit import make_tool
from olm.chat.renderers import RENDERERS, RenderInput
from olm.chat.renderers.kit.chatml import HOW_TO_CALL
from olm.chat.renderers.kit.parts import go_text
from olm.chat.tools import Tool, read_tools
from olm.chat.types import ChatMessage, Think, ToolCall
from olm.errors import InvalidRequest


def _render(
    name: str, *messages: ChatMessage, tools: tuple[Tool, ...] = (), think: Think | None = None
) -> str:
    return RENDERERS[name](RenderInput(messages=messages, tools=tools, think=think))


def _system(text: str) -> ChatMessage:
    return ChatMessage("system", content=text)


def _user(text: str, *images: bytes) -> ChatMessage:
    return ChatMessage("user", content=text, images=images)


def _assistant(text: str = "", *calls: ToolCall, thinking: str = "") -> ChatMessage:
    return ChatMessage("assistant", content=text, tool_calls=calls, thinking=thinking)


def _result(text: str) -> ChatMessage:
    return ChatMessage("tool", content=text)


def _call(name: str, **arguments: object) -> ToolCall:
    return ToolCall(name, json.dumps(arguments))


def _marked(text: str) -> str:
    return text.replace("{", "<|im_start|>").replace("}", "<|im_end|>\n")


_PLAIN = [
    (
        "qwen3-coder",
        [_system("You are a helpful assistant."), _user("Hello, how are you?")],
        "{system\nYou are a helpful assistant.}{user\nHello, how are you?}{assistant\n",
    ),
    (
        "qwen3-coder",
        [_system("One."), _user("Tell me."), _system("Two."), _assistant("I'll tell you")],
        "{system\nOne.}{user\nTell me.}{assistant\nI'll tell you",
    ),
    (
        "qwen3-coder",
        [_user("a", b"1"), ChatMessage("wizard", content="b"), _user("[img] c [img]", b"2", b"3")],
        "{user\n[img-0]a}{wizard\nb}{user\n[img-1] c [img-2]}{assistant\n",
    ),
    (
        "qwen3-vl-instruct",
        [_system("S"), _user("Tell me."), _assistant("I'll tell you")],
        "{system\nS}{user\nTell me.}{assistant\nI'll tell you",
    ),
    (
        "qwen3-vl-instruct",
        [_user("Hi"), _assistant("abc<think>poetry</think>")],
        "{user\nHi}{assistant\nabc<think>poetry</think>",
    ),
    (
        "qwen3-vl-instruct",
        [_user("Describe.", b"1", b"2"), _assistant("Let me.")],
        "{user\n[img-0][img-1]Describe.}{assistant\nLet me.",
    ),
    ("qwen3-vl-thinking", [_system("S"), _user("Hi")], "{system\nS}{user\nHi}{assistant\n<think>\n"),
    (
        "qwen3-vl-thinking",
        [_user("Hi"), _assistant("abc", thinking="So.<think>And</think>")],
        "{user\nHi}{assistant\n<think>\nSo.<think>And</think>\n</think>\n\nabc",
    ),
    (
        "qwen3-vl-thinking",
        [_user("Hi"), _assistant(thinking="I will speak.")],
        "{user\nHi}{assistant\n<think>\nI will speak.",
    ),
    (
        "qwen3-vl-thinking",
        [_user("Hi"), _assistant("abc", thinking="x"), _user("And?"), _assistant(thinking="y")],
        "{user\nHi}{assistant\nabc}{user\nAnd?}{assistant\n<think>\ny",
    ),
    (
        "qwen3.5",
        [_user("Write two words."), _assistant("Hello world", thinking="Keep it short.")],
        "{user\nWrite two words.}{assistant\n<think>\nKeep it short.\n</think>\n\nHello world",
    ),
    (
        "qwen3.5",
        [_system(""), _user("a"), _assistant("<think>t</think>\nb"), _user(" c "), _system("d")],
        "{system\n}{user\na}{assistant\nb}{user\nc}{system\nd}{assistant\n<think>\n",
    ),
    (
        "qwen3.5",
        [_user("a", b"1"), ChatMessage("wizard", content="b"), _result("<b> "), _result("2")],
        ("{user\n[img-0]a}{user\n<tool_response>\n<b>\n</tool_response>\n<tool_response>\n2\n</tool_response>}"
        "{assistant\n<think>\n"),
    ),
    (
        "ornith",
        [_user("Say hello."), _assistant("Hello."), _user("Now say bye.")],
        "{user\nSay hello.}{assistant\n<think>\n\n</think>\n\nHello.}{user\nNow say bye.}{assistant\n<think>\n",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "messages", "wanted"), _PLAIN)
def test_conversations_without_tools(name: str, messages: list[ChatMessage], wanted: str) -> None:
    assert _render(name, *messages) == _marked(wanted)


_NO_THINKING = [
    ("qwen3-vl-thinking", "{user\nHi}{assistant\n"),
    ("qwen3.5", "{user\nHi}{assistant\n<think>\n\n</think>\n\n"),
    ("qwen3.8", "{user\nHi}{assistant\n<think>\n\n</think>\n\n"),
    ("ornith", "{user\nHi}{assistant\n<think>\n\n</think>\n\n"),
    ("qwen3-coder", "{user\nHi}{assistant\n"),
]


@pytest.mark.parametrize(("name", "wanted"), _NO_THINKING)
def test_thinking_can_be_off(name: str, wanted: str) -> None:
    assert _render(name, _user("Hi"), think=False) == _marked(wanted)


def test_ornith_keeps_old_thinking_even_when_it_is_off() -> None:
    text = _render("ornith", _user("a"), _assistant("b", thinking="t"), _user("c"), think=False)

    assert "<|im_start|>assistant\n<think>\nt\n</think>\n\nb<|im_end|>" in text


_TOOLS = (
    make_tool("get_weather", {"city": {"type": "string"}}, required=["city"]),
    make_tool("now", {}),
)
_JSON_LINES = (
    '\n{"type": "function", "function": {"name": "get_weather", "description": "Do get_weather.", '
    '"parameters": {"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}}}}'
    '\n{"type": "function", "function": {"name": "now", "description": "Do now.", '
    '"parameters": {"type": "object", "properties": {}}}}'
)
_CODER_HEAD = "# Tools\n\nYou have access to the following functions:\n\n<tools>"


def test_qwen35_writes_tools_then_the_system_text_then_calls_and_results() -> None:
    text = _render(
        "qwen3.5",
        _system(" Be kind. "),
        _user("Plan."),
        _assistant(
            "Both.", _call("get_weather", city="Paris <b>", n=2, on=True, x=None), _call("now"), thinking="Hm."
        ),
        _result("22C"),
        _result("5"),
        tools=_TOOLS,
    )  # fmt: skip

    assert text == (
        f"<|im_start|>system\n{_CODER_HEAD}{_JSON_LINES}\n</tools>{HOW_TO_CALL}\n\nBe kind.<|im_end|>\n"
        "<|im_start|>user\nPlan.<|im_end|>\n<|im_start|>assistant\n<think>\nHm.\n</think>\n\nBoth.\n\n"
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis <b>\n</parameter>\n<parameter=n>\n2\n</parameter>\n"
        "<parameter=on>\ntrue\n</parameter>\n<parameter=x>\nnull\n</parameter>\n</function>\n</tool_call>\n"
        "<tool_call>\n<function=now>\n</function>\n</tool_call><|im_end|>\n"
        "<|im_start|>user\n<tool_response>\n22C\n</tool_response>\n<tool_response>\n5\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n<think>\n"
    )


def test_qwen35_drops_the_thinking_of_turns_before_the_last_question() -> None:
    turns = [_user("Run."), _assistant("Now.", _call("now"), thinking="Need it."), _result("5")]

    assert "Need it." in _render("qwen3.5", *turns)
    assert "Need it." in _render("qwen3.5", *turns, _user("<tool_response>x</tool_response>"))
    assert "Need it." not in _render("qwen3.5", *turns, _user("Sum up."))
    assert "Need it." in _render("qwen3.8", *turns, _user("Sum up."))


def test_qwen3_coder_describes_tools_in_tags_with_every_keyword() -> None:
    tool = read_tools(
        json.dumps(
            [
                {
                    "function": {
                        "name": "get_weather",
                        "description": "Get it",
                        "parameters": {
                            "required": ["unit"],
                            "properties": {
                                "unit": {
                                    "enum": ["celsius", "fahrenheit"],
                                    "type": ["string"],
                                    "description": "The unit",
                                },
                                "n": {"type": ["integer", "null"], "minimum": 1, "default": None},
                            },
                        },
                    }
                }
            ]
        )
    )

    text = _render("qwen3-coder", _user("?"), tools=tool)

    assert text == (
        "<|im_start|>system\nYou are Qwen, a helpful AI assistant that can interact with a computer to solve tasks.\n\n"
        f"{_CODER_HEAD}\n<function>\n<name>get_weather</name>\n<description>Get it</description>\n<parameters>"
        "\n<parameter>\n<name>unit</name>\n<type>string</type>\n<description>The unit</description>"
        '\n<enum>["celsius","fahrenheit"]</enum>\n</parameter>'
        '\n<parameter>\n<name>n</name>\n<type>["integer","null"]</type>\n<minimum>1</minimum>\n</parameter>'
        f'\n<required>["unit"]</required>\n</parameters>\n</function>\n</tools>{HOW_TO_CALL}<|im_end|>\n'
        "<|im_start|>user\n?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_qwen3_coder_writes_calls_and_results() -> None:
    text = _render(
        "qwen3-coder",
        _user("call"),
        _assistant(
            "I'll call both.", _call("double", number="1"), _call("echo", payload={"foo": "bar"})
        ),
        _result("2"),
        _result("6"),
    )

    assert text == _marked(
        "{user\ncall}{assistant\nI'll call both.\n\n"
        "<tool_call>\n<function=double>\n<parameter=number>\n1\n</parameter>\n</function>\n</tool_call>\n"
        "<tool_call>\n<function=echo>\n<parameter=payload>\nPAYLOAD\n</parameter>\n</function>\n</tool_call>}"
        "{user\n<tool_response>\n2\n</tool_response>\n<tool_response>\n6\n</tool_response>\n}{assistant\n"
    ).replace("PAYLOAD", '{"foo":"bar"}')


def test_qwen3_vl_writes_tools_and_calls_as_json() -> None:
    text = _render(
        "qwen3-vl-instruct",
        _system("S"),
        _user("Hi"),
        _assistant("before", _call("add", a=2, b=3.0), _call("mul", x="<é>")),
        _result("5"),
        _result("6"),
        tools=_TOOLS,
    )

    assert text == (
        "<|im_start|>system\nS\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        f"You are provided with function signatures within <tools></tools> XML tags:\n<tools>{_JSON_LINES}\n</tools>\n\n"
        "For each function call, return a json object with function name and arguments within <tool_call></tool_call> "
        'XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nbefore\n"
        '<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 3}}\n</tool_call>\n'
        '<tool_call>\n{"name": "mul", "arguments": {"x": "<é>"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\n5\n</tool_response>\n<tool_response>\n6\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_values_are_written_as_go_prints_them() -> None:
    assert [go_text(v) for v in ("a", None, True, 1, 2.5, {"a": "<b>"}, [1, "x"])] == [
        "a", "null", "true", "1", "2.5", '{"a":"\\u003cb\\u003e"}', '[1,"x"]',
    ]  # fmt: skip


_XHIGH = (
    "Reasoning effort is set to xhigh. Please think carefully through the task, validate key assumptions, consider "
    "plausible alternatives, and prioritize correctness, consistency, and clarity in the final answer."
)
_LOW = (
    "Reasoning effort is set to low. Keep your thinking brief and focused, moving directly to the conclusion without "
    "unnecessary elaboration."
)


@pytest.mark.parametrize(
    ("think", "effort"),
    [(None, _XHIGH), (True, ""), ("low", _LOW), ("medium", ""), ("high", _XHIGH), ("max", _XHIGH)],
)
def test_qwen38_says_how_hard_to_think(think: Think | None, effort: str) -> None:
    alone = f"{{system\n{effort}}}" if effort else ""
    before = f"{effort}\n\n" if effort else ""

    assert _render("qwen3.8", _user("Hello"), think=think) == _marked(
        alone + "{user\nHello}{assistant\n<think>\n"
    )
    assert _render("qwen3.8", _system(" Be concise. \n"), _user("Hello"), think=think) == _marked(
        f"{{system\n{before}Be concise.}}{{user\nHello}}{{assistant\n<think>\n"
    )
    with_tools = _render("qwen3.8", _user("Hello"), think=think, tools=_TOOLS)
    assert with_tools.startswith(f"<|im_start|>system\n{before}{_CODER_HEAD}")


def test_qwen38_knows_one_system_message_and_keeps_all_thinking() -> None:
    text = _render(
        "qwen3.8",
        _system("Base policy."),
        _user("First"),
        _assistant("<think>literal</think>\nAnswer", thinking="Plan"),
        ChatMessage("developer", content="Use Go."),
        ChatMessage("wizard", content="W"),
        _user("Next"),
        think=True,
    )

    assert text == _marked(
        "{system\nBase policy.\n\nUse Go.}{user\nFirst}"
        "{assistant\n<think>\nPlan\n</think>\n\n<think>literal</think>\nAnswer}"
        "{wizard\nW}{user\nNext}{assistant\n<think>\n"
    )


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "no messages provided"),
        ([_system("Hello")], "no user query found in messages"),
        ([_user("<tool_response>1</tool_response>")], "no user query found in messages"),
        (
            [ChatMessage("system", images=(b"1",)), _user("Hello")],
            "system message cannot contain images",
        ),
    ],
)
def test_qwen38_refuses_what_its_template_refuses(messages: list[ChatMessage], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        _render("qwen3.8", *messages)
