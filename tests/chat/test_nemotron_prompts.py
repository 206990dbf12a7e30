"""The prompts of nemotron-3-nano and nemotron-3.5-nano, byte for byte.

Conversations and texts are those of Ollama's `nemotron3nano_reference_test.go`, `nemotron35_reference_test.go` and
`nemotron_cases_test.go`, where they are captured from the models' templates. In the expected texts `{` stands for
`<|im_start|>` and `}` for `<|im_end|>` and a line's end; the system turn is left away where it is empty.
"""

from __future__ import annotations

import json

import pytest

from chat.chat_kit import make_tool
from olm.chat.renderers import RENDERERS, RenderInput
from olm.chat.renderers.kit.chatml import HOW_TO_CALL
from olm.chat.tools import read_tools
from olm.chat.types import ChatMessage, Think, ToolCall

_M = ChatMessage
_Case = tuple[list[ChatMessage], Think | None, str, str | None]


def _call(name: str, **arguments: object) -> ToolCall:
    return ToolCall(name, json.dumps(arguments))


def _u(text: str) -> ChatMessage:
    return _M("user", content=text)


def _a(text: str = "", thinking: str = "", *calls: ToolCall) -> ChatMessage:
    return _M("assistant", content=text, thinking=thinking, tool_calls=calls)


_ON, _OFF = "{assistant\n<think>\n", "{assistant\n<think></think>"
_F = "<tool_call>\n<function=f>\n</function>\n</tool_call>\n"
_PARIS = "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>\n"
_paris = _call("get_weather", city="Paris")

