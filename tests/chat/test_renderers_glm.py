"""Prompts of glm, laguna, poolside and cohere, byte for byte: vectors of Ollama's tests of these renderers."""

from __future__ import annotations

import json

import pytest

from olm.chat.renderers import RENDERERS, RenderInput
from olm.chat.tools import Tool, read_tools
from olm.chat.types import ChatMessage, Think, ToolCall

_WEATHER = '{"type": "function", "function": {"name": "get_weather", "description": "Get weather", "parameters": {"type": "object", "required": ["location"], "properties": {"location": {"type": "string", "description": "City"}}}}}'
_TOOLS = read_tools(f"[{_WEATHER}]")


def _user(content: str, n_images: int = 0) -> ChatMessage:
    return ChatMessage("user", content=content, images=(b"\x89PNG",) * n_images)


def _said(content: str = "", *calls: tuple[str, dict[str, object]], thinking: str = "") -> ChatMessage:  # fmt: skip
    made = tuple(
        ToolCall(name, json.dumps(arguments), f"call_{number}")
        for number, (name, arguments) in enumerate(calls)
    )
    return ChatMessage("assistant", content=content, thinking=thinking, tool_calls=made)


def _system(content: str) -> ChatMessage:
    return ChatMessage("system", content=content)


def _result(content: str, call_id: str = "") -> ChatMessage:
    return ChatMessage("tool", content=content, tool_call_id=call_id)


def _render(
    name: str,
    messages: list[ChatMessage],
    tools: tuple[Tool, ...] = (),
    think: Think | None = None,
) -> str:
    return RENDERERS[name](RenderInput(messages=messages, tools=tools, think=think))


_TOKYO: tuple[str, dict[str, object]] = ("get_weather", {"location": "Tokyo", "days": 2})
_TOKYO_CALL = "<tool_call>get_weather<arg_key>location</arg_key><arg_value>Tokyo</arg_value><arg_key>days</arg_key><arg_value>2</arg_value></tool_call>"
_GLM_TOOLS = f"""<|system|>
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{_WEATHER}
</tools>

For each function call, output the function name and arguments within the following XML format:
<tool_call>{{function-name}}<arg_key>{{arg-key-1}}</arg_key><arg_value>{{arg-value-1}}</arg_value><arg_key>{{arg-key-2}}</arg_key><arg_value>{{arg-value-2}}</arg_value>...</tool_call>"""


@pytest.mark.parametrize(
    ("messages", "think", "prompt"),
    [
        ([_user("Hello")], None, "<|user|>Hello<|assistant|><think>"),
        ([_user("Hello")], False, "<|user|>Hello<|assistant|></think>"),
        ([_system("S"), _user("Hello")], True, "<|system|>S<|user|>Hello<|assistant|><think>"),
        ([_user("Hi"), _said("Hello"), _user("How?")], None, "<|user|>Hi<|assistant|></think>Hello<|user|>How?<|assistant|><think>"),
        ([_user("Q"), _said("Done.", thinking="Plan.")], None, "<|user|>Q<|assistant|><think>Plan.</think>Done.<|assistant|><think>"),
        (
            [_user("Q"), _said("Let me", _TOKYO, _TOKYO), _result("22"), _result("18"), _said("It is.")],
            None,
            f"<|user|>Q<|assistant|></think>Let me{_TOKYO_CALL}{_TOKYO_CALL}<|observation|><tool_response>22</tool_response><tool_response>18</tool_response><|assistant|></think>It is.<|assistant|><think>",
        ),
    ],
)  # fmt: skip
def test_glm47(messages: list[ChatMessage], think: Think | None, prompt: str) -> None:
    assert _render("glm-4.7", messages, think=think) == f"[gMASK]<sop>{prompt}"
    assert _render("glm-4.7", messages, _TOOLS, think) == f"[gMASK]<sop>{_GLM_TOOLS}{prompt}"


def test_glm_writes_tools_with_gos_escapes() -> None:
    tools = read_tools('[{"function": {"name": "f", "description": "a < b & c"}}]')

    assert '"description": "a \\u003c b \\u0026 c"' in _render("glm-4.7", [_user("Q")], tools)


