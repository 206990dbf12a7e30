"""Prompts of gemma4, functiongemma, lfm2 and glimmer, byte for byte.

`template_prompts.json` holds conversations and what the models' own templates make of them: google-gemma-4-31B-it.jinja and
muse-glimmer.jinja of llama.cpp (models/templates, commit 832db0699007), rendered by jinja2 with a tojson of
`json.dumps(ensure_ascii=False)`. The other vectors are those of Ollama's `model/renderers/*_test.go`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import pytest

from chat.chat_kit import make_tool
from olm.chat.renderers import RENDERERS, RenderInput
from olm.chat.renderers.glimmer import render_on
from olm.chat.tools import Tool, read_tools
from olm.chat.types import ChatMessage, Think, ToolCall

_TODAY: Final = "2026-07-29"
_CLOSED: Final = "<|channel>thought\n<channel|>"
_Q: Final = '<|"|>'


class _Call(msgspec.Struct):
    id: str
    name: str
    arguments: msgspec.Raw


class _Message(msgspec.Struct):
    role: str
    content: str
    thinking: str = ""
    tool_calls: tuple[_Call, ...] = ()
    tool_name: str = ""
    tool_call_id: str = ""

    def message(self) -> ChatMessage:
        """Make the message that a renderer takes."""
        calls = tuple(
            ToolCall(call.name, bytes(call.arguments).decode(), call.id, index)
            for index, call in enumerate(self.tool_calls)
        )
        return ChatMessage(
            self.role,
            self.content,
            self.thinking,
            tool_calls=calls,
            tool_name=self.tool_name,
            tool_call_id=self.tool_call_id,
        )


class _Case(msgspec.Struct):
    renderer: str
    name: str
    messages: list[_Message]
    tools: msgspec.Raw
    think: Think | None
    expected: str

    def given(self) -> RenderInput:
        """Make the conversation that a renderer takes."""
        tools = read_tools(bytes(self.tools).decode())
        messages = [message.message() for message in self.messages]
        return RenderInput(messages=messages, tools=tools, think=self.think)


_CASES: Final = msgspec.json.decode(
    (Path(__file__).parent / "template_prompts.json").read_bytes(), type=list[_Case]
)


def _case_name(case: _Case) -> str:
    return f"{case.renderer}-{case.name}-{case.think}"


@pytest.mark.parametrize("case", _CASES, ids=_case_name)
def test_a_prompt_is_what_the_models_template_writes(case: _Case) -> None:
    given = case.given()

    if case.renderer == "glimmer":
        assert render_on(given, _TODAY) == case.expected
        return
    assert RENDERERS["gemma4-large"](given) == case.expected
    small = case.expected.removesuffix(_CLOSED)
    assert RENDERERS["gemma4-small"](given) == RENDERERS["gemma4"](given) == small


def _user(content: str, *images: bytes) -> ChatMessage:
    return ChatMessage("user", content, images=images)


def _answer(content: str = "", *calls: tuple[str, Mapping[str, object]], thinking: str = "") -> ChatMessage:  # fmt: skip
    made = (ToolCall(name, json.dumps(values)) for name, values in calls)
    return ChatMessage("assistant", content, thinking, tool_calls=tuple(made))


def _render(renderer: str, *messages: ChatMessage, tools: tuple[Tool, ...] = (), think: Think | None = None) -> str:  # fmt: skip
    return RENDERERS[renderer](RenderInput(messages=messages, tools=tools, think=think))


_BASH_TRUE = ("bash", {"command": "true"})
_BASH_CALL = f"<|tool_call>call:bash{{command:{_Q}true{_Q}}}<tool_call|>"
_BASH_DONE = f"<|tool_response>response:bash{{value:{_Q}done{_Q}}}<tool_response|>"


def test_gemma4_continues_one_turn_over_neighbouring_answers_and_results() -> None:
    # Ollama's TestGemma4RendererCanonicalToolContinuations.
    prompt = _render(
        "gemma4",
        _user("Use the tool"),
        _answer("First."),
        _answer("Checking.", ("bash", {"command": None})),
        ChatMessage("tool", "done", tool_name="bash"),
        _answer("Done."),
        _user("Next"),
    )

    assert prompt == (
        "<bos><|turn>user\nUse the tool<turn|>\n<|turn>model\nFirst."
        f"<|tool_call>call:bash{{command:null}}<tool_call|>{_BASH_DONE}Checking.Done.<turn|>\n"
        "<|turn>user\nNext<turn|>\n<|turn>model\n"
    )


def test_gemma4_keeps_the_thoughts_of_the_open_turn_only() -> None:
    old = (_user("A"), _answer("", _BASH_TRUE, thinking="old"), ChatMessage("tool", "done", tool_name="bash"))  # fmt: skip

    prompt = _render("gemma4", *old, _user("B"), *old[1:], _answer("Done.", thinking="It went well."))  # fmt: skip

    assert prompt == (
        f"<bos><|turn>user\nA<turn|>\n<|turn>model\n{_BASH_CALL}{_BASH_DONE}<turn|>\n"
        f"<|turn>user\nB<turn|>\n<|turn>model\n<|channel>thought\nold\n<channel|>{_BASH_CALL}{_BASH_DONE}"
        "<|channel>thought\nIt went well.\n<channel|>Done.<turn|>\n<|turn>model\n"
    )


@pytest.mark.parametrize(("think", "end"), [(True, "<|channel>thought\n"), (False, ""), (None, "")])
def test_gemma4_thinks_on_after_a_result(think: bool | None, end: str) -> None:
    messages = (_user("A"), _answer("", _BASH_TRUE), ChatMessage("tool", "done"))

    for renderer in ("gemma4", "gemma4-large"):
        prompt = _render(renderer, *messages, think=think)
        assert prompt.endswith(_BASH_DONE.replace("response:bash", "response:unknown") + end)


def test_gemma4_lowers_a_union_of_bare_types() -> None:
    tool = make_tool("pick", {"v": {"anyOf": [{"type": "string"}, {"type": "number"}]}, "w": {"anyOf": [{"type": "string", "enum": ["x"]}]}})  # fmt: skip

    prompt = _render("gemma4", _user("Go"), tools=(tool,))

    assert f"properties:{{v:{{type:{_Q}['STRING', 'NUMBER']{_Q}}},w:{{}}}}" in prompt


def test_pictures_are_marked_where_ollama_marks_them() -> None:
    messages = (_user("First.", b"1"), _answer("Done."), _user("Compare [img] these.", b"2", b"3"))

    gemma4, lfm2, glimmer = (_render(name, *messages) for name in ("gemma4", "lfm2", "glimmer"))

    assert "<|turn>user\n[img-0]First.<turn|>" in gemma4
    assert "<|turn>user\n[img-2]Compare [img-1] these.<turn|>" in gemma4
    assert "<|im_start|>user\n[img-0]First.<|im_end|>" in lfm2
    assert "<|im_start|>user\n[img-2]Compare [img-1] these.<|im_end|>" in lfm2
    assert "<|start|>user<|message|>[img-0]First.<|eot|>" in glimmer
    assert "<|start|>user<|message|>[img-2]Compare [img-1] these.<|eot|>" in glimmer


def test_glimmer_ends_a_thought_without_an_answer() -> None:
    prompt = _render("glimmer", _user("Solve"), _answer(thinking="Private reasoning."))

    assert prompt.endswith(
        "<|start|>assistant to=self<|message|>Private reasoning.<|eom|><|start|>assistant"
    )


def _tool(name: str, description: str, parameters: dict[str, object]) -> Tool:
    function = {"name": name, "description": description, "parameters": parameters}
    return read_tools(json.dumps([{"type": "function", "function": function}]))[0]


def _object(properties: dict[str, object], **more: object) -> dict[str, object]:
    return {"type": "object", **more, "properties": properties}


_WEATHER = _tool("get_weather", "Get weather", _object({"city": {"type": "string", "description": "City"}}))  # fmt: skip
_TIME = _tool("get_time", "Get current time", _object({"timezone": {"type": "string", "description": "Timezone"}}))  # fmt: skip
_ADD = _tool("add", "Add numbers", _object({"b": {"type": "number"}, "a": {"type": "number"}}))
_MANY = _tool("test", "Test", _object({"c": {"type": "array", "description": "C"}, "a": {"type": ["string", "null"], "description": "A"}}, required=["a", "c"]))  # fmt: skip
_EMPTY = _tool("test_fn", "", _object({}))

_INTRO = "You can do function calling with the following functions:"
_WEATHER_TEXT = "«declaration:get_weather{description:~Get weather~,parameters:{properties:{city:{description:~City~,type:~STRING~}},type:~OBJECT~}}»"
_TIME_TEXT = "«declaration:get_time{description:~Get current time~,parameters:{properties:{timezone:{description:~Timezone~,type:~STRING~}},type:~OBJECT~}}»"
_PARIS = ("get_weather", {"city": "Paris"})
_PARIS_TEXT = "<start_function_call>call:get_weather{city:~Paris~}<end_function_call>"
_SUNNY_TEXT = "<start_function_response>response:get_weather{~Sunny~}<end_function_response>"
_UTC = ("get_time", {"timezone": "UTC"})
_UTC_TEXT = "<start_function_call>call:get_time{timezone:~UTC~}<end_function_call>"
_SUNNY = ChatMessage("tool", "Sunny")
_TURN = "<start_of_turn>"


@pytest.mark.parametrize(
    ("messages", "tools", "expected"),
    [
        ((_user("Hello!"),), (), f"{_TURN}user\nHello!⏎{_TURN}model\n"),
        ((ChatMessage("system", "You are helpful"), _user("Hello!")), (), f"{_TURN}developer\nYou are helpful⏎{_TURN}user\nHello!⏎{_TURN}model\n"),
        ((ChatMessage("developer", "Be concise."), _user("Weather?")), (_WEATHER,), f"{_TURN}developer\nBe concise.\n{_INTRO}{_WEATHER_TEXT}⏎{_TURN}user\nWeather?⏎{_TURN}model\n"),
        ((ChatMessage("system", _INTRO), _user("Weather?")), (_WEATHER,), f"{_TURN}developer\n{_INTRO}\n{_WEATHER_TEXT}⏎{_TURN}user\nWeather?⏎{_TURN}model\n"),
        ((_user("Hi"), _answer("Hello!"), _user("More")), (), f"{_TURN}user\nHi⏎{_TURN}model\nHello!⏎{_TURN}user\nMore⏎{_TURN}model\n"),
        ((_user("Weather?"), _answer("Let me check.", _PARIS), _SUNNY), (_WEATHER,), f"{_TURN}developer\n{_INTRO}{_WEATHER_TEXT}⏎{_TURN}user\nWeather?⏎{_TURN}model\nLet me check.{_PARIS_TEXT}{_SUNNY_TEXT}"),
        ((_user("Add"), _answer("", ("add", {"b": 2.0, "a": 1})), ChatMessage("tool", "3")), (_ADD,), f"{_TURN}developer\n{_INTRO}«declaration:add{{description:~Add numbers~,parameters:{{properties:{{a:{{description:~~,type:~NUMBER~}},b:{{description:~~,type:~NUMBER~}}}},type:~OBJECT~}}}}»⏎{_TURN}user\nAdd⏎{_TURN}model\n<start_function_call>call:add{{a:1,b:2}}<end_function_call><start_function_response>response:add{{~3~}}<end_function_response>"),
        ((), (), f"{_TURN}model\n"),
        ((_user("Go"),), (_MANY, _EMPTY), f"{_TURN}developer\n{_INTRO}«declaration:test{{description:~Test~,parameters:{{properties:{{a:{{description:~A~,type:~STRING~}},c:{{description:~C~,type:~ARRAY~}}}},required:[~a~,~c~],type:~OBJECT~}}}}»«declaration:test_fn{{description:~~,parameters:{{type:~OBJECT~}}}}»⏎{_TURN}user\nGo⏎{_TURN}model\n"),
        ((_user("Both?"), _answer("", _PARIS, _UTC), _SUNNY, ChatMessage("tool", "12:00")), (_WEATHER, _TIME), f"{_TURN}developer\n{_INTRO}{_WEATHER_TEXT}{_TIME_TEXT}⏎{_TURN}user\nBoth?⏎{_TURN}model\n{_PARIS_TEXT}{_UTC_TEXT}{_SUNNY_TEXT}<start_function_response>response:get_time{{~12:00~}}<end_function_response>"),
        ((_user("Weather?"), _answer("", _PARIS), _SUNNY, _user("Thanks! And London?")), (), f"{_TURN}user\nWeather?⏎{_TURN}model\n{_PARIS_TEXT}{_SUNNY_TEXT}Thanks! And London?⏎{_TURN}model\n"),
    ],
)  # fmt: skip
def test_functiongemma_prompts(
    messages: tuple[ChatMessage, ...], tools: tuple[Tool, ...], expected: str
) -> None:
    expected = expected.replace("«", "<start_function_declaration>").replace("»", "<end_function_declaration>")  # fmt: skip
    expected = expected.replace("~", "<escape>").replace("⏎", "<end_of_turn>\n")

    assert _render("functiongemma", *messages, tools=tools) == "<bos>" + expected


def test_functiongemma_results_go_to_the_calls_that_they_name() -> None:
    calls = (ToolCall("get_tokyo", "{}", "call_tokyo"), ToolCall("get_toronto", "{}", "call_toronto"))  # fmt: skip
    turn = ChatMessage("assistant", tool_calls=calls)
    results = [ChatMessage("tool", "x", tool_call_id=name) for name in ("call_toronto", "call_tokyo")]  # fmt: skip

    prompt = _render("functiongemma", _user("?"), turn, *results)

    assert prompt.index("response:get_toronto") < prompt.index("response:get_tokyo")


_NO_PROPERTIES = '"parameters": {"type": "object", "properties": null}'
_TOOL_A, _TOOL_B = (_tool(name, "", {"type": "object"}) for name in ("tool_a", "tool_b"))
_Q1_Q2 = (
    _user("Q1"), _answer("<think>reason1</think>A1"), _user("Q2"), _answer("<think>reason2</think>A2"),
)  # fmt: skip


# Ollama's TestLFM2Renderer_ChatTemplateParity. `«` begins a turn, `»` ends one.
@pytest.mark.parametrize(
    ("messages", "tools", "think", "expected"),
    [
        ((_user("Hello"),), (), False, "«user\nHello»«assistant\n"),
        ((ChatMessage("system", "You are helpful."), _user("Hi")), (), False, "«system\nYou are helpful.»«user\nHi»«assistant\n"),
        ((_user("Use tools"),), (_TOOL_A,), False, f'«system\nList of tools: <|tool_list_start|>[{{"name": "tool_a", {_NO_PROPERTIES}}}]<|tool_list_end|>»«user\nUse tools»«assistant\n'),
        ((ChatMessage("system", "Follow."), _user("Work")), (_TOOL_A, _TOOL_B), False, f'«system\nFollow.\nList of tools: <|tool_list_start|>[{{"name": "tool_a", {_NO_PROPERTIES}}}, {{"name": "tool_b", {_NO_PROPERTIES}}}]<|tool_list_end|>»«user\nWork»«assistant\n'),
        ((_user("Hi"),), (_WEATHER,), False, '«system\nList of tools: <|tool_list_start|>[{"name": "get_weather", "description": "Get weather", "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "City"}}}}]<|tool_list_end|>»«user\nHi»«assistant\n'),
        ((_user("Call"), _answer("", _PARIS), ChatMessage("tool", "22C")), (), False, '«user\nCall»«assistant\n<|tool_call_start|>[get_weather(city="Paris")]<|tool_call_end|>»«tool\n<|tool_response_start|>22C<|tool_response_end|>»«assistant\n'),
        ((_user("Call"), _answer("Now.", ("f", {"b": [1, "<x>"], "a": None}), ("g", {}))), (), False, '«user\nCall»«assistant\n<|tool_call_start|>[f(a=null,b=[1, "<x>"]),g()]<|tool_call_end|>Now.'),
        (_Q1_Q2, (), False, "«user\nQ1»«assistant\nA1»«user\nQ2»«assistant\n<think>reason2</think>A2"),
        (_Q1_Q2, (), True, "«user\nQ1»«assistant\n<think>reason1</think>A1»«user\nQ2»«assistant\n<think>reason2</think>A2"),
        ((ChatMessage("developer", "Do X"), _user("Hi")), (), False, "«developer\nDo X»«user\nHi»«assistant\n"),
        ((), (), False, "«assistant\n"),
        ((_user("Hi"), _answer("Hello")), (), False, "«user\nHi»«assistant\nHello"),
    ],
)  # fmt: skip
def test_lfm2_prompts(
    messages: tuple[ChatMessage, ...], tools: tuple[Tool, ...], think: bool, expected: str
) -> None:
    expected = expected.replace("«", "<|im_start|>").replace("»", "<|im_end|>\n")

    assert _render("lfm2-thinking", *messages, tools=tools, think=think) == "<|startoftext|>" + expected  # fmt: skip
