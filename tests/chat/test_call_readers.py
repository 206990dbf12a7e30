"""Calls stream as they are generated: when each event comes, for JSON objects in sections and for parameters in tags."""

from __future__ import annotations

import itertools
import json

import pytest

from chat.chat_kit import TOOLS, Sample, answer_of, is_accepted, make_parser, make_tool
from olm.chat.parsers import PARSERS, ParseInput
from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.json_calls import JsonCallList, JsonKeys
from olm.chat.parsers.kit.json_span import JsonSpan
from olm.chat.parsers.kit.sections import TextBefore, TextWithSections
from olm.chat.parsers.kit.thinking import ThinkSection, think_mode
from olm.chat.types import AnswerEvent, CallArguments, CallEnd, CallStart, Piece, ToolCall


def _steps(parser: str, *parts: str) -> list[list[AnswerEvent]]:
    made = make_parser(Sample(parser=parser, text="", think=False))
    return [made.push(part) for part in parts]


def test_json_arguments_pass_literally_as_they_are_generated() -> None:
    steps = _steps(
        "qwen3",
        'Now <tool_call>\n{"name": "get_wea',
        'ther", "arg',
        'uments": {"city" :',
        ' "Os\\u006co"',
        "}",
        "}",
        "\n</tool_call>",
    )

    whole = ToolCall("get_weather", '{"city" : "Os\\u006co"}', "call_0", 0)
    assert steps == [
        [Piece(content="Now")],
        [CallStart(0, "call_0", "get_weather")],
        [CallArguments(0, '{"city" :')],
        [CallArguments(0, ' "Os\\u006co"')],
        [CallArguments(0, "}")],
        [CallEnd(0, whole)],
        [],
    ]


def test_arguments_before_the_name_come_with_it() -> None:
    steps = _steps("qwen3", '<tool_call>{"arguments": {"a": 1}, ', '"name": "f"', "}")

    assert steps == [
        [],
        [CallStart(0, "call_0", "f"), CallArguments(0, '{"a": 1}')],
        [CallEnd(0, ToolCall("f", '{"a": 1}', "call_0", 0))],
    ]


def test_text_parameters_stream_and_others_come_whole() -> None:
    steps = _steps(
        "qwen3-coder",
        "<tool_call>\n<function=get_weather",
        ">\n<parameter=city>\nO",
        'sl"o\n',
        "II\n</para",
        "meter>\n<parameter=days>\n",
        "3",
        "\n</parameter>",
        "\n</function>\n",
    )

    whole = ToolCall("get_weather", '{"city":"Osl\\"o\\nII","days":3}', "call_0", 0)
    assert steps == [
        [],
        [
            CallStart(0, "call_0", "get_weather"),
            CallArguments(0, '{"city":'),
            CallArguments(0, '"O'),
        ],
        [CallArguments(0, 'sl\\"o')],
        [CallArguments(0, "\\nII")],
        [CallArguments(0, '"'), CallArguments(0, ',"days":')],
        [],
        [CallArguments(0, "3")],
        [CallArguments(0, "}"), CallEnd(0, whole)],
    ]


def test_a_call_that_breaks_off_ends_with_none_and_gives_its_text_back() -> None:
    for parser, text in (
        ("qwen3", '<tool_call>{"name": "f", "arguments": {"a": '),
        ("qwen3-coder", "<tool_call>\n<function=f>\n<parameter=a>\nx"),
    ):
        made = make_parser(Sample(parser=parser, text="", think=False))

        events = [*made.push(text), *made.finish()]

        assert events[0] == CallStart(0, "call_0", "f")
        assert events[-2:] == [CallEnd(0, None), Piece(content=text, malformed=True)]


def test_calls_are_numbered_over_the_answer_failed_ones_too() -> None:
    text = (
        '<tool_call>{"name": "f", "arguments": {]}</tool_call><tool_call>{"name": "g"}</tool_call>'
    )

    events = _steps("qwen3", text)[0]

    assert [event.index for event in events if isinstance(event, CallStart)] == [0, 1]
    assert answer_of(events).calls == [("g", {})]