@pytest.mark.parametrize(
    ("messages", "think", "prompt"),
    [
        ([_user("Read.", 1)], None, "<|user|>\n[img-0]Read.<|assistant|>\n"),
        ([_user("Read [img] and", 2)], None, "<|user|>\n[img-1]Read [img-0] and<|assistant|>\n"),
        (
            [_user("First", 1), _said("Done. "), _user("Second", 1)],
            True,
            "<|user|>\n[img-0]First<|assistant|>\n<think></think>\nDone.\n<|user|>\n[img-1]Second<|assistant|>\n",
        ),
        ([_system("S"), _user("Text")], False, "<|system|>\nS\n<|user|>\nText/nothink<|assistant|>\n<think></think>\n"),
        ([_user("Text/nothink")], False, "<|user|>\nText/nothink<|assistant|>\n<think></think>\n"),
        (
            [_user("Q"), _said("", _TOKYO, thinking=" T "), _result("22"), _result("18")],
            None,
            f"<|user|>\nQ<|assistant|>\n<think>T</think>\n{_TOKYO_CALL}\n<|observation|>\n<tool_response>\n22\n</tool_response>\n\n<tool_response>\n18\n</tool_response>\n<|assistant|>\n",
        ),
    ],
)  # fmt: skip
def test_glm_ocr(messages: list[ChatMessage], think: Think | None, prompt: str) -> None:
    assert _render("glm-ocr", messages, think=think) == f"[gMASK]<sop>{prompt}"


_IDENTITY = "You are a helpful, conversationally-fluent assistant made by Poolside. You are here to be helpful to users through natural language conversations."
_LISTED = f"### Tools\n\nYou may call functions to assist with the user query.\nAll available function signatures are listed below:\n<available_tools>\n{_WEATHER}\n</available_tools>"
_HOW = "For each function call, return an unescaped XML-like object with function name and arguments within '<tool_call>' and '</tool_call>' tags, like here:\n"
_EXAMPLE = "<tool_call>function-name\n<arg_key>argument-key</arg_key>\n<arg_value>value-of-argument-key</arg_value>\n</tool_call>\n</system>\n"
_HEADER = f"<system>\n\n{_IDENTITY}\n</system>\n"
_MIXED: list[tuple[str, dict[str, object]]] = [
    ("echo", {"text": "hello", "count": 2}),
    ("configure", {"flag": True, "options": {"mode": "fast"}}),
]


