"""What the samples cannot say of gemma4, functiongemma, harmony, lfm2 and glimmer: streaming, names, grammars of calls."""

from __future__ import annotations

import pytest

from chat.chat_kit import TOOLS, Sample, answer_of, events_of, is_accepted, make_parser, make_tool
from olm.chat.parsers import PARSERS
from olm.chat.parsers.glimmer import resolve
from olm.chat.parsers.harmony import Header, read_header
from olm.chat.parsers.kit.harmony_names import harmony_think, map_messages, map_tools
from olm.chat.renderers.gemma4 import gemma4_variant
from olm.chat.types import (
    AnswerEvent,
    CallArguments,
    CallEnd,
    CallStart,
    ChatMessage,
    Piece,
    ToolCall,
)

_Q = '<|"|>'
_GLIMMER_CALL = '<atem:function_calls>\n<atem:invoke name="add">\n<atem:parameter name="a">1</atem:parameter>\n<atem:parameter name="b">2</atem:parameter>\n</atem:invoke>\n</atem:function_calls>'  # fmt: skip


def _push(parser: str, *parts: str) -> list[list[AnswerEvent]]:
    """Push the parts and return the events of each."""
    made = make_parser(Sample(parser=parser, text="", think=True, prompt="<|start|>assistant"))
    return [made.push(part) for part in parts]


def _whole(json: str) -> CallEnd:
    return CallEnd(0, ToolCall("get_weather", json, "call_0", 0))


def test_gemma4_streams_names_and_arguments_as_they_come() -> None:
    events = _push(
        "gemma4", "<|tool_call>call:get_", "weather{ci", f"ty:{_Q}Os", "lo", f"{_Q},days:1", "0}", "<tool_"
    )  # fmt: skip

    assert events == [
        [],
        [CallStart(0, "call_0", "get_weather"), CallArguments(0, "{")],
        [CallArguments(0, '"city":"Os')],
        [CallArguments(0, "lo")],
        [CallArguments(0, '","days":')],
        [CallArguments(0, "10}"), _whole('{"city":"Oslo","days":10}')],
        [],
    ]


def test_a_marker_in_a_string_stops_the_stream_until_it_is_clear_what_it_is() -> None:
    parts = (f"<|tool_call>call:write{{text:{_Q}see }}", "<tool_call|>", " there", f"{_Q},n:1}}")

    events = _push("gemma4", *parts)

    assert events[0][-1] == CallArguments(0, '{"text":"see')
    assert events[1] == events[2] == []
    assert isinstance(events[3][-1], CallEnd)


def test_harmony_streams_arguments_literally() -> None:
    head = "<|channel|>commentary to=functions.get_weather <|constrain|>json<|mess"

    events = _push("harmony", head, 'age|> {"ci', 'ty": "Oslo"}\n', "<|end|>")

    assert events == [
        [],
        [CallStart(0, "call_0", "get_weather"), CallArguments(0, '{"ci')],
        [CallArguments(0, 'ty": "Oslo"}\n')],
        [_whole('{"city": "Oslo"}\n')],
    ]


def test_glimmer_streams_text_parameters() -> None:
    head = ' to=get_weather<|message|><atem:function_calls>\n<atem:invoke name="get_weather">\n'

    events = _push("glimmer", head, '<atem:parameter name="city">Os', "lo</atem:para", "meter>")

    assert events[0] == [CallStart(0, "call_0", "get_weather")]
    assert events[1:] == [
        [CallArguments(0, '{"city":"Os')],
        [CallArguments(0, "lo")],
        [CallArguments(0, '"')],
    ]


def test_content_waits_only_for_what_may_be_a_marker() -> None:
    assert _push("gemma4", "A <", "b <|tool", "> c") == [
        [Piece("A")],
        [Piece(" <b")],
        [Piece(" <|tool> c")],
    ]
    assert _push("glimmer", " to=user<|message|>Hello<|eo", "t|>") == [[Piece("Hello")], []]
    assert _push("lfm2", "now", " we") == [[], [Piece("now we")]]


# Ollama's TestHeaderParsing, and a second header.
@pytest.mark.parametrize(
    ("raw", "header"),
    [
        ("assistant<|channel|>analysis", Header("assistant", "analysis")),
        ("assistant<|channel|>analysis to=functions.f", Header("assistant", "analysis", "functions.f")),
        ("assistant to=functions.f<|channel|>analysis", Header("assistant", "analysis", "functions.f")),
        ("to=functions.f<|channel|>analysis", Header("tool", "analysis", "functions.f")),
        ("assistant to=functions.f abc<|channel|>analysis", Header("assistant", "analysis", "functions.f")),
        ("assistant<|channel|>commentary to=functions.f <|constrain|>json", Header("assistant", "commentary", "functions.f")),
        ("assistant to=functions.f<|channel|>commentary <|constrain|>json", Header("assistant", "commentary", "functions.f")),
        ("assistant<|channel|>commentary to=functions.f<|constrain|>json", Header("assistant", "commentary", "functions.f")),
        ("assistant to=functions.f<|channel|>commentary<|constrain|>json", Header("assistant", "commentary", "functions.f")),
        ("assistant<|channel|>commentary to=assistant<|channel|>final", Header("assistant", "final")),
        ("user", Header("user")),
        ("", Header()),
    ],
)  # fmt: skip
def test_harmony_headers_are_read_in_every_order(raw: str, header: Header) -> None:
    assert read_header(raw) == header