def _list_parser() -> TextWithSections:
    numbers = itertools.count()
    writer = CallWriter(lambda: f"call_{next(numbers)}")
    keys = JsonKeys("tool_name", ("parameters",), "tool_call_id")
    return TextWithSections({"<A>": lambda _: JsonCallList(writer, "</A>", keys=keys)})


@pytest.mark.parametrize(
    ("text", "calls", "malformed"),
    [
        ("<A>[]</A>", [], ""),
        ('<A>[{"tool_name": "f", "parameters": {}}]</A>x', [("f", {})], ""),
        ('<A>{"tool_name": "f"}</A>x', [("f", {})], ""),
        (
            '<A>\n[\n {"tool_call_id": "7", "tool_name": "f", "parameters": {"a": [1]}},\n {"tool_name": "g"}\n]\n</A>x',
            [("f", {"a": [1]}), ("g", {})],
            "",
        ),
        ('<A>[{"tool_name": "f"}, {"tool_name"}]</A>x', [("f", {})], '{"tool_name"}'),
        ('<A>[{"tool_name": "f"}, {"tool_na', [("f", {})], '{"tool_na'),
        ('<A>[{"tool_name": "f"}', [("f", {})], ""),
        ("<A>[[]]</A>x", [], ""),
        ('<A>[so, {"tool_name": "f"}]</A>x', [("f", {})], "[so, "),
    ],
)
def test_lists_of_calls_in_a_section(
    text: str, calls: list[tuple[str, dict[str, object]]], malformed: str
) -> None:
    for size in range(1, len(text) + 1):
        parser = _list_parser()
        parts = [text[at : at + size] for at in range(0, len(text), size)]

        events = [event for part in parts for event in parser.push(part)] + parser.finish()

        answer = answer_of(events)
        assert (answer.calls, answer.malformed) == (calls, malformed)
        assert answer.content == malformed + ("x" if text.endswith("x") else "")
        if '"7"' in text:
            assert next(event for event in events if isinstance(event, CallStart)).id == "7"


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ('{"a": "}\\"{"}x', 13),
        ("[1, [2]] ", 8),
        ('"a\\\\" ', 5),
        ('{"a": <', 6),
        ("{}}", 2),
        ('{"a": "<"}', 10),
    ],
)
def test_the_end_of_a_json_value_is_found_at_any_cut(text: str, end: int) -> None:
    assert JsonSpan().push(text) == end
    for cut in range(1, end):
        span = JsonSpan()
        assert span.push(text[:cut]) == -1
        assert span.push(text[cut:]) == end - cut


def test_text_before_a_marker_holds_back_blanks_and_beginnings() -> None:
    before = TextBefore(("<end>", "</x>"))

    assert before.push("a b  <e") == ("a b", "", "")
    assert before.push("\n") == ("", "", "")
    assert before.push("f ") == ("  <e\nf", "", "")
    assert before.push(" </") == ("", "", "")
    assert before.push("x>rest") == ("", "</x>", "rest")
    assert before.push("c <") == ("c", "", "")
    assert before.finish() == " <"


@pytest.mark.parametrize(
    ("mode", "text", "thinking", "rest"),
    [
        ("open", "a b </think>\n c", "a b", "c"),
        ("open", "\n<think>\n a</think>", "a", ""),
        ("open", "\n a", "\n a", ""),
        ("open", "<thi", "<thi", ""),
        ("open", "a [X] b", "a", "[X] b"),
        ("maybe", " \n<think>a</think>b", "a", "b"),
        ("maybe", " b<think>", "", " b<think>"),
        ("maybe", " <th", "", " <th"),
        ("closed", "<think>a</think>", "", "<think>a</think>"),
    ],
)
def test_thinking_is_split_off_at_any_cut(mode: str, text: str, thinking: str, rest: str) -> None:
    for size in range(1, len(text) + 1):
        section = ThinkSection(mode, cuts=("[X]",))  # type: ignore[arg-type]  # a literal of the table above

        pairs = [section.push(text[at : at + size]) for at in range(0, len(text), size)]
        pairs.append(section.finish())

        assert "".join(pair[0] for pair in pairs) == thinking
        assert "".join(pair[1] for pair in pairs) == rest