@pytest.mark.parametrize(
    ("messages", "tools", "think", "prompt"),
    [
        ([], (), None, f"{_HEADER}<assistant>\n</think>"),
        ([_user("Hello")], (), None, f"{_HEADER}<user>\nHello\n</user>\n<assistant>\n</think>"),
        ([_user("Hello")], (), True, f"{_HEADER}<user>\nHello\n</user>\n<assistant>\n<think>"),
        ([_user("Hello")], (), False, f"{_HEADER}<user>\nHello\n</user>\n<assistant>\n</think>"),
        ([_system("Stay concise.\n\n"), _user("Hi")], (), None, "<system>\n\nStay concise.\n</system>\n<user>\nHi\n</user>\n<assistant>\n</think>"),
        ([_system(""), _user("Hi")], (), None, "<user>\nHi\n</user>\n<assistant>\n</think>"),
        ([_system("A"), _user("Hi"), _system("B")], (), None, "<system>\n\nA\n</system>\n<user>\nHi\n</user>\n<system>\nB\n</system>\n<assistant>\n</think>"),
        ([_system(""), _user("Q")], _TOOLS, None, f"<system>\n\n\n{_LISTED}\n\n{_HOW}{_EXAMPLE}<user>\nQ\n</user>\n<assistant>\n</think>"),
        (
            [_system("S"), _user("Q")],
            _TOOLS,
            True,
            f"<system>\n\nS\n\n{_LISTED}\n\nWrap your thinking in '<think>', '</think>' tags, followed by a function call. {_HOW}<think> your thoughts here </think>\n{_EXAMPLE}<user>\nQ\n</user>\n<assistant>\n<think>",
        ),
        (
            [_user("Q"), _said("\nCalling.\n", ("add", {"a": 2, "b": 3}), thinking="Need."), _result("5"), _user("Thanks")],
            (),
            True,
            f"{_HEADER}<user>\nQ\n</user>\n<assistant>\n<think>\nNeed.\n</think>\nCalling.\n<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>2</arg_value>\n<arg_key>b</arg_key>\n<arg_value>3</arg_value>\n</tool_call>\n</assistant>\n<tool_response>\n5\n</tool_response>\n<user>\nThanks\n</user>\n<assistant>\n<think>",
        ),
        ([_user("Q"), _said("<think>\nPlan\n</think>\nAnswer\n\n"), _user("R")], (), True, f"{_HEADER}<user>\nQ\n</user>\n<assistant>\n<think>\nPlan\n</think>\nAnswer\n</assistant>\n<user>\nR\n</user>\n<assistant>\n<think>"),
        ([_user("Q"), _said("<think>No</think>\nAnswer", thinking="Use."), _user("R")], (), None, f"{_HEADER}<user>\nQ\n</user>\n<assistant>\n<think>\nUse.\n</think>\nAnswer\n</assistant>\n<user>\nR\n</user>\n<assistant>\n</think>"),
        ([_user("Q"), _said(" \n\t "), _user("R")], (), None, f"{_HEADER}<user>\nQ\n</user>\n<assistant>\n</think>\n</assistant>\n<user>\nR\n</user>\n<assistant>\n</think>"),
        (
            [_user("Q"), _said("", *_MIXED), _user("R")],
            (),
            None,
            f'{_HEADER}<user>\nQ\n</user>\n<assistant>\n</think>\n<tool_call>echo\n<arg_key>text</arg_key>\n<arg_value>hello</arg_value>\n<arg_key>count</arg_key>\n<arg_value>2</arg_value>\n</tool_call>\n<tool_call>configure\n<arg_key>flag</arg_key>\n<arg_value>true</arg_value>\n<arg_key>options</arg_key>\n<arg_value>{{"mode": "fast"}}</arg_value>\n</tool_call>\n</assistant>\n<user>\nR\n</user>\n<assistant>\n</think>',
        ),
        ([_user("Q"), _said(" ")], (), None, f"{_HEADER}<user>\nQ\n</user>\n<assistant>\n</think>\n</assistant>\n"),
        ([_user("Q"), _said("Partial")], (), None, f"{_HEADER}<user>\nQ\n</user>\n<assistant>\n</think>\nPartial\n"),
    ],
)  # fmt: skip
def test_laguna(
    messages: list[ChatMessage], tools: tuple[Tool, ...], think: Think | None, prompt: str
) -> None:
    assert _render("laguna", messages, tools, think) == f"〈|EOS|〉{prompt}"


_HEADER_8 = f"<system>{_IDENTITY}</system>\n"


@pytest.mark.parametrize(
    ("messages", "tools", "think", "prompt"),
    [
        ([], (), None, f"{_HEADER_8}<assistant></think>"),
        ([_user("Hello")], (), True, f"{_HEADER_8}<user>Hello</user>\n<assistant><think>"),
        ([_user("Hello")], (), False, f"{_HEADER_8}<user>Hello</user>\n<assistant></think>"),
        ([_system("S.\n\n"), _user("Hi")], (), None, "<system>S.</system>\n<user>Hi</user>\n<assistant></think>"),
        ([_system(""), _user("Hi")], (), None, "<user>Hi</user>\n<assistant></think>"),
        ([_system(""), _user("Q")], _TOOLS, None, f"<system>{_LISTED}</system>\n<user>Q</user>\n<assistant></think>"),
        ([_system(""), _user("Hi")], (), True, "<system></system>\n<user>Hi</user>\n<assistant><think>"),
        ([_system("A"), _user("Hi"), _system("B")], (), None, "<system>A</system>\n<user>Hi</user>\n<system>B</system>\n<assistant></think>"),
        ([_system("S"), _user("Q")], _TOOLS, True, f"<system>S\n\n{_LISTED}</system>\n<user>Q</user>\n<assistant><think>"),
        ([_user("Q"), _said("\nCalling.\n", _TOKYO, thinking="Need."), _result("5")], (), True, f"{_HEADER_8}<user>Q</user>\n<assistant><think>Need.</think>\nCalling.\n{_TOKYO_CALL}</assistant>\n<tool_response>5</tool_response>\n<assistant><think>"),
        ([_user("Q"), _said("Answer", thinking="Hidden."), _user("R")], (), None, f"{_HEADER_8}<user>Q</user>\n<assistant></think>Answer</assistant>\n<user>R</user>\n<assistant></think>"),
        ([_user("Q"), _said("Answer"), _user("R")], (), True, f"{_HEADER_8}<user>Q</user>\n<assistant><think></think>Answer</assistant>\n<user>R</user>\n<assistant><think>"),
        ([_user("Q"), _said("", ("f", {"o": {"mode": "fast"}}))], (), None, f'{_HEADER_8}<user>Q</user>\n<assistant></think><tool_call>f<arg_key>o</arg_key><arg_value>{{"mode": "fast"}}</arg_value></tool_call></assistant>\n<assistant></think>'),
        ([_user("Q"), _said("Partial")], (), None, f"{_HEADER_8}<user>Q</user>\n<assistant></think>Partial</assistant>\n<assistant></think>"),
    ],
)  # fmt: skip
def test_poolside_v1(
    messages: list[ChatMessage], tools: tuple[Tool, ...], think: Think | None, prompt: str
) -> None:
    assert _render("poolside-v1", messages, tools, think) == f"〈|EOS|〉{prompt}"