# Ollama's TestFunctionConvertToValidChars and TestFunctionConvertAndAdd.
@pytest.mark.parametrize(
    ("names", "mapped"),
    [
        (["get weather"], ["get_weather"]),
        (["get-weather"], ["get_weather"]),
        (["get.weather"], ["get_weather"]),
        (["get weather!"], ["get_weather"]),
        (["a🫠bc"], ["abc"]),
        (["🫠"], ["unnamed"]),
        (["123"], ["_123"]),
        (["$"], ["$"]),
        (["𝓸𝓵𝓵𝓪𝓶𝓪"], ["𝓸𝓵𝓵𝓪𝓶𝓪"]),
        (["ⓞⓛⓛⓐⓜⓐ123"], ["_123"]),
        (["get weather", "get weather"], ["get_weather", "get_weather_2"]),
        (["get weather", "get_weather", "get-weather", "x-y"], ["get_weather", "get_weather_2", "get_weather_3", "x_y"]),
        (["a", "a", "b", "a", "a", "b", "a"], ["a", "a_2", "b", "a_3", "a_4", "b_2", "a_5"]),
        (["browser.open", "python", "not.built.in", "browser.no"], ["browser.open", "python", "not_built_in", "browser_no"]),
    ],
)  # fmt: skip
def test_harmony_names_are_identifiers_and_lead_back(names: list[str], mapped: list[str]) -> None:
    tools, mapping = map_tools([make_tool(name, {}) for name in names])

    assert [tool.name for tool in tools] == mapped
    assert [tool.function["name"] for tool in tools] == mapped
    assert [mapping[name] for name in mapped] == names


def test_harmony_renames_calls_and_results_of_a_conversation() -> None:
    _, mapping = map_tools([make_tool("get weather", {}), make_tool("get-weather", {})])
    turn = ChatMessage("assistant", tool_calls=(ToolCall("get-weather"), ToolCall("so-called")))
    result = ChatMessage("tool", "fine", tool_name="get weather")

    renamed = map_messages([ChatMessage("user", "hi"), turn, result], mapping)

    assert [call.name for call in renamed[1].tool_calls] == ["get_weather_2", "so_called"]
    assert renamed[2].tool_name == "get_weather"
    assert renamed[0] == ChatMessage("user", "hi")


def test_harmony_thinks_high_at_most() -> None:
    assert [harmony_think(think) for think in ("max", "low", True, None)] == [
        "high", "low", True, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("read", "read"),
        ("read.read", "read"),
        ("repo.read", "repo.read"),
        ("repo.repo.read", "repo.read"),
        ("functions.read", None),
        ("write.write", None),
    ],
)
def test_glimmer_tools_are_found_in_their_own_name_space_only(name: str, found: str | None) -> None:
    tools = {tool: make_tool(tool, {}) for tool in ("read", "repo.read")}

    tool = resolve(tools, name)

    assert (tool.name if tool else None) == found


@pytest.mark.parametrize(
    ("name", "n_parameters", "variant"),
    [
        ("gemma4:26b", 0, "gemma4-large"),
        ("gemma4:31B-it", 4_000_000_000, "gemma4-large"),
        ("me/gemma4:12b", 0, "gemma4-large"),
        ("gemma4:e4b", 26_000_000_000, "gemma4-small"),
        ("mine", 12_000_000_000, "gemma4-large"),
        ("mine", 11_999_999_999, "gemma4-small"),
    ],
)
def test_gemma4_is_large_by_its_name_or_else_its_size(
    name: str, n_parameters: int, variant: str
) -> None:
    assert gemma4_variant(name, n_parameters) == variant


_CHOICE = make_tool("pick", {"color": {"enum": ["red", "blue"]}, "n": {"anyOf": [{"type": "integer"}, {"type": "null"}]}, "any": {}})  # fmt: skip
_GRAMMAR_TOOLS = (*TOOLS, _CHOICE)


def _gemma(text: str) -> str:
    return text.replace("«", "<|tool_call>call:").replace("»", "<tool_call|>").replace("~", _Q)


def _function(text: str) -> str:
    return (
        text.replace("«", "<start_function_call>call:")
        .replace("»", "<end_function_call>")
        .replace("~", "<escape>")
    )


