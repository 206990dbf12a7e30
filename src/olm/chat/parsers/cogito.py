"""cogito: DeepSeek's tokens, but each call is `function<｜tool▁sep｜>NAME` and its arguments in a JSON code block.

Sources: Ollama `model/parsers/cogito.go`; spec/ollama §10.1. It thinks only without tools. Outputs of tools that the model
makes up itself are dropped.
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
from olm.chat.types import AnswerEvent

__all__ = ()

_CALLS: Final = "<｜tool▁calls▁begin｜>"
_CALLS_END: Final = "<｜tool▁calls▁end｜>"
_CALL: Final = "<｜tool▁call▁begin｜>"
_CALL_END: Final = "<｜tool▁call▁end｜>"
_KIND: Final = "<｜tool▁sep｜>"
_OUTPUTS: Final = "<｜tool▁outputs▁begin｜>"
_OUTPUTS_END: Final = "<｜tool▁outputs▁end｜>"
_SYNTAX: Final = NamedJson(
    begin=_CALL, end=_CALL_END, section_end=_CALLS_END, kind=_KIND, divider="```json", fence="```"
)


def _make(inp: ParseInput) -> Parser:
    writer = CallWriter(inp.new_id)

    def open_calls(marker: str) -> CallReader:
        return NamedJsonCalls(writer, _SYNTAX, marker)

    def open_outputs(marker: str) -> CallReader:
        return _Outputs()

    body = MixedText({_CALLS: open_calls, _OUTPUTS: open_outputs})
    is_on = bool(inp.think) and not inp.prefill and not inp.tools
    return ThinkingParser(ThinkSection(think_mode(inp, is_on=is_on)), body)


class _Outputs:
    """Drops everything up to the end of the outputs."""

    def __init__(self) -> None:
        self._before = TextBefore((_OUTPUTS_END,), trims=False)

    def push(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Take more text."""
        _, marker, rest = self._before.push(text)
        return [], rest if marker else None

    def finish(self) -> tuple[list[AnswerEvent], str]:
        """The text is over."""
        return [], ""


def _lark(tools: Sequence[Tool], parallel: bool) -> str:
    calls = []
    for tool in tools:
        opening = f"{_CALL}function{_KIND}{tool.name}\n```json\n"
        closing = "\n```" + _CALL_END
        arguments = json_value(parameters_schema(tool))
        calls.append(f"{literal(opening)} {arguments} {literal(closing)}")
    return section_rules(_CALLS, calls, _CALLS_END, parallel=parallel, between=literal("\n"))


parser(
    "cogito",
    ParserFamily(
        make=_make,
        tools=True,
        thinking=True,
        preserved_tokens=(
            "</think>",
            *(_CALLS, _CALLS_END, _CALL, _CALL_END, _KIND, _OUTPUTS, _OUTPUTS_END),
            *("<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"),
        ),
        think_start="<think>",
        think_ends=("</think>",),
        calls=CallSyntax((_CALLS,), _lark),
    ),
)