_END = "<|END_OF_TURN_TOKEN|>"
_CHATBOT = "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"


def _turn(role: str, text: str) -> str:
    return f"<|START_OF_TURN_TOKEN|><|{role}_TOKEN|><|START_TEXT|>{text}<|END_TEXT|>{_END}"


_NO_TOOLS = "# Available Tools\n```json\n[\n\n\n\n]\n```"


@pytest.mark.parametrize(
    ("messages", "think", "prompt"),
    [
        ([_user("Q")], None, _turn("SYSTEM", _NO_TOOLS) + _turn("USER", "Q") + f"{_CHATBOT}<|START_THINKING|>"),
        (
            [_system("S"), _user("Q1"), _said("A1", thinking="T1"), _user("Q2"), _system("X")],
            True,
            _turn("SYSTEM", f"S\n\n\n\n{_NO_TOOLS}") + _turn("USER", "Q1")
            + f"{_CHATBOT}<|START_THINKING|>T1<|END_THINKING|><|START_TEXT|>A1<|END_TEXT|>{_END}"
            + _turn("USER", "Q2") + _turn("SYSTEM", "X") + f"{_CHATBOT}<|START_THINKING|>",
        ),
        ([_user("Q")], False, _turn("SYSTEM", _NO_TOOLS) + _turn("USER", "Q") + f"{_CHATBOT}<|START_THINKING|><|END_THINKING|>"),
        ([_user("Q"), _said("partial")], None, _turn("SYSTEM", _NO_TOOLS) + _turn("USER", "Q") + f"{_CHATBOT}<|START_TEXT|>partial"),
    ],
)  # fmt: skip
def test_cohere(messages: list[ChatMessage], think: Think | None, prompt: str) -> None:
    assert _render("cohere", messages, think=think) == prompt


def _cohere_result(number: str, content: str) -> str:
    return f'\n    {{\n        "tool_call_id": "{number}",\n        "results": {{\n\n            \n            "0": {{"content": "{content}"}}\n\n        }},\n        "is_error": null\n    }}'


def test_cohere_numbers_calls_and_merges_results() -> None:
    listed = '# Available Tools\n```json\n[\n\n    {"name": "get_weather", "description": "Get weather", "parameters": {"type": "object", "required": ["location"], "properties": {"location": {"type": "string", "description": "City"}}}, "responses": null}\n\n\n]\n```'
    messages = [
        _user("go"),
        _said("", ("t1", {}), ("t2", {"x": 1}), thinking="plan"),
        _result("r1", "call_0"),
        _result("r2", "call_1"),
        _result("r3", "stray"),
        _user("thanks"),
    ]

    prompt = _render("cohere", messages, _TOOLS)

    assert prompt == (
        _turn("SYSTEM", listed)
        + _turn("USER", "go")
        + f"{_CHATBOT}\n            \n                <|START_THINKING|>plan<|END_THINKING|>"
        + '<|START_ACTION|>[\n\n    {"tool_call_id": "0", "tool_name": "t1", "parameters": {}},'
        + '\n\n    {"tool_call_id": "1", "tool_name": "t2", "parameters": {"x": 1}}\n\n]<|END_ACTION|>'
        + f"{_END}<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><|START_TOOL_RESULT|>["
        + f"{_cohere_result('0', 'r1')},{_cohere_result('1', 'r2')},{_cohere_result('stray', 'r3')}"
        + f"\n\n]<|END_TOOL_RESULT|>{_END}"
        + _turn("USER", "thanks")
        + f"{_CHATBOT}<|START_THINKING|>"
    )