_GEMMA_GOOD = [
    "«now{}»",
    "«add{a:1,b:-2.5e3}»«now{}»",
    '«get_weather{city:~Oslo <b> "quoted"\n{x}~,days:3,limits:{low:1.5},metric:true,parts:[~a~,~~]}»',
    "«get_weather{city:~O~,parts:[]}»",
    "«pick{any:{k:[1,null,~x~]},color:~red~,n:null}»",
    "«pick{}»",
    "«pick{n:4}»",
]  # fmt: skip
_GEMMA_BAD = [
    "«other{}»", "«now{x:1}»", "«add{a:1}»", "«add{b:1,a:2}»", "«add{a:~1~,b:2}»", "«get_weather{days:3}»",
    "«get_weather{city:Oslo}»", "«get_weather{city:~O~,days:1.5}»", "«pick{color:~green~}»", "«now{}", "now{}»",
]  # fmt: skip
_LFM2_GOOD = [
    "[now()]",
    '[add(a=1, b=2.5),get_weather(city="Oslo \\"S\\"", parts=["a"], limits={"low": 1})]',
    '[pick(color="red", n=null)]',
]
_LFM2_BAD = ["[other()]", "[add(a=1)]", "now()", "[get_weather(city='Oslo')]", '[pick(color="green")]', "[]"]  # fmt: skip
_HARMONY_GOOD = [
    '<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"a": 1, "b": 2}',
    '<|channel|>analysis to=functions.add<|message|>{"a":1,"b":2}',
    "<|start|>assistant<|channel|>commentary to=functions.now<|constrain|>json<|message|>{}",
    "<|start|>assistant to=functions.now<|channel|>commentary <|constrain|>json<|message|>{}",
]
_HARMONY_BAD = [
    "<|channel|>commentary to=functions.add<|message|>{}",
    "<|channel|>commentary to=functions.other<|message|>{}",
    "<|channel|>final<|message|>{}",
]
_GLIMMER_GOOD = [
    f" to=add<|message|>{_GLIMMER_CALL}",
    f"<|message|>{_GLIMMER_CALL}",
    f"<|start|>assistant to=add<|message|>{_GLIMMER_CALL}<|eom|><|start|>assistant to=add<|message|>{_GLIMMER_CALL}",
    ' to=get_weather<|message|><atem:function_calls>\n<atem:invoke name="get_weather">\n<atem:parameter name="city">O <b>\n& </atem:parameter>\n<atem:parameter name="parts">["a"]</atem:parameter>\n</atem:invoke>\n</atem:function_calls>',
    ' to=pick<|message|><atem:function_calls>\n<atem:invoke name="pick">\n<atem:parameter name="color">red</atem:parameter>\n</atem:invoke>\n</atem:function_calls>',
]  # fmt: skip
_GLIMMER_BAD = [
    f" to=user<|message|>{_GLIMMER_CALL}",
    f" to=now<|message|>{_GLIMMER_CALL}",
    f" to=add<|message|>{_GLIMMER_CALL}".replace(">2<", ">two<"),
    f" to=add<|message|>{_GLIMMER_CALL}".replace('"b"', '"c"'),
]
_CASES = [
    *(("gemma4", _gemma(text), text in _GEMMA_GOOD) for text in _GEMMA_GOOD + _GEMMA_BAD),
    *(("functiongemma", _function(text), text in _GEMMA_GOOD) for text in _GEMMA_GOOD + _GEMMA_BAD),
    *(("lfm2", f"<|tool_call_start|>{text}<|tool_call_end|>", text in _LFM2_GOOD) for text in _LFM2_GOOD + _LFM2_BAD),
    *(("harmony", text, text in _HARMONY_GOOD) for text in _HARMONY_GOOD + _HARMONY_BAD),
    *(("glimmer", text, text in _GLIMMER_GOOD) for text in _GLIMMER_GOOD + _GLIMMER_BAD),
]  # fmt: skip


def _accepts(parser: str, text: str, *, parallel: bool = True) -> bool:
    return is_accepted(PARSERS[parser], text, _GRAMMAR_TOOLS, parallel=parallel)


@pytest.mark.parametrize(("parser", "text", "is_good"), _CASES)
def test_the_grammar_of_calls_takes_good_ones_only(parser: str, text: str, is_good: bool) -> None:
    assert _accepts(parser, text) is is_good


@pytest.mark.parametrize(("parser", "text"), [(name, text) for name, text, is_good in _CASES if is_good])  # fmt: skip
def test_the_parser_reads_what_the_grammar_takes(parser: str, text: str) -> None:
    prompt = "" if text.startswith("<|start|>") and parser == "harmony" else "<|start|>assistant"
    sample = Sample(parser=parser, text=text, tools=_GRAMMAR_TOOLS, prompt=prompt)

    answer = answer_of(events_of(make_parser(sample), [text]))

    assert answer.calls
    assert not answer.content
    assert not answer.broken


@pytest.mark.parametrize("parser", ["gemma4", "functiongemma", "lfm2", "glimmer"])
def test_several_calls_only_where_that_is_asked(parser: str) -> None:
    texts = [text for name, text, is_good in _CASES if name == parser and is_good]
    n_calls = {
        text: len(answer_of(events_of(make_parser(Sample(parser=parser, text=text, tools=_GRAMMAR_TOOLS)), [text])).calls)
        for text in texts
    }  # fmt: skip

    allowed = {text: _accepts(parser, text, parallel=False) for text in texts}

    assert allowed == {text: n == 1 for text, n in n_calls.items()}
    assert set(n_calls.values()) == {1, 2}