_CASES: dict[str, _Case] = {
    "default thinking on": ([_u("Hello")], None, "{user\nHello}" + _ON, None),
    "thinking off": ([_u("Hello")], False, "{user\nHello}" + _OFF, None),
    "literal end of thinking": (
        [_u("literal </think> only")], False, "{user\nliteral </think> only}" + _OFF, None,
    ),
    "user no think toggle": (
        [_u("Hello /no_think")], True, "{user\nHello}" + _OFF, "{user\nHello /no_think}" + _ON,
    ),
    "system think toggle overrides false": (
        [_M("system", content="Policy /think"), _u("Hello")],
        False,
        "{system\nPolicy }{user\nHello}" + _ON,
        "{system\nPolicy /think}{user\nHello}" + _OFF,
    ),
    "later toggle wins": (
        [_M("system", content="Policy /no_think"), _u("Actually /think")],
        False,
        "{system\nPolicy }{user\nActually}" + _ON,
        "{system\nPolicy /no_think}{user\nActually /think}" + _OFF,
    ),
    "toggles go, closing tag stays": (
        [_M("system", content="A /think B /no_think C </think>"), _u("Hello")],
        False,
        "{system\nA  B  C </think>}{user\nHello}" + _ON,
        "{system\nA /think B /no_think C </think>}{user\nHello}" + _OFF,
    ),
    "plain content gets an empty thought": (
        [_u("Hi"), _a("Hello there")], True, "{user\nHi}{assistant\n<think></think>Hello there}" + _ON, None,
    ),
    "thinking": (
        [_u("Hi"), _a("Answer", "Need to think")],
        True,
        "{user\nHi}{assistant\n<think>\nNeed to think\n</think>\nAnswer}" + _ON,
        "{user\nHi}{assistant\n<think>\nNeed to think</think>Answer}" + _ON,
    ),
    "tags in content": (
        [_u("Hi"), _a("<think>kept</think>Answer")],
        True,
        "{user\nHi}{assistant\n<think>kept</think>Answer}" + _ON,
        None,
    ),
    "call with content": (
        [_u("Weather?"), _a("Checking now.", "", _paris)],
        True,
        "{user\nWeather?}{assistant\n<think></think>Checking now.\n" + _PARIS + "}" + _ON,
        None,
    ),
    "old call loses its thinking": (
        [_u("Weather?"), _a("Checking now.", "Need weather", _paris), _u("And tomorrow?")],
        True,
        "{user\nWeather?}{assistant\n<think></think>Checking now.\n" + _PARIS + "}{user\nAnd tomorrow?}" + _ON,
        None,
    ),
    "old call with open thinking": (
        [_u("Weather?"), _a("<think>draft", "", _paris), _u("And tomorrow?")],
        True,
        "{user\nWeather?}{assistant\n<think></think>\n" + _PARIS + "}{user\nAnd tomorrow?}" + _ON,
        None,
    ),
    "call without content": (
        [_u("Weather?"), _a("", "", _paris)],
        True,
        "{user\nWeather?}{assistant\n<think></think>\n" + _PARIS + "}" + _ON,
        None,
    ),
    "old content with tags": (
        [_u("Hi"), _a("<think>hidden</think>Visible"), _u("Next")],
        True,
        "{user\nHi}{assistant\n<think></think>Visible}{user\nNext}" + _ON,
        None,
    ),
    "old thinking": (
        [_u("Hi"), _a("Visible", "hidden"), _u("Next")],
        True,
        "{user\nHi}{assistant\n<think></think>\nVisible}{user\nNext}" + _ON,
        "{user\nHi}{assistant\n<think></think>Visible}{user\nNext}" + _ON,
    ),
    "old empty content": (
        [_u("Hi"), _a(), _u("Next")], True, "{user\nHi}{assistant\n<think></think>}{user\nNext}" + _ON, None,
    ),
    "results of one turn share a turn": (
        [_u("go"), _a("", "", _call("f")), _M("tool", content="one"), _M("tool", content="two"), _a("done"), _u("next")],
        None,
        "{user\ngo}{assistant\n<think></think>\n" + _F + "}{user\n<tool_response>\none\n</tool_response>\n"
        "<tool_response>\ntwo\n</tool_response>\n}{assistant\n<think></think>done}{user\nnext}" + _ON,
        None,
    ),
    "other role": ([_M("developer", content="Custom")], True, "{developer\nCustom}" + _ON, None),
    "later system message": (
        [_M("system", content="First"), _u("Hi"), _M("system", content="Second"), _u("Again")],
        None,
        "{system\nFirst}{user\nHi}{system\nSecond}{user\nAgain}" + _ON,
        None,
    ),
    "system only": ([_M("system", content="Only")], None, "{system\nOnly}" + _ON, None),
    "result first": (
        [_M("tool", content="orphan")], None, "<tool_response>\norphan\n</tool_response>\n}" + _ON, None,
    ),
    "thinking with call": (
        [_u("go"), _a("calling", "decide", _call("f"))],
        None,
        "{user\ngo}{assistant\n<think>\ndecide\n</think>\ncalling\n" + _F + "}" + _ON,
        "{user\ngo}{assistant\n<think>\ndecide</think>calling\n" + _F + "}" + _ON,
    ),
    "deep": (
        [_u("u1"), _a("a1", "t1"), _u("u2"), _a("a2", "t2")],
        None,
        "{user\nu1}{assistant\n<think></think>\na1}{user\nu2}{assistant\n<think>\nt2\n</think>\na2}" + _ON,
        "{user\nu1}{assistant\n<think></think>a1}{user\nu2}{assistant\n<think>\nt2</think>a2}" + _ON,
    ),
    "closing tag only": (
        [_u("go"), _a("stray </think> tail"), _u("again")],
        None,
        "{user\ngo}{assistant\nstray </think> tail}{user\nagain}" + _ON,
        None,
    ),
    "white space": (
        [_u("line one\nline two\n"), _a("   "), _u("again")],
        None,
        "{user\nline one\nline two}{assistant\n<think></think>}{user\nagain}" + _ON,
        "{user\nline one\nline two\n}{assistant\n<think></think>}{user\nagain}" + _ON,
    ),
}  # fmt: skip


def _wanted(text: str) -> str:
    system = "" if text.startswith("{system") else "{system\n}"
    return (system + text).replace("{", "<|im_start|>").replace("}", "<|im_end|>\n")


