"""Answers of FunctionGemma: `<start_function_call>call:NAME{k:<escape>v<escape>,n:1}<end_function_call>`, no thinking.

As in Ollama's `model/parsers/functiongemma.go`, a value that is neither a number nor a boolean, list or object is text;
`null` is null here. Arguments stream as they come.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from olm.chat.parsers.base import CallSyntax, ParseInput, Parser, ParserFamily, parser
from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.gemma_calls import GemmaCall, GemmaSyntax
from olm.chat.parsers.kit.gemma_lark import gemma_lark
from olm.chat.parsers.kit.sections import TextWithSections
from olm.chat.tools import Tool

__all__ = ()

_SYNTAX: Final = GemmaSyntax(
    begin="<start_function_call>",
    end="<end_function_call>",
    quote="<escape>",
    is_bare_text=True,
)


def _make(inp: ParseInput) -> Parser:
    writer = CallWriter(inp.new_id)
    return TextWithSections(
        {_SYNTAX.begin: lambda _: GemmaCall(_SYNTAX, writer, inp.tools)}, drops=("behind",)
    )


def _lark(tools: Sequence[Tool], parallel: bool) -> str:
    return gemma_lark(_SYNTAX, tools, parallel)


parser(
    "functiongemma",
    ParserFamily(
        make=_make,
        tools=True,
        preserved_tokens=(_SYNTAX.begin, _SYNTAX.end, _SYNTAX.quote),
        calls=CallSyntax((_SYNTAX.begin,), _lark),
    ),
)
