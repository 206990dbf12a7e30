"""What holds for every named parser and renderer, on the samples that each family registers (see chat_kit)."""

from __future__ import annotations

import json
import sys
from typing import Final

import llguidance
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.chat_kit import (
    TOOLS,
    Pair,
    Sample,
    answer_of,
    cuts,
    events_of,
    is_accepted,
    make_parser,
    make_tool,
    pairs,
    rechunk_property,
    samples,
)
from olm.chat.parsers import PARSERS, Parser
from olm.chat.renderers import RENDERERS, RenderInput
from olm.chat.tools import read_tools
from olm.chat.types import ChatMessage, Piece, ToolCall
from olm.errors import OlmError

_SAMPLES: Final = samples()
_PAIRS: Final = pairs()
_MARKS: Final = (
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<function=now>", "</function>",
    "<parameter=city>", "</parameter>", "<arg_key>", "</arg_value>", "<", "</", "{", "}", '"', "[", "]",
    '{"name": "now", "arguments": {}}', "get_weather", "\n", "  ", "é", "🦉", "a=1", "null", "\\", "<|", "|>",
)  # fmt: skip
_KINDS: Final = sorted({family.make: name for name, family in sorted(PARSERS.items())}.values())
"""One name of each parser that is registered under several."""
_FLAGS: Final = {
    "passthrough": "", "harmony": "TK+", "qwen3": "T", "qwen3-thinking": "TK+", "qwen3-vl-instruct": "T",
    "qwen3-vl-thinking": "TK+", "qwen3-coder": "T", "qwen3.5": "TK+", "ornith": "TK+", "nemotron-3-nano": "TK+",
    "nemotron-3.5-nano": "TK+", "ministral": "T", "cogito": "TK", "deepseek3": "TK", "olmo3": "T", "olmo3-think": "K+",
    "functiongemma": "T", "glm-4.7": "TK+", "glm-ocr": "T", "gemma4": "TK", "gemma4-no-thinking": "T", "lfm2": "T",
    "lfm2-thinking": "TK", "laguna": "TK", "poolside-v1": "TK", "cohere": "TK+", "glimmer": "TK+",
}  # fmt: skip
"""spec/ollama §10.1: T calls tools, K tells thinking apart, + thinks unless the request says otherwise."""
_NEVER_WRITTEN: Final = {
    "olmo3-think": "drops the thoughts of earlier turns, and an answer without any has no beginning",
    "olmo3-32b-think": "as olmo3-think",
}
_NEVER_READ: Final = {
    "passthrough": "reads nothing",
    "olmo3-think": "see its renderer",
    "harmony": "its prompts are a Go template's",
    "ministral": "its prompts are a Go template's",
    "qwen3": "its prompts are a Go template's",
    "qwen3-thinking": "its prompts are a Go template's",
}
_N_COUNTED: Final = 300
_N_BEFORE: Final = 2_000
"""Characters before the first count: by then a parser that waits for a header that does not come has given up."""
_N_BETWEEN: Final = 16_000


def _name(sample: Sample) -> str:
    return f"{sample.parser}-{_SAMPLES.index(sample)}"


@pytest.mark.parametrize("sample", _SAMPLES, ids=_name)
def test_a_sample_becomes_what_it_should(sample: Sample) -> None:
    answer = answer_of(events_of(make_parser(sample), [sample.text]))

    if sample.content is not None:
        assert answer.content == sample.content
    if sample.thinking is not None:
        assert answer.thinking == sample.thinking
    if sample.calls is not None:
        assert answer.calls == list(sample.calls)
    if sample.malformed is not None:
        assert bool(answer.malformed) is sample.malformed


@pytest.mark.parametrize("sample", _SAMPLES, ids=_name)
def test_events_do_not_depend_on_the_cuts(sample: Sample) -> None:
    rechunk_property(sample)


