"""glm-4.7 and glm-ocr: calls with pairs of tags; glm-4.7 thinks up to `</think>`, which the prompt's end has opened.

Sources: Ollama `model/parsers/glm46.go`, `glm47.go`, `glmocr.go`; spec/ollama §10.1. Both tell a thought that the model
opens itself at its beginning from the content.
"""

from __future__ import annotations

from typing import Final

from olm.chat.parsers.base import CallSyntax, ParseInput, Parser, ParserFamily, parser
from olm.chat.parsers.kit.arg_calls import ARG_MARKS, CALL, ArgCalls, arg_call_rules
from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.sections import SectionReader, TextWithSections
from olm.chat.parsers.kit.thinking import ThinkingParser, ThinkSection, think_mode

__all__ = ()


def _body(inp: ParseInput) -> TextWithSections:
    writer = CallWriter(inp.new_id)
    tools = {tool.name: tool for tool in inp.tools}

    def open_call(marker: str) -> SectionReader:
        return ArgCalls(writer, tools, marker)

    openers = {CALL: open_call} if inp.tools else {}
    return TextWithSections(openers, drops=("before", "behind", "end"))


def _make_47(inp: ParseInput) -> Parser:
    mode = think_mode(inp, is_on=inp.think is None or bool(inp.think))
    return ThinkingParser(ThinkSection("open" if mode == "open" else "maybe"), _body(inp))


def _make_ocr(inp: ParseInput) -> Parser:
    return ThinkingParser(ThinkSection("maybe"), _body(inp))


_MARKS: Final = ("<think>", "</think>", *ARG_MARKS)
_CALLS: Final = CallSyntax((CALL,), arg_call_rules)

parser(
    "glm-4.7",
    ParserFamily(
        make=_make_47,
        tools=True,
        thinking=True,
        thinks=True,
        preserved_tokens=_MARKS,
        think_start="<think>",
        think_ends=("</think>",),
        calls=_CALLS,
    ),
)
parser("glm-ocr", ParserFamily(make=_make_ocr, tools=True, preserved_tokens=_MARKS, calls=_CALLS))
