"""Prompts of deepseek3.1, cogito and olmo3, byte for byte: vectors of Ollama's tests of these renderers."""

from __future__ import annotations

import json

import pytest

from chat.chat_kit import make_tool
from olm.chat.renderers import RENDERERS, RenderInput
from olm.chat.tools import Tool, read_tools
from olm.chat.types import ChatMessage, Think, ToolCall
from olm.errors import InvalidRequest

_BOS, _EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
_CALLS, _CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL, _CALL_END, _SEP = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"
_OUT, _OUT_END = "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"


def _tool(description: str | None = "Get current weather", argument: str | None = "City name", **more: object) -> Tool:  # fmt: skip
    location = {"type": "string", **({"description": argument} if argument else {})}
    parameters = {"type": "object", **more, "properties": {"location": location}}
    function: dict[str, object] = {"name": "get_weather", "parameters": parameters}
    if description:
        function["description"] = description
    return read_tools(json.dumps([{"function": function}]))[0]


def _user(content: str) -> ChatMessage:
    return ChatMessage("user", content=content)


def _said(content: str = "", *calls: tuple[str, dict[str, object]], thinking: str = "") -> ChatMessage:  # fmt: skip
    made = tuple(ToolCall(name, json.dumps(arguments)) for name, arguments in calls)
    return ChatMessage("assistant", content=content, thinking=thinking, tool_calls=made)


def _system(content: str) -> ChatMessage:
    return ChatMessage("system", content=content)


def _result(content: str) -> ChatMessage:
    return ChatMessage("tool", content=content)


def _render(
    name: str,
    messages: list[ChatMessage],
    tools: tuple[Tool, ...] = (),
    think: Think | None = None,
) -> str:
    return RENDERERS[name](RenderInput(messages=messages, tools=tools, think=think))


_PARIS: tuple[str, dict[str, object]] = ("get_weather", {"location": "Paris"})
_PARIS_CALL = f'{_CALL}get_weather{_SEP}{{"location":"Paris"}}{_CALL_END}'
_TOOLS_TEXT = """

## Tools
You have access to the following tools:

### get_weather
Description: Get current weather

Parameters: {"type":"object","required":["location"],"properties":{"location":{"type":"string","description":"City name"}}}

IMPORTANT: ALWAYS adhere to this exact format for tool use:
<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_call_name<｜tool▁sep｜>tool_call_arguments<｜tool▁call▁end｜>{{additional_tool_calls}}<｜tool▁calls▁end｜>

Where:

- `tool_call_name` must be an exact match to one of the available tools
- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema
- For multiple tool calls, chain them directly without separators or spaces
"""


@pytest.mark.parametrize(
    ("messages", "think", "prompt"),
    [
        ([_user("Hello")], False, "<｜User｜>Hello<｜Assistant｜></think>"),
        ([_user("Hello")], None, "<｜User｜>Hello<｜Assistant｜></think>"),
        ([_user("Hello")], True, "<｜User｜>Hello<｜Assistant｜><think>"),
        ([_user("Hello")], "high", "<｜User｜>Hello<｜Assistant｜><think>"),
        ([_system("A"), _system("B"), _user("Hello")], False, "A\n\nB<｜User｜>Hello<｜Assistant｜></think>"),
        ([_user("Q"), _said("A"), _user("R")], False, f"<｜User｜>Q<｜Assistant｜></think>A{_EOS}<｜User｜>R<｜Assistant｜></think>"),
        ([_user("Q"), _said("", _PARIS)], False, f"<｜User｜>Q<｜Assistant｜></think>{_CALLS}{_PARIS_CALL}{_CALLS_END}{_EOS}"),
        ([_user("Q"), _said("I'll check.", _PARIS)], False, f"<｜User｜>Q<｜Assistant｜></think>I'll check.{_CALLS}{_PARIS_CALL}{_CALLS_END}{_EOS}"),
        (
            [_user("Q"), _said("", _PARIS, _PARIS), _result("22"), _result("18")],
            True,
            f"<｜User｜>Q<｜Assistant｜></think>{_CALLS}{_PARIS_CALL}{_PARIS_CALL}{_CALLS_END}{_EOS}{_OUT}22{_OUT_END}{_OUT}18{_OUT_END}",
        ),
        (
            [_user("Q"), _said("", _PARIS), _result("22"), _said("Sunny."), _user("London?")],
            True,
            f"<｜User｜>Q<｜Assistant｜></think>{_CALLS}{_PARIS_CALL}{_CALLS_END}{_EOS}{_OUT}22{_OUT_END}Sunny.{_EOS}<｜User｜>London?<｜Assistant｜><think>",
        ),
        ([_user("Q"), _said("I'm thinking.</think>The answer is 42.")], False, f"<｜User｜>Q<｜Assistant｜></think>The answer is 42.{_EOS}"),
        ([_user("Q"), _said("One</think>Two</think>End")], False, f"<｜User｜>Q<｜Assistant｜></think>Two</think>End{_EOS}"),
        ([_user("Q"), _said("<think>Hmm</think>I am DeepSeek"), _user("R")], True, f"<｜User｜>Q<｜Assistant｜></think>I am DeepSeek{_EOS}<｜User｜>R<｜Assistant｜><think>"),
        ([_user("Q"), _said("ink</think>rath"), _user("R")], False, f"<｜User｜>Q<｜Assistant｜></think>ink</think>rath{_EOS}<｜User｜>R<｜Assistant｜></think>"),
        ([_user("Q"), _said("Sure.<think>x</think>I am"), _user("R")], False, f"<｜User｜>Q<｜Assistant｜></think>Sure.<think>x</think>I am{_EOS}<｜User｜>R<｜Assistant｜></think>"),
        ([_system("S"), _said("ink</think>rath")], False, f"Srath{_EOS}"),
        ([_user("Hello"), _said("")], False, f"<｜User｜>Hello<｜Assistant｜></think>{_EOS}"),
        ([], False, ""),
        ([_system("S")], False, "S"),
        ([_user("Q"), _said("A", thinking="T"), _user("R")], True, f"<｜User｜>Q<｜Assistant｜></think>A{_EOS}<｜User｜>R<｜Assistant｜><think>"),
        ([_user("Q"), _said("A", thinking="T")], True, f"<｜User｜>Q<｜Assistant｜><think>A{_EOS}"),
        ([_user("Q"), _said("", ("f", {"a": "<&>", "n": 1.0}))], False, f'<｜User｜>Q<｜Assistant｜></think>{_CALLS}{_CALL}f{_SEP}{{"a":"\\u003c\\u0026\\u003e","n":1}}{_CALL_END}{_CALLS_END}{_EOS}'),
    ],
)  # fmt: skip
def test_deepseek(messages: list[ChatMessage], think: Think | None, prompt: str) -> None:
    assert _render("deepseek3.1", messages, think=think) == _BOS + prompt


