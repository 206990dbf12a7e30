"""olmo3: calls in Python's syntax, one a line, in `<function_calls>`. olmo3-think: thinking up to `</think>`, no tools.

Sources: Ollama `model/parsers/olmo3.go`, `olmo3_think.go`; spec/ollama §10.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from olm.chat.parsers.base import CallSyntax, ParseInput, Parser, ParserFamily, parser
from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.lark import literal
from olm.chat.parsers.kit.python_calls import PythonSection, python_call_rules
from olm.chat.parsers.kit.sections import SectionReader, TextWithSections
from olm.chat.parsers.kit.thinking import ThinkingParser, ThinkSection, think_mode
from olm.chat.tools import Tool

__all__ = ()

_CALLS: Final = "<function_calls>"
_CALLS_END: Final = "</function_calls>"


def _make(inp: ParseInput) -> Parser:
    writer = CallWriter(inp.new_id)

    def open_calls(marker: str) -> SectionReader:
        return PythonSection(writer, _CALLS_END)

    return TextWithSections({_CALLS: open_calls} if inp.tools else {})


def _make_thinking(inp: ParseInput) -> Parser:
    """The prompt opens the thinking whatever is asked, unless an answer is continued."""
    return ThinkingParser(
        ThinkSection(think_mode(inp, is_on=not inp.prefill)), TextWithSections({})
    )


def _lark(tools: Sequence[Tool], parallel: bool) -> str:
    return python_call_rules(tools, _CALLS, _CALLS_END, parallel=parallel, between=literal("\n"))


parser(
    "olmo3",
    ParserFamily(
        make=_make,
        tools=True,
        preserved_tokens=(_CALLS, _CALLS_END),
        calls=CallSyntax((_CALLS,), _lark),
    ),
)
parser(
    "olmo3-think",
    ParserFamily(
        make=_make_thinking,
        thinking=True,
        thinks=True,
        preserved_tokens=("</think>",),
        think_start="<think>",
        think_ends=("</think>",),
    ),
)
