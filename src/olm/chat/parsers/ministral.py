"""ministral: `[TOOL_CALLS]NAME[ARGS]{json}` in the content, and thinking in `[THINK]…[/THINK]` if a model has it.

Sources: Ollama `model/parsers/ministral.go`; spec/ollama §10.1. A call of an unknown tool cannot be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from olm.chat.parsers.base import CallSyntax, ParseInput, Parser, ParserFamily, parser
from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.lark import call_rules, json_value, literal, parameters_schema
from olm.chat.parsers.kit.named_json import NamedJson, NamedJsonCalls
from olm.chat.parsers.kit.sections import SectionReader, TextSection, TextWithSections
from olm.chat.tools import Tool

__all__ = ()

_CALL: Final = "[TOOL_CALLS]"
_ARGUMENTS: Final = "[ARGS]"
_THINK: Final = "[THINK]"
_THINK_END: Final = "[/THINK]"
_SYNTAX: Final = NamedJson(divider=_ARGUMENTS)


def _make(inp: ParseInput) -> Parser:
    writer = CallWriter(inp.new_id)
    names = frozenset(tool.name for tool in inp.tools)

    def open_call(marker: str) -> SectionReader:
        return NamedJsonCalls(writer, _SYNTAX, marker, known=names)

    def open_thoughts(marker: str) -> SectionReader:
        return TextSection((_THINK_END,), "thinking")

    openers = {_THINK: open_thoughts} | ({_CALL: open_call} if inp.tools else {})
    return TextWithSections(openers, drops=("before", "behind", "end"))


def _lark(tools: Sequence[Tool], parallel: bool) -> str:
    calls = [
        f"{literal(_CALL + tool.name + _ARGUMENTS)} {json_value(parameters_schema(tool))}"
        for tool in tools
    ]
    return call_rules(calls, parallel=parallel)


parser(
    "ministral",
    ParserFamily(
        make=_make,
        tools=True,
        preserved_tokens=(_CALL, _THINK, _THINK_END, _ARGUMENTS),
        calls=CallSyntax((_CALL,), _lark),
    ),
)