def test_deepseek_describes_tools_behind_the_system_text() -> None:
    tools = (_tool(required=["location"]),)

    with_system = _render("deepseek3.1", [_system("S"), _user("Q")], tools, think=True)
    without = _render("deepseek3.1", [_user("Q")], tools)

    assert with_system == f"{_BOS}S{_TOOLS_TEXT}<｜User｜>Q<｜Assistant｜><think>"
    assert without == f"{_BOS}{_TOOLS_TEXT}<｜User｜>Q<｜Assistant｜></think>"


_COGITO = (
    _BOS
    + "You are Cogito, an AI assistant created by Deep Cogito, which is an AI research lab based in San Francisco."
)
_COGITO_DEEP = _COGITO.replace(_BOS, _BOS + "Enable deep thinking subroutine.\n\n")
_COGITO_PARIS = f'{_CALL}function{_SEP}get_weather\n```json\n{{"location":"Paris"}}\n```{_CALL_END}'
_OUTS, _OUTS_END = "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>"


@pytest.mark.parametrize(
    ("messages", "think", "prompt"),
    [
        ([_user("Hello")], False, f"{_COGITO}<｜User｜>Hello<｜Assistant｜>"),
        ([_user("Hello")], None, f"{_COGITO}<｜User｜>Hello<｜Assistant｜>"),
        ([_system("Be kind."), _user("Hello")], False, f"{_COGITO}\n\nBe kind.<｜User｜>Hello<｜Assistant｜>"),
        ([_user("Hello")], True, f"{_COGITO_DEEP}<｜User｜>Hello<｜Assistant｜><think>\n"),
        ([_system("Be kind."), _user("Hello")], True, f"{_COGITO_DEEP}\n\nBe kind.\n\n<｜User｜>Hello<｜Assistant｜><think>\n"),
        ([_user("Q"), _said("A"), _user("R")], False, f"{_COGITO}<｜User｜>Q<｜Assistant｜>A{_EOS}<｜User｜>R<｜Assistant｜>"),
        ([_user("Q"), _said("A"), _user("R")], True, f"{_COGITO_DEEP}<｜User｜>Q<｜Assistant｜>A{_EOS}<｜User｜>R<｜Assistant｜><think>\n"),
        ([_system("S"), _user("Start"), _said("Okay")], True, f"{_COGITO_DEEP}\n\nS\n\n<｜User｜>Start<｜Assistant｜>Okay{_EOS}<｜Assistant｜><think>\n"),
        ([_user("Q"), _said("I'll check.", _PARIS)], False, f"{_COGITO}<｜User｜>Q<｜Assistant｜>I'll check.{_CALLS}{_COGITO_PARIS}{_CALLS_END}{_EOS}<｜Assistant｜>"),
        (
            [_user("Q"), _said("", _PARIS, _PARIS), _result("22"), _result("18")],
            False,
            f"{_COGITO}<｜User｜>Q<｜Assistant｜>{_CALLS}{_COGITO_PARIS}\n{_COGITO_PARIS}{_CALLS_END}{_EOS}{_OUTS}{_OUT}22{_OUT_END}\n{_OUT}18{_OUT_END}{_OUTS_END}<｜Assistant｜>",
        ),
        ([_system(""), _user("Hello"), _said("")], False, f"{_COGITO}<｜User｜>Hello<｜Assistant｜>{_EOS}<｜Assistant｜>"),
    ],
)  # fmt: skip
def test_cogito(messages: list[ChatMessage], think: Think | None, prompt: str) -> None:
    assert _render("cogito", messages, think=think) == prompt


