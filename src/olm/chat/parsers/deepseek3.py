"""deepseek3: thinking up to `</think>`, then content with a section of calls, `NAME<｜tool▁sep｜>{json}` each.

Sources: Ollama `model/parsers/deepseek3.go`; spec/ollama §10.1. A tool's output that the model makes up itself is content.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from olm.chat.parsers.base import CallSyntax, ParseInput, Parser, ParserFamily, parser
from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.lark import json_value, literal, parameters_schema
from olm.chat.parsers.kit.mixed import MixedText, section_rules, think_mode
from olm.chat.parsers.kit.named_json import NamedJson, NamedJsonCalls
from olm.chat.parsers.kit.sections import CallReader, TextBefore
from olm.chat.parsers.kit.thinking import ThinkingParser, ThinkSection
from olm.chat.tools import Tool
from olm.chat.types import AnswerEvent, Piece

__all__ = ()

_CALLS: Final = "<｜tool▁calls▁begin｜>"
_CALLS_END: Final = "<｜tool▁calls▁end｜>"
_CALL: Final = "<｜tool▁call▁begin｜>"
_CALL_END: Final = "<｜tool▁call▁end｜>"
_DIVIDER: Final = "<｜tool▁sep｜>"
_OUTPUT: Final = "<｜tool▁output▁begin｜>"
_OUTPUT_END: Final = "<｜tool▁output▁end｜>"
_SYNTAX: Final = NamedJson(begin=_CALL, end=_CALL_END, section_end=_CALLS_END, divider=_DIVIDER)


def _make(inp: ParseInput) -> Parser:
    writer = CallWriter(inp.new_id)

    def open_calls(marker: str) -> CallReader:
        return NamedJsonCalls(writer, _SYNTAX, marker)

    def open_output(marker: str) -> CallReader:
        return _Output()

    body = MixedText({_CALLS: open_calls, _OUTPUT: open_output})
    mode = think_mode(inp, is_on=bool(inp.think) and not inp.prefill)
    return ThinkingParser(ThinkSection(mode), body)


class _Output:
    """Gives out what stands between the markers of an output."""

    def __init__(self) -> None:
        self._before = TextBefore((_OUTPUT_END,), trims=False)

    def push(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Take more text."""
        content, marker, rest = self._before.push(text)
        return _content(content), rest if marker else None

    def finish(self) -> tuple[list[AnswerEvent], str]:
        """The text is over; the end marker was forgotten."""
        return _content(self._before.finish()), ""


def _content(text: str) -> list[AnswerEvent]:
    return [Piece(content=text)] if text else []


def _lark(tools: Sequence[Tool], parallel: bool) -> str:
    calls = [
        f"{literal(_CALL + tool.name + _DIVIDER)} {json_value(parameters_schema(tool))} {literal(_CALL_END)}"
        for tool in tools
    ]
    return section_rules(_CALLS, calls, _CALLS_END, parallel=parallel)


parser(
    "deepseek3",
    ParserFamily(
        make=_make,
        tools=True,
        thinking=True,
        preserved_tokens=(
            "</think>",
            _CALLS,
            _CALLS_END,
            _CALL,
            _CALL_END,
            _DIVIDER,
            _OUTPUT,
            _OUTPUT_END,
        ),
        think_start="<think>",
        think_ends=("</think>",),
        calls=CallSyntax((_CALLS,), _lark),
    ),
)