@pytest.mark.parametrize("name", _KINDS)
def test_garbage_gives_the_same_events_in_any_cut(name: str) -> None:
    own = [sample.text for sample in _SAMPLES if sample.parser == name]
    marks = st.sampled_from([*_MARKS, *PARSERS[name].preserved_tokens])
    bits = marks | st.text(max_size=4) | st.sampled_from(own or [""])

    @settings(max_examples=40)
    @given(
        data=st.data(),
        parts=st.lists(bits, max_size=14),
        think=st.sampled_from([None, True, False]),
    )
    def same(data: st.DataObject, parts: list[str], think: bool | None) -> None:
        sample = Sample(parser=name, text="".join(parts), think=think)
        whole = events_of(make_parser(sample), [sample.text])

        assert events_of(make_parser(sample), list(sample.text)) == whole
        assert events_of(make_parser(sample), parts) == whole
        assert events_of(make_parser(sample), data.draw(cuts(sample.text))) == whole
        answer_of(whole)

    same()


@pytest.mark.parametrize("name", _KINDS)
@settings(max_examples=20)
@given(text=st.text(alphabet="ab é.\n🦉", max_size=40))
def test_text_without_marks_comes_out_whole(name: str, text: str) -> None:
    answer = answer_of(events_of(make_parser(Sample(parser=name, text=text)), text))

    assert (answer.thinking + answer.content).split() == text.split()
    assert not answer.calls
    assert not answer.malformed


def _n_calls(parser: Parser, text: str) -> int:
    """Push a text by its characters and count the functions called, those in C too: a measure of work without a clock."""
    n_calls = 0

    def count(_frame: object, event: str, _arg: object) -> None:
        nonlocal n_calls
        n_calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        for character in text:
            parser.push(character)
    finally:
        sys.setprofile(None)
    return n_calls