@pytest.mark.parametrize("case", _CASES.values(), ids=_CASES.keys())
def test_conversations(case: _Case) -> None:
    messages, think, wanted_3, wanted_35 = case
    inp = RenderInput(messages=messages, think=think)

    assert RENDERERS["nemotron-3-nano"](inp) == _wanted(wanted_3)
    assert RENDERERS["nemotron-3.5-nano"](inp) == _wanted(wanted_35 or wanted_3)


def test_medium_effort_is_said_in_the_last_question_of_the_newer_one() -> None:
    inp = RenderInput(messages=[_u("a"), _a("b"), _u("c")], think="medium")

    assert "{reasoning effort" not in RENDERERS["nemotron-3-nano"](inp)
    text = RENDERERS["nemotron-3.5-nano"](inp)
    assert text.count("{reasoning effort") == 1
    assert "<|im_start|>user\nc\n\n{reasoning effort: efficient}<|im_end|>" in text


def test_values_are_written_as_python_prints_them() -> None:
    call = _call(
        "f",
        int=7,
        float=2.5,
        whole=2.0,
        no=False,
        none=None,
        empty="",
        obj={"k": True},
        arr=[1, "two", False],
    )

    text = RENDERERS["nemotron-3-nano"](RenderInput(messages=[_u("go"), _a("", "", call)]))

    inner = "".join(
        f"<parameter={key}>\n{value}\n</parameter>\n"
        for key, value in (
            ("int", "7"), ("float", "2.5"), ("whole", "2"), ("no", "False"), ("none", "None"), ("empty", ""),
            ("obj", '{"k": true}'), ("arr", '[1, "two", false]'),
        )
    )  # fmt: skip
    assert f"<tool_call>\n<function=f>\n{inner}</function>\n</tool_call>\n<|im_end|>" in text


def test_tools_are_described_in_tags_with_every_keyword() -> None:
    search = make_tool(
        "search_docs",
        {
            "query": {"type": "string", "description": "Search query ", "enum": ["api", "cli"]},
            "mode": {"type": ["string", "null"], "anyOf": [{"type": "string"}, {"type": "number"}]},
            "payload": {
                "type": "object",
                "properties": {"on": {"type": "boolean"}},
                "required": ["on"],
            },
            "n": {"type": "integer", "minimum": 1, "nullable": True},
        },
        required=["query"],
        **{"$defs": {"shared": {"type": "string"}}},
    )
    ping = read_tools('[{"type": "function", "function": {"name": "ping", "strict": true}}]')

    text = RENDERERS["nemotron-3.5-nano"](
        RenderInput(messages=[_M("system", content="Be."), _u("?")], tools=(search, *ping))
    )

    assert text == (
        "<|im_start|>system\nBe.\n\n# Tools\n\nYou have access to the following functions:\n\n<tools>"
        "\n<function>\n<name>search_docs</name>\n<description>Do search_docs.</description>\n<parameters>"
        "\n<parameter>\n<name>query</name>\n<type>string</type>\n<description>Search query</description>"
        '\n<enum>["api", "cli"]</enum>\n</parameter>'
        "\n<parameter>\n<name>mode</name>\n<type>['string', 'null']</type>"
        '\n<anyOf>[{"type": "string"}, {"type": "number"}]</anyOf>\n</parameter>'
        "\n<parameter>\n<name>payload</name>\n<type>object</type>"
        '\n<properties>{"on": {"type": "boolean"}}</properties>\n<required>["on"]</required>\n</parameter>'
        "\n<parameter>\n<name>n</name>\n<type>integer</type>\n<minimum>1</minimum>\n<nullable>True</nullable>\n</parameter>"
        '\n<$defs>{"shared": {"type": "string"}}</$defs>\n<required>["query"]</required>\n</parameters>\n</function>'
        "\n<function>\n<name>ping</name>\n<parameters>\n</parameters>\n<strict>True</strict>\n</function>"
        f"\n</tools>{HOW_TO_CALL}<|im_end|>\n<|im_start|>user\n?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )
