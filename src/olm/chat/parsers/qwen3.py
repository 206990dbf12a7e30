"""qwen3, qwen3-thinking, qwen3-vl-instruct and qwen3-vl-thinking: JSON calls in `<tool_call>`, thinking in `<think>`.

Sources: Ollama `model/parsers/qwen3.go`, `qwen3vl.go`; spec/ollama §10.1. The models differ in whether they think, and
the text-only ones may begin a call while they think.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from olm.chat.parsers.base import CallSyntax, ParseInput, Parser, ParserFamily, parser
from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.json_calls import JsonCall
from olm.chat.parsers.kit.lark import call_rules, json_call, literal
from olm.chat.parsers.kit.sections import SectionReader, TextWithSections
from olm.chat.parsers.kit.thinking import ThinkingParser, ThinkSection
from olm.chat.tools import Tool

__all__ = ()

_CALL: Final = "<tool_call>"
_CALL_END: Final = "</tool_call>"


def _body(inp: ParseInput) -> TextWithSections:
    writer = CallWriter(inp.new_id)

    def open_section(marker: str) -> SectionReader:
        return JsonCall(writer, marker, _CALL_END)

    openers = {_CALL: open_section} if inp.tools else {}
    return TextWithSections(openers, drops=("before", "behind", "end"))


def _make_qwen3(inp: ParseInput) -> Parser:
    return _body(inp)


def _make_qwen3_thinking(inp: ParseInput) -> Parser:
    """Thinking is on unless the request says no; a prefill changes nothing, as in Ollama."""
    section = ThinkSection(
        "closed" if inp.think is False else "open", cuts=(_CALL,) if inp.tools else ()
    )
    return ThinkingParser(section, _body(inp))


def _make_vl_thinking(inp: ParseInput) -> Parser:
    """The prompt opens the thinking unless it is off (the model may do it then) or an answer goes on.

    A start tag that the model writes once more stays in the thinking, and calls there are none, as in Ollama.
    """
    if inp.prefill:
        return _body(inp)
    if inp.think is False:
        return ThinkingParser(ThinkSection("maybe"), _body(inp))
    return ThinkingParser(ThinkSection("open", start=""), _body(inp))


def _lark(tools: Sequence[Tool], parallel: bool) -> str:
    """`<tool_call>\\n{"name": …, "arguments": …}\\n</tool_call>`, separated by line ends."""
    calls = [
        f"{literal(_CALL)} /\\s*/ {json_call(tool)} /\\s*/ {literal(_CALL_END)}" for tool in tools
    ]
    return call_rules(calls, parallel=parallel, between="/\\s*/")


_CALLS: Final = CallSyntax((_CALL,), _lark)
_MARKS: Final = (_CALL, _CALL_END)
_THINK_MARKS: Final = ("<think>", "</think>", *_MARKS)

for _name in ("qwen3", "qwen3-vl-instruct"):
    parser(
        _name,
        ParserFamily(make=_make_qwen3, tools=True, preserved_tokens=_MARKS, calls=_CALLS),
    )
for _name, _make in (
    ("qwen3-thinking", _make_qwen3_thinking),
    ("qwen3-vl-thinking", _make_vl_thinking),
):
    parser(
        _name,
        ParserFamily(
            make=_make,
            tools=True,
            thinking=True,
            thinks=True,
            preserved_tokens=_THINK_MARKS,
            think_start="<think>",
            think_ends=("</think>",),
            calls=_CALLS,
        ),
    )