@pytest.mark.parametrize("name", _KINDS)
def test_a_character_late_in_an_answer_costs_no_more_than_an_early_one(name: str) -> None:
    longest = max((s.text for s in _SAMPLES if s.parser == name), key=len, default="")
    for start in ("", longest[: len(longest) * 2 // 3]):
        for unit in ("a", " ", "<", '{"', "\n</"):
            parser = make_parser(Sample(parser=name, text=""))
            parser.push(start)
            text = unit * (_N_COUNTED // len(unit))

            for _ in range(_N_BEFORE // 8):
                parser.push((unit * 8)[:8])
            early = _n_calls(parser, text)
            for _ in range(_N_BETWEEN // 8):
                parser.push((unit * 8)[:8])
            late = _n_calls(parser, text)

            assert late <= 2 * early + _N_COUNTED, (start, unit)
            parser.finish()


def _turn(pair: Pair) -> ChatMessage:
    calls = (
        ToolCall("get_weather", '{"city":"Oslo \\"S\\"\\nline <b> & 2","days":3,"metric":true,"parts":["a","b"],"limits":{"low":-1.5}}', "call_one1", 0),
        ToolCall("add", '{"a":1,"b":2.5}', "call_two2", 1),
    )  # fmt: skip
    return ChatMessage(
        "assistant",
        content="Let me look, then add." if pair.keeps_content else "",
        thinking="They want to know.\n\nSo: ask." if pair.keeps_thinking else "",
        tool_calls=calls[: pair.max_calls],
    )


def _written(pair: Pair, turn: ChatMessage) -> str:
    """Render the turn between a question and its tools' results, and return it as the prompt holds it."""
    results = tuple(
        ChatMessage("tool", content="fine", tool_name=call.name, tool_call_id=call.id)
        for call in turn.tool_calls
    )
    messages = (ChatMessage("user", content="How is it?"), turn, *results)
    text = RENDERERS[pair.renderer](RenderInput(messages=messages, tools=TOOLS, think=pair.think))
    assert "How is it?" in text
    _, found, rest = text.partition("How is it?")[2].partition(pair.opening)
    assert found, "the turn's opening stands behind the question"
    written, found, _ = rest.partition(pair.closing)
    assert found, "the turn is closed"
    return written


def _pair_name(pair: Pair) -> str:
    return f"{pair.renderer}-{pair.think}"


@pytest.mark.parametrize("pair", _PAIRS, ids=_pair_name)
def test_what_a_renderer_writes_its_parser_reads_back(pair: Pair) -> None:
    turn = _turn(pair)

    written = _written(pair, turn)
    answer = answer_of(
        events_of(
            make_parser(Sample(parser=pair.parser, text=written, think=pair.think)), [written]
        )
    )

    assert answer.calls == [
        (call.name, json.loads(call.arguments_json)) for call in turn.tool_calls
    ]
    assert answer.thinking.strip() == turn.thinking
    assert answer.content.strip() == turn.content
    assert not answer.malformed


@pytest.mark.parametrize("pair", _PAIRS, ids=_pair_name)
def test_what_a_renderer_writes_its_grammar_accepts(pair: Pair) -> None:
    family = PARSERS[pair.parser]
    if family.calls is None:
        pytest.skip("no grammar")
    # Plain values in the order of their names: history is written with Go's escapes and order, answers need not be.
    turn = ChatMessage(
        "assistant",
        thinking="Hm." if pair.keeps_thinking else "",
        tool_calls=(ToolCall("get_weather", '{"city":"Oslo S","days":3}'), ToolCall("now"))[: pair.max_calls],
    )  # fmt: skip
    written = _written(pair, turn)
    at = min((found for t in family.calls.triggers if (found := written.find(t)) >= 0), default=-1)

    assert at >= 0, "calls begin with a trigger"
    calls = written[at:].rstrip()
    assert is_accepted(family, calls, TOOLS) or is_accepted(family, calls + "\n", TOOLS)
    assert not is_accepted(family, calls, TOOLS[1:]), "a tool that is not offered"
    assert not is_accepted(family, calls[:-4], TOOLS), "calls that break off"
    if pair.max_calls > 1:
        assert not is_accepted(family, calls, TOOLS, parallel=False)


@pytest.mark.parametrize("name", sorted(name for name in PARSERS if PARSERS[name].calls))
@pytest.mark.parametrize("parallel", [True, False])
def test_grammars_of_calls_are_valid_for_odd_tools(name: str, parallel: bool) -> None:
    calls = PARSERS[name].calls
    assert calls is not None
    odd = (
        *TOOLS,
        make_tool('quo"te\\d é', {'a "b"\n': {"type": "string"}, "c": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/x"}]}},
                  **{"$defs": {"x": {"type": "integer"}}}),
        make_tool("pick", {"one": {"type": "string", "enum": ["a", 'b"c']}, "any": {}, "tags": {"type": ["array", "null"]}}),
        read_tools('[{"function": {"name": "bare"}}, {"function": {"name": "free", "parameters": {"type": "object"}}}]')[0],
    )  # fmt: skip
    rules = "start: calls\n" + calls.lark(odd, parallel)

    assert calls.triggers
    assert not llguidance.LLMatcher.validate_grammar(
        llguidance.LLMatcher.grammar_from_lark(rules)
    ), rules


def test_every_parser_is_registered_with_what_it_can_tell() -> None:
    flags = {
        name: "T" * family.tools + "K" * family.thinking + "+" * family.thinks
        for name, family in PARSERS.items()
    }

    assert flags == _FLAGS
    assert all((family.calls is not None) is family.tools for family in PARSERS.values())


def test_every_family_is_written_and_read_back_or_says_why_not() -> None:
    assert {pair.renderer for pair in _PAIRS} == RENDERERS.keys() - _NEVER_WRITTEN.keys()
    assert {pair.parser for pair in _PAIRS} == PARSERS.keys() - _NEVER_READ.keys()


@pytest.mark.parametrize("name", sorted(RENDERERS))
@pytest.mark.parametrize("think", [None, True, False])
def test_odd_conversations_are_rendered_without_a_crash(name: str, think: bool | None) -> None:
    odd: list[tuple[ChatMessage, ...]] = [
        (),
        (ChatMessage("user"),),
        (ChatMessage("system", content="Be kind."),),
        (ChatMessage("tool", content="alone", tool_name="now"),),
        (ChatMessage("wizard", content="?"),),
        (ChatMessage("user", content="hi"), ChatMessage("assistant", content="I am")),
        (ChatMessage("assistant", thinking="hm"), ChatMessage("assistant", content="x")),
        (ChatMessage("user", content="[img]?", images=(b"\x89PNG",)), ChatMessage("user")),
    ]
    for messages in odd:
        for tools in ((), TOOLS):
            try:
                text = RENDERERS[name](RenderInput(messages=messages, tools=tools, think=think))
            except OlmError as refused:
                text = str(refused)  # a family may refuse what its template does

            assert isinstance(text, str)


def test_the_kit_joins_what_belongs_together() -> None:
    sample = Sample(parser="x", text="")

    assert sample.tools is TOOLS
    assert answer_of([Piece("a"), Piece("b", malformed=True)]).malformed == "b"