@pytest.mark.parametrize(
    ("prompt", "if_on", "if_off"),
    [
        ("…assistant\n<think>\n", "open", "open"),
        ("…<think>\n\n</think>\n\n", "closed", "closed"),
        ("…assistant\n", "maybe", "closed"),
        ("", "open", "closed"),
    ],
)
def test_a_prompts_end_tells_whether_thinking_is_open(prompt: str, if_on: str, if_off: str) -> None:
    inp = ParseInput(prompt=prompt, new_id=str)

    assert think_mode(inp, is_on=True) == if_on
    assert think_mode(inp, is_on=False) == if_off


_REFERRING = make_tool(
    "plan",
    {"steps": {"type": "array", "items": {"$ref": "#/$defs/step"}}},
    required=["steps"],
    **{"$defs": {"step": {"type": "integer"}}},
)


@pytest.mark.parametrize(
    ("text", "is_good"),
    [
        ('<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>', True),
        ('<tool_call>{"name":"plan","arguments":{"steps":[1,2]}}</tool_call>', True),
        ('<tool_call>{"name":"plan","arguments":{"steps":["1"]}}</tool_call>', False),
        ('<tool_call>{"name":"get_weather","arguments":{}}</tool_call>', False),
        ('<tool_call>{"name":"get_weather","arguments":{"city":"a","town":1}}</tool_call>', False),
        ('<tool_call>{"name":"nowhere","arguments":{}}</tool_call>', False),
        ('<tool_call>{"arguments":{},"name":"now"}</tool_call>', False),
        ('<tool_call>{"name":"now","arguments":{}}</tool_call>\nand text', False),
    ],
)
def test_the_grammar_of_json_calls(text: str, is_good: bool) -> None:
    assert is_accepted(PARSERS["qwen3"], text, (*TOOLS, _REFERRING)) is is_good


def _xml(name: str, **parameters: str) -> str:
    inner = "".join(f"<parameter={k}>\n{v}\n</parameter>\n" for k, v in parameters.items())
    return f"<tool_call>\n<function={name}>\n{inner}</function>\n</tool_call>"


@pytest.mark.parametrize(
    ("text", "is_good"),
    [
        (_xml("get_weather", city='Oslo\n"<b>" & {', days="3", metric="False"), True),
        (_xml("get_weather", city="", parts='["a"]'), True),
        (_xml("plan", steps="[1, 2]"), True),
        (_xml("now") + "\n" + _xml("now"), True),
        (_xml("plan", steps='["1"]'), False),
        (_xml("get_weather", days="3"), False),
        (_xml("get_weather", city="a", days="three"), False),
        (_xml("get_weather", city="a", town="b"), False),
        (_xml("nowhere"), False),
        (_xml("now")[:-3], False),
        ("<tool_call>{}</tool_call>", False),
    ],
)
def test_the_grammar_of_calls_with_tags(text: str, is_good: bool) -> None:
    assert is_accepted(PARSERS["qwen3.5"], text, (*TOOLS, _REFERRING)) is is_good


def test_what_the_grammar_lets_through_fits_the_schema() -> None:
    tool = make_tool(
        "pick",
        {"one": {"type": "string", "enum": ["a b", "c"]}, "n": {"type": ["integer", "null"]}},
    )
    good, bad = _xml("pick", one="a b", n="null"), _xml("pick", one="d")

    assert is_accepted(PARSERS["qwen3.5"], good, (tool,))
    assert not is_accepted(PARSERS["qwen3.5"], bad, (tool,))
    parser = make_parser(Sample(parser="qwen3.5", text="", tools=(tool,), think=False))
    end = parser.push(good)[-1]
    assert isinstance(end, CallEnd)
    assert end.call is not None
    assert json.loads(end.call.arguments_json) == {"one": "a b", "n": None}