def test_cogito_lists_tools_as_indented_json() -> None:
    listed = """
You have the following functions available:
```json
{
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get current weather",
        "parameters": {
            "type": "object",
            "required": [
                "location"
            ],
            "properties": {
                "location": {
                    "type": "string",
                    "description": "City name"
                }
            }
        }
    }
}
```
"""

    prompt = _render("cogito", [_user("Q")], (_tool(required=["location"]),), think=True)

    assert prompt == f"{_COGITO_DEEP}{listed}<｜User｜>Q<｜Assistant｜><think>\n"


_OLMO = "You are a helpful function-calling AI assistant. "
_OLMO_31 = "You are Olmo, a helpful AI assistant built by Ai2. Your date cutoff is December 2024, and your model weights are available at https://huggingface.co/allenai. "
_NONE = "You do not currently have access to any functions. <functions></functions>"
_HOW = "You are provided with function signatures within <functions></functions> XML tags. You may call one or more functions to assist with the user query. Output any function calls within <function_calls></function_calls> XML tags. Do not make assumptions about what values to plug into functions."
_SIGNATURES = '<functions>[{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"location": {"type": "string"}}}}}]</functions>'


def _turns(*turns: tuple[str, str], end: str = "<|im_start|>assistant\n") -> str:
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns) + end


@pytest.mark.parametrize(
    ("name", "messages", "with_tools", "prompt"),
    [
        ("olmo3", [_user("Hello!")], False, _turns(("system", _OLMO + _NONE), ("user", "Hello!"))),
        ("olmo3.1", [_user("Hello!")], False, _turns(("system", _OLMO_31 + _NONE), ("user", "Hello!"))),
        ("olmo3", [_system("S"), _user("Hello!"), _system("T")], False, _turns(("system", "S"), ("user", "Hello!"))),
        ("olmo3", [_system("S"), _user("Q")], True, _turns(("system", "S" + _SIGNATURES), ("user", "Q"))),
        ("olmo3", [_user("Q")], True, _turns(("system", _OLMO + _HOW + _SIGNATURES), ("user", "Q"))),
        (
            "olmo3",
            [_system("S"), _user("Q"), _said("Let me check.", _PARIS, _PARIS), _result("68"), _result("55")],
            False,
            _turns(
                ("system", "S"),
                ("user", "Q"),
                ("assistant", 'Let me check.<function_calls>get_weather(location="Paris")\nget_weather(location="Paris")</function_calls>'),
                ("environment", "68"),
                ("environment", "55"),
            ),
        ),
        ("olmo3", [_system("S"), _user("Q"), _said("", ("book", {"to": "NYC", "from": "SFO"}))], False, _turns(("system", "S"), ("user", "Q"), ("assistant", '<function_calls>book(from="SFO", to="NYC")</function_calls>'))),
        ("olmo3", [_system("S"), _user("Q"), _said("A"), _user("R")], False, _turns(("system", "S"), ("user", "Q"), ("assistant", "A"), ("user", "R"))),
        ("olmo3", [_system("S"), _user("Q"), _said("Hi there!")], False, _turns(("system", "S"), ("user", "Q"), end="<|im_start|>assistant\nHi there!")),
        ("olmo3-think", [_user("Q")], False, _turns(("system", _OLMO_31[:-1]), ("user", "Q"), end="<|im_start|>assistant\n<think>")),
        ("olmo3-32b-think", [_user("Q")], True, _turns(("system", "You are a helpful AI assistant."), ("user", "Q"), end="<|im_start|>assistant\n<think>")),
        (
            "olmo3-think",
            [_system("S"), _user("Q"), _said("A", thinking="T"), _result("x"), _user("R")],
            False,
            _turns(("system", f"S {_NONE}"), ("user", "Q"), ("assistant", "A"), ("user", "R"), end="<|im_start|>assistant\n<think>"),
        ),
    ],
)  # fmt: skip
def test_olmo(name: str, messages: list[ChatMessage], with_tools: bool, prompt: str) -> None:
    tools = (_tool(description=None, argument=None),) if with_tools else ()

    assert _render(name, messages, tools) == prompt


def test_arguments_that_are_no_object_are_refused() -> None:
    broken = ChatMessage("assistant", tool_calls=(ToolCall("now", "[1]"),))

    with pytest.raises(InvalidRequest, match="arguments of the call of now"):
        _render("cogito", [_user("Q"), broken], (make_tool("now", {}),))
