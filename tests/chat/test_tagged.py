"""Answers of models with only a Go template. Vectors: Ollama's tools/tools_test.go and thinking/parser_test.go.

Where Ollama keeps a buffer back for ever, the expected content is what its `Content()` gives at the end; where it loses
text, the text is expected as malformed content.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from chat.chat_kit import Answer, answer_of, cut, joined
from olm.chat.rendering import ThinkTags
from olm.chat.tagged import Tags, make_parser, tag_syntax, think_tags
from olm.chat.tools import Tool, read_tools
from olm.chat.types import AnswerEvent, CallArguments, CallEnd, CallStart, Piece

QWEN, JSON, LIST, MISTRAL = "<tool_call>", "{", "[", "[TOOL_CALLS] ["
DEEPSEEK = "<|tool▁calls▁begin|>"
THINK = ThinkTags("<think>", ("</think>",))
NAMES = ("get_temperature", "get_conditions", "say_hello", "say_hello_world", "get_address", "add")


def make_tools(names: Sequence[str]) -> tuple[Tool, ...]:
    return read_tools(json.dumps([{"function": {"name": name}} for name in names]))


def events(
    parts: Sequence[str],
    tag: str = QWEN,
    names: Sequence[str] = NAMES,
    think: ThinkTags | None = None,
) -> list[AnswerEvent]:
    numbers = itertools.count()
    parser = make_parser(Tags(calls=tag), make_tools(names), lambda: f"call_{next(numbers)}", think)
    return joined([*(e for part in parts for e in parser.push(part)), *parser.finish()])


def answer(text: str, tag: str = QWEN, names: Sequence[str] = NAMES) -> Answer:
    return answer_of(events([text], tag, names))


def call(name: str, arguments: str = "{}") -> str:
    return f'{{"name": "{name}", "arguments": {arguments}}}'


def tagged(*calls: str) -> str:
    return "".join(f"<tool_call>{item}</tool_call>" for item in calls)


LONDON = '{"city": "London", "format": "fahrenheit"}'
TOKYO = '{"location": "Tokyo"}'
TEMPERATURE, CONDITIONS = call("get_temperature", LONDON), call("get_conditions", TOKYO)
T, C = ("get_temperature", json.loads(LONDON)), ("get_conditions", json.loads(TOKYO))

READ = [
    ("only text", QWEN, "Hello, how can I help you today?", "Hello, how can I help you today?", []),
    ("nothing", QWEN, "", "", []),
    ("one call", QWEN, tagged(CONDITIONS), "", [C]),
    ("no arguments", QWEN, tagged(call("get_conditions")), "", [("get_conditions", {})]),
    ("text before", QWEN, "Let me check. " + tagged(TEMPERATURE), "Let me check. ", [T]),
    ("a name in text", QWEN, "I'll use the say_hello tool. ", "I'll use the say_hello tool. ", []),
    ("a list", MISTRAL, f"[TOOL_CALLS] [{TEMPERATURE}, {CONDITIONS}][/TOOL_CALLS]", "", [T, C]),
    ("two calls", QWEN, "Both! " + tagged(TEMPERATURE, CONDITIONS), "Both! ", [T, C]),
    ("empty, then full", QWEN, tagged(call("say_hello"), TEMPERATURE), "", [("say_hello", {}), T]),
    ("no end tag", QWEN, tagged(call("get_conditions")) + "<tool_call>" + CONDITIONS, "", [("get_conditions", {}), C]),
    (
        "deepseek", DEEPSEEK,
        f"<think>Wait</think><|tool▁calls▁begin|><|tool▁call▁begin|>function<|tool▁sep|>get_temperature\n```json\n{LONDON}\n```<|tool▁call▁end|><|tool▁calls▁end|><|end▁of▁sentence|>",
        "<think>Wait</think>", [T],
    ),
    ("json", JSON, TEMPERATURE, "", [T]),
    ("json behind blanks", JSON, "\n  " + TEMPERATURE, "\n  ", [T]),
    ("json that is no call", JSON, call("search", LONDON), call("search", LONDON), []),
    ("json, then a call", JSON, '{"name": "jeff"}' + CONDITIONS, '{"name": "jeff"}' + CONDITIONS, []),
    ("json, then a call apart", JSON, '{"name": "jeff"} ' + CONDITIONS, '{"name": "jeff"} ' + CONDITIONS, []),
    ("code", JSON, 'for { fmt.Println("hello") }', 'for { fmt.Println("hello") }', []),
    ("code at the beginning", JSON, '{ fmt.Println("hello")', '{ fmt.Println("hello")', []),
    ("json with a tool's name in it", JSON, '{"name": "my address book"}', '{"name": "my address book"}', []),
    ("a name that ends with a tool's", JSON, '{"name": "padd"}', '{"name": "padd"}', []),
    ("several in json", JSON, f"{TEMPERATURE}; {CONDITIONS}", "", [T, C]),
    ("several in a list", LIST, f"[{TEMPERATURE},{CONDITIONS}]", "", [T, C]),
    ("list without end", LIST, f"[{CONDITIONS}", "", [C]),
    ("list with two ends", LIST, f"[{CONDITIONS}]]", "", [C]),
    ("list that is no call", LIST, "[special delivery]", "[special delivery]", []),
    ("empty list", LIST, "[]", "[]", []),
    ("list of other objects", LIST, '[{"a": 1}, 2]', '[{"a": 1}, 2]', []),
    ("list unfinished", LIST, '[{"name": "search", ', '[{"name": "search", ', []),
    ("longer name", QWEN, tagged(call("say_hello_world") + "}"), "", [("say_hello_world", {})]),
    ("both names", QWEN, tagged(call("say_hello_world"), call("say_hello")), "", [("say_hello_world", {}), ("say_hello", {})]),
    ("name with another in it", JSON, call("get_address", TOKYO), "", [("get_address", {"location": "Tokyo"})]),
    ("arguments first", QWEN, tagged('{"arguments": {"a": "5", "b": "10"}, "name": "add"}'), "", [("add", {"a": "5", "b": "10"})]),
    ("arguments first, name inside", QWEN, tagged('{"arguments": {"name": "say_hello"}, "name": "add"}'), "", [("add", {"name": "say_hello"})]),
    ("tool_name", QWEN, tagged('{"tool_name": "add", "parameters": {"a": 1}}'), "", [("add", {"a": 1})]),
    ("text behind", QWEN, f"{tagged(CONDITIONS)}\n\nDone.", "Done.", [C]),
    ("wrapper", QWEN, tagged(f'{{"tool_calls": [{TEMPERATURE}, {CONDITIONS}]}}'), "", [T, C]),
    ("function object", QWEN, tagged(f'{{"type": "function", "function": {CONDITIONS}}}'), "", [C]),
    ("only a name", QWEN, tagged('{"name": "say_hello"}'), "", [("say_hello", {})]),
    ("null", QWEN, tagged(call("say_hello", "null")), "", [("say_hello", {})]),
    ("name with a namespace", QWEN, tagged(call("functions.say_hello")), "", [("say_hello", {})]),
    ("last brace missing", QWEN, tagged(CONDITIONS[:-1]), "", [C]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("tag", "text", "content", "calls"), [r[1:] for r in READ], ids=[r[0] for r in READ]
)
def test_calls_are_told_from_content(
    tag: str, text: str, content: str, calls: list[tuple[str, object]]
) -> None:
    assert answer(text, tag) == Answer(content, "", calls)


ARGUMENTS = [
    ("extra brace", 'f {"format": "fahrenheit"}}', {"format": "fahrenheit"}),
    ("special tokens", '[tool]f[args]{"location": "San Francisco, CA"}[end]', {"location": "San Francisco, CA"}),
    ("in a list", '[{"name": "f", "arguments": {"a": 1}}', {"a": 1}),
    ("deep", '{"function": {"name": "f", "arguments": {"a": 1}}}', {"a": 1}),
    ("function call", 'f({"location": "San Francisco, CA"})', {"location": "San Francisco, CA"}),
    ("argument called name", 'f({"name": "Bob"})', {"name": "Bob"}),
    ("braces in a string", '{"name": "f", "arguments": {"code": "if (x > 0) { return true; }"}}', {"code": "if (x > 0) { return true; }"}),
    ("json in a string", r'{"name": "f", "arguments": {"payload": "{\"nested\": {\"key\": \"value\"}}"}}', {"payload": '{"nested": {"key": "value"}}'}),
    ("a closing brace", '{"name": "f", "arguments": {"query": "find } in text"}} {"name": "other"}', {"query": "find } in text"}),
    ("newlines", r'{"name": "f", "arguments": {"template": "{\n  \"key\": \"value\"\n}"}}', {"template": '{\n  "key": "value"\n}'}),
    ("escapes", r'{"name": "f", "arguments": {"text": "\u007B and \u007D"}}', {"text": "{ and }"}),
    ("backslashes", r'{"name": "f", "arguments": {"dir": "C:\\Program Files\\{App}\\"}}', {"dir": "C:\\Program Files\\{App}\\"}),
    ("single quotes", """{"name": "f", "arguments": {"sql": "name = '{admin}'"}}""", {"sql": "name = '{admin}'"}),
    ("braces in keys", '{"name": "f", "arguments": {"key{": "value", "key}": "value2"}}', {"key{": "value", "key}": "value2"}),
    ("long", '{"name": "f", "arguments": {"data": "' + "a{b}c" * 100 + '"}}', {"data": "a{b}c" * 100}),
    ("lists inside", '{"name": "f", "arguments": {"items": ["{", "}", {"key": "value"}]}}', {"items": ["{", "}", {"key": "value"}]}),
    ("end tag in a string", '{"name": "f", "arguments": {"x": "</tool_call>"}}', {"x": "</tool_call>"}),
    ("arguments as a string", r'{"name": "f", "arguments": "{\"a\": \"b\"}"}', {"a": "b"}),
    ("parameters as a string", r'{"name": "f", "parameters": "{\"a\": \"b\"}"}', {"a": "b"}),
    ("name as a key", '{"f": {"a": "b"}}', {"a": "b"}),
    ("name as a key of a string", r'{"f": "{\"a\": \"b\"}"}', {"a": "b"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "arguments"), [a[1:] for a in ARGUMENTS], ids=[a[0] for a in ARGUMENTS]
)
def test_arguments_are_found_in_every_form(text: str, arguments: dict[str, object]) -> None:
    found = answer(f"<tool_call>{text}</tool_call>", names=["f"])

    assert found.calls == [("f", arguments)]


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        (QWEN, '<tool_call>{"name": "say_hello'),
        (QWEN, "<tool_call>" + TEMPERATURE[:-9]),
        (QWEN, tagged("{format: fahrenheit}")),
        (QWEN, tagged(call("unknown", LONDON))),
        (QWEN, tagged('{"name": "add", "arguments": ["item1"]}')),
        (QWEN, tagged('{"name": "add", "arguments": {"a": 1,}}')),
        (QWEN, tagged('{"name": "add", "arguments": "none"}')),
        (QWEN, tagged('{"arguments": {"a": 1}}')),
        (QWEN, tagged("just words")),
        (JSON, TEMPERATURE[:-9]),
    ],
)
def test_a_call_that_cannot_be_read_comes_back_as_malformed_content(tag: str, text: str) -> None:
    found = answer(text, tag)

    assert (found.malformed, found.content, found.calls) == (text, text, [])


def test_what_is_whole_before_a_broken_call_counts_and_so_does_text_behind_it() -> None:
    broken = '{"name": "get_curren}]'

    assert answer(f"[TOOL_CALLS] [{CONDITIONS},{broken}", MISTRAL) == Answer(
        broken, "", [C], broken
    )
    unknown = call("nope")
    assert answer(tagged(CONDITIONS + unknown)) == Answer(
        f"{unknown}</tool_call>", "", [C], f"{unknown}</tool_call>"
    )
    assert answer(tagged("{x}") + " Sorry. " + tagged(CONDITIONS)).calls == [C]
    assert answer(tagged("{x}") + " Sorry. ").content == tagged("{x}") + "Sorry. "


def test_a_call_is_told_before_its_end_and_its_arguments_while_they_come() -> None:
    parser = make_parser(Tags(calls=QWEN), make_tools(["add"]), lambda: "id")
    parts = ("Hi <tool", '_call>\n{"name": "add"', ', "arguments": {"a"', ": 1", "}}\n</tool_call>")

    seen = [parser.push(part) for part in parts]

    assert seen[0] == [Piece("Hi ")]
    assert seen[1] == [CallStart(0, "id", "add")]
    assert seen[2] == [CallArguments(0, '{"a"')]
    assert seen[3] == [CallArguments(0, ": 1")]
    assert seen[4][0] == CallArguments(0, "}")
    assert isinstance(seen[4][1], CallEnd)


def test_json_that_may_be_an_answer_starts_no_call_before_its_arguments() -> None:
    parser = make_parser(Tags(calls=JSON), make_tools(["add"]), lambda: "id")

    assert parser.push('{"name": "add"') == []
    assert parser.push(', "kind": "sum"}') == [Piece('{"name": "add", "kind": "sum"}')]
    assert parser.push(" and more") == [Piece(" and more")]


def test_without_tools_everything_is_content() -> None:
    text = tagged(CONDITIONS)

    assert answer(text, names=[]) == Answer(text, "", [])


THOUGHTS = [
    ("<think> internal </think> world", "internal", "world"),
    ("<think>a</think><think>b</think>c", "a", "<think>b</think>c"),
    ("no think", "", "no think"),
    ("  abc <think>def</think> ghi", "", "  abc <think>def</think> ghi"),
    ("  <think>abc</think>\n\ndef ", "abc", "def "),
    ("<think>abc</thing>def</think>", "abc</thing>def", ""),
    ("<think>\n</think>\n\nHi there", "", "Hi there"),
    ("<think>unfinished </th", "unfinished </th", ""),
    ("  <th", "", "  <th"),
]


@pytest.mark.parametrize(("text", "thinking", "content"), THOUGHTS)
def test_thinking_is_told_from_content(text: str, thinking: str, content: str) -> None:
    whole, letters = events([text], think=THINK), events(list(text), think=THINK)

    assert answer_of(whole) == Answer(content, thinking, [])
    assert whole == letters


def test_a_prompt_that_ends_with_the_tag_has_opened_the_thinking() -> None:
    tags = Tags(think_start="<think>", think_end="</think>")
    opened = think_tags(tags, "…<|im_start|>assistant\n<think>\n")

    assert opened == ThinkTags("<think>", ("</think>",), is_open=True)
    assert answer_of(events(["so\n</think>\nyes"], think=opened)) == Answer("yes", "so", [])
    assert think_tags(tags, "assistant\n") == THINK
    assert think_tags(Tags(), "<think>") is None


def test_calls_behind_thinking_are_read_and_calls_within_it_are_not() -> None:
    text = f"<think>I could {tagged(TEMPERATURE)}</think>\n{tagged(CONDITIONS)}"

    assert answer_of(events([text], think=THINK)) == Answer(
        "", f"I could {tagged(TEMPERATURE)}", [C]
    )


TEXTS = st.one_of(
    st.sampled_from([r[2] for r in READ]),
    st.sampled_from([f"<tool_call>{a[1]}</tool_call>" for a in ARGUMENTS]),
    st.lists(
        st.sampled_from(
            [QWEN, "</tool_call>", CONDITIONS, call("nope"), '{"name": "add"', ', "arguments": ', "{", "}", "[", "]", '"', "\\", ",", ":",
             "add", " ", "\n", "text", "<", "null", "1", '{"a": 1}', '"arguments"', "<think>", "</think>"]
        ),
        max_size=14,
    ).map("".join),
)  # fmt: skip


@given(
    TEXTS,
    st.sampled_from([QWEN, JSON, LIST, MISTRAL, DEEPSEEK]),
    st.sampled_from([None, THINK]),
    st.data(),
)
def test_the_events_do_not_depend_on_how_the_text_was_cut(
    text: str, tag: str, think: ThinkTags | None, data: st.DataObject
) -> None:
    text = text[: data.draw(st.integers(0, len(text)))] if data.draw(st.booleans()) else text
    places = data.draw(st.lists(st.integers(0, max(len(text), 1)), max_size=8))

    whole = events([text], tag, think=think)

    assert events(cut(text, places), tag, think=think) == whole
    assert events(list(text), tag, think=think) == whole
    answer_of(whole)


@pytest.mark.parametrize("tag", [QWEN, JSON, MISTRAL])
def test_a_token_costs_under_twenty_microseconds_at_any_length(tag: str) -> None:
    def seconds(n: int) -> float:
        parser = make_parser(Tags(calls=tag), make_tools(NAMES), lambda: "id")
        parser.push("" if tag == JSON else tag)
        parser.push('{"name": "add", "arguments": {"text": "')
        start = time.process_time()
        for _ in range(n):
            parser.push("abc ")
        for _ in range(n):
            parser.push("} x")
        return (time.process_time() - start) / (2 * n)

    assert min(seconds(20_000) for _ in range(2)) < 20e-6


def test_the_syntax_of_calls_is_written_for_grammars() -> None:
    offered = read_tools(
        '[{"function": {"name": "f", "parameters": {"properties": {"a": {"type": "integer"}}}}}]'
    )
    xml = tag_syntax(Tags(calls=QWEN))
    several = tag_syntax(Tags(calls=MISTRAL, arguments="parameters"))

    assert xml is not None
    assert xml.triggers == (QWEN,)
    assert '"<tool_call>"' in xml.lark(offered, False)
    assert '{"const":"f"}' in xml.lark(offered, False)
    assert several is not None
    assert several.lark(offered, True).startswith('calls: "[TOOL_CALLS] [" call_list "]"\n')
    assert '"parameters"' in several.lark(offered, True)
    assert tag_syntax(Tags(calls=DEEPSEEK)) is None


@pytest.mark.parametrize("tag", [JSON, LIST])
def test_bare_calls_have_a_syntax_only_where_a_call_must_come(tag: str) -> None:
    assert tag_syntax(Tags(calls=tag)) is None
    assert tag_syntax(Tags(calls=tag), is_required=True) is not None


def test_tags_are_named_that_may_be_special_tokens() -> None:
    tags = Tags(think_start="<think>", think_end="</think>", calls=QWEN)

    assert tags.marks == ("<think>", "</think>", "<tool_call>", "</tool_call>")
    assert Tags().marks == ()


@pytest.mark.parametrize("tag", [QWEN, JSON, LIST, MISTRAL, "[X]"])
@pytest.mark.parametrize("parallel", [False, True])
def test_what_the_grammar_allows_the_parser_reads(tag: str, parallel: bool) -> None:
    """The grammar is compiled by the real llguidance."""
    offered = read_tools(
        '[{"function": {"name": "add", "parameters": {"properties": {"a": {"type": "integer"}}}}}]'
    )
    syntax = tag_syntax(Tags(calls=tag), is_required=True)
    assert syntax is not None
    one, closing = '{"name":"add","arguments":{"a":1}}', Tags(calls=tag).calls_end
    if tag.endswith("[") and not closing:
        text = f"{tag}{one},{one}]" if parallel else f"{tag}{one}]"
    else:
        call_text = f"{'' if tag == JSON else tag}{one}{closing}"
        text = call_text * (1 + parallel)
    grammar = LLMatcher.grammar_from_lark("start: calls\n" + syntax.lark(offered, parallel))

    assert LLMatcher.validate_grammar(grammar, tokenizer()) == ""
    assert len(answer(text, tag, ["add"]).calls) == 1 + parallel
    assert accepts(grammar, text)
    assert not accepts(grammar, text.replace("add", "sub"))


@cache
def tokenizer() -> LLTokenizer:
    return LLTokenizer("byte")


def accepts(grammar: str, text: str) -> bool:
    matcher = LLMatcher(tokenizer(), grammar)
    return all(matcher.consume_token(byte) for byte in text.encode()) and matcher.is_accepting()
