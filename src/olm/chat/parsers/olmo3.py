"""olmo3: calls in Python's syntax, one a line, in `<function_calls>`. olmo3-think: thinking up to `</think>`, no tools.

Sources: Ollama `model/parsers/olmo3.go`, `olmo3_think.go`; spec/ollama §10.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from olm.chat.jsontext import compact_json
from olm.chat.parsers.base import CallSyntax, ParseInput, Parser, ParserFamily, parser
from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.lark import json_value, literal
from olm.chat.parsers.kit.mixed import MixedText, section_rules, think_mode
from olm.chat.parsers.kit.python_calls import Begun, Ended, Found, PythonCalls
from olm.chat.parsers.kit.sections import CallReader, TextBefore
from olm.chat.parsers.kit.thinking import ThinkingParser, ThinkSection
from olm.chat.tools import Tool
from olm.chat.types import AnswerEvent

__all__ = ()

_CALLS: Final = "<function_calls>"
_CALLS_END: Final = "</function_calls>"


def _make(inp: ParseInput) -> Parser:
    writer = CallWriter(inp.new_id)

    def open_calls(marker: str) -> CallReader:
        return _Calls(writer)

    return MixedText({_CALLS: open_calls})


def _make_thinking(inp: ParseInput) -> Parser:
    """The prompt opens the thinking whatever is asked, unless an answer is continued."""
    return ThinkingParser(ThinkSection(think_mode(inp, is_on=not inp.prefill)), MixedText({}))


class _Calls:
    """Reads a section of calls. The end tag ends it even within quotes: an open quote must not swallow the answer."""

    def __init__(self, writer: CallWriter) -> None:
        self._writer = writer
        self._calls = PythonCalls()
        self._before = TextBefore((_CALLS_END,), trims=False)

    def push(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Take more text."""
        inside, marker, rest = self._before.push(text)
        events = self._events(self._calls.push(inside))
        if not marker:
            return events, None
        return events + self._events(self._calls.finish()), rest

    def finish(self) -> tuple[list[AnswerEvent], str]:
        """The text is over; calls that are whole have been given out."""
        found = self._calls.push(self._before.finish())
        return self._events([*found, *self._calls.finish()]), ""

    def _events(self, found: Iterable[Found]) -> list[AnswerEvent]:
        events: list[AnswerEvent] = []
        for event in found:
            if isinstance(event, Begun):
                events += self._writer.start(event.name)
            elif isinstance(event, Ended):
                events += self._ended(event)
            else:
                events += self._writer.fail(event.text)
        return events

    def _ended(self, call: Ended) -> list[AnswerEvent]:
        if call.arguments is None:
            return self._writer.fail(call.raw)
        return [*self._writer.arguments(compact_json(call.arguments)), *self._writer.end()]


def _lark(tools: Sequence[Tool], parallel: bool) -> str:
    calls, extra = [], []
    for number, tool in enumerate(tools):
        calls.append(f"{literal(tool.name + '(')} call_{number}_0_first {literal(')')}")
        extra += _argument_rules(number, tool)
    between = literal("\n")
    return section_rules(_CALLS, calls, _CALLS_END, parallel=parallel, between=between, extra=extra)


def _argument_rules(number: int, tool: Tool) -> list[str]:
    """Write rules for arguments in the order of the schema: from each on, with none or some before it."""
    required = tool.parameters.get("required")
    needed = required if isinstance(required, list) else []
    rules: list[str] = []
    for at, (name, schema) in enumerate(tool.properties.items()):
        written = f"{literal(name + '=')} {json_value(schema, tool.parameters)}"
        for place, comma in (("first", ""), ("next", '", " ')):
            skipped = "" if name in needed else f" | call_{number}_{at + 1}_{place}"
            rules.append(
                f"call_{number}_{at}_{place}: {comma}{written} call_{number}_{at + 1}_next{skipped}"
            )
    end = len(tool.properties)
    return [*rules, f'call_{number}_{end}_first: ""', f'call_{number}_{end}_next: ""']


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
