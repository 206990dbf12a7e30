"""Answers of Liquid's LFM2: `<|tool_call_start|>[f(a="v"), g()]<|tool_call_end|>`, for `lfm2-thinking` with `<think>` before.

The list may also be JSON. As in Ollama's `model/parsers/lfm2.go`, an answer that is nothing but calls of known tools
without the markers is taken for them. Strings are read with their escapes, so that what the renderer writes comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from olm.chat.jsontext import compact_json
from olm.chat.parsers.base import CallSyntax, ParseInput, Parser, ParserFamily, parser
from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.json_calls import JsonCalls
from olm.chat.parsers.kit.kept_text import ContentWithCalls
from olm.chat.parsers.kit.lark import call_rules, json_value, literal
from olm.chat.parsers.kit.member_rules import members
from olm.chat.parsers.kit.python_calls import Begun, Ended, Found, PythonCalls, read_calls
from olm.chat.parsers.kit.sections import CallReader, TextBefore
from olm.chat.parsers.kit.thinking import ThinkingParser, ThinkSection
from olm.chat.tools import Tool
from olm.chat.types import AnswerEvent

__all__ = ()

_CALLS: Final = "<|tool_call_start|>"
_CALLS_END: Final = "<|tool_call_end|>"
_THINK: Final = "<think>"
_THINK_END: Final = "</think>"


class _Section:
    """Reads a section of calls, whose first characters show whether it is Python or JSON."""

    def __init__(self, writer: CallWriter) -> None:
        self._writer = writer
        self._held = ""
        self._reader: CallReader | None = None

    def push(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Take more text: events, and the text behind the section or None."""
        if self._reader is None:
            self._held += text
            first = "".join(self._held.split())[:2]
            if first in {"", "["}:
                return [], None
            self._choose(is_json=first[0] == "{" or first == "[{")
            text = self._held
        assert self._reader is not None, "it has been chosen"
        return self._reader.push(text)

    def finish(self) -> tuple[list[AnswerEvent], str]:
        """The text is over."""
        if self._reader is None:
            return self._writer.fail(_CALLS + self._held), ""
        return self._reader.finish()

    def _choose(self, *, is_json: bool) -> None:
        self._reader = (
            JsonCalls(self._writer, _CALLS, _CALLS_END, is_array=True)
            if is_json
            else _PythonSection(self._writer)
        )


class _PythonSection:
    """Reads a section of Python calls. Each that cannot be read fails alone."""

    def __init__(self, writer: CallWriter) -> None:
        self._writer = writer
        self._calls = PythonCalls()
        self._before = TextBefore((_CALLS_END,), trims=False)

    def push(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Take more text: events, and the text behind the section or None."""
        part, marker, rest = self._before.push(text)
        events = self._events(self._calls.push(part))
        if not marker:
            return events, None
        return [*events, *self._events(self._calls.finish())], rest

    def finish(self) -> tuple[list[AnswerEvent], str]:
        """The text is over: the calls that are closed count, though the section is not."""
        found = [*self._calls.push(self._before.finish()), *self._calls.finish()]
        return self._events(found), ""

    def _events(self, found: Sequence[Found]) -> list[AnswerEvent]:
        events: list[AnswerEvent] = []
        for item in found:
            if isinstance(item, Begun):
                events += self._writer.start(item.name)
            elif not isinstance(item, Ended):
                events += self._writer.fail(item.text)
            elif item.arguments is None:
                events += self._writer.fail(item.raw)
            else:
                events += self._writer.arguments(compact_json(item.arguments))
                events += self._writer.end()
        return events


class _BareCalls:
    """Holds back an answer as long as it may be nothing but calls of known tools; anything else goes on to `body`."""

    def __init__(self, body: Parser, writer: CallWriter, names: Sequence[str]) -> None:
        self._body, self._writer, self._names = body, writer, frozenset(names)
        self._beginnings = tuple(f"{opening}{name}(" for name in names for opening in ("", "["))
        self._held: list[str] | None = [] if names else None
        self._calls = PythonCalls()
        self._has_text = self._has_begun = False

    def push(self, text: str) -> list[AnswerEvent]:
        """Take more of the answer."""
        if self._held is None:
            return self._body.push(text)
        self._held.append(text)
        if self._has_begun:
            return [] if self._may_go_on(text) else self._release()
        if text.isspace() and not self._has_text:
            return []
        self._has_text = True
        whole = "".join(self._held).lstrip()
        if whole.startswith(self._beginnings):
            self._has_begun = True
            return [] if self._may_go_on(whole) else self._release()
        may_begin = any(beginning.startswith(whole) for beginning in self._beginnings)
        return [] if may_begin else self._release()

    def finish(self) -> list[AnswerEvent]:
        """The answer is over."""
        calls = read_calls("".join(self._held or [])) or []
        if calls and all(name in self._names for name, _ in calls):
            return [
                event
                for name, arguments in calls
                for event in self._writer.whole(name, compact_json(arguments))
            ]
        released = self._release() if self._held else []
        return [*released, *self._body.finish()]

    def _may_go_on(self, text: str) -> bool:
        return all(
            item.arguments is not None
            if isinstance(item, Ended)
            else isinstance(item, Begun) and item.name in self._names
            for item in self._calls.push(text)
        )

    def _release(self) -> list[AnswerEvent]:
        held, self._held = "".join(self._held or []), None
        return self._body.push(held)


class _WithoutStartBlanks:
    """Drops white space at the beginning of the content, which models write where they might have thought."""

    def __init__(self, body: Parser) -> None:
        self._body = body
        self._is_start = True

    def push(self, text: str) -> list[AnswerEvent]:
        """Take more of the content."""
        if self._is_start:
            text = text.lstrip()
            self._is_start = not text
        return self._body.push(text) if text else []

    def finish(self) -> list[AnswerEvent]:
        """The content is over."""
        return self._body.finish()


def _make(given: ParseInput) -> Parser:
    writer = CallWriter(given.new_id)
    content = ContentWithCalls((_CALLS,), lambda _: _Section(writer))
    names = () if given.prefill else tuple(tool.name for tool in given.tools)
    return _BareCalls(content, writer, names)


def _make_thinking(given: ParseInput) -> Parser:
    body = _make(given)
    if not given.think or given.prefill:
        return body
    section = ThinkSection("maybe", start=_THINK, ends=(_THINK_END,))
    return ThinkingParser(section, _WithoutStartBlanks(body))


def _lark(tools: Sequence[Tool], parallel: bool) -> str:
    rules: list[str] = []
    calls = []
    for tool in tools:
        required = tool.parameters.get("required")
        needed = set(required) if isinstance(required, list) else set()
        written = [
            f"{literal(name + '=')} {json_value(schema, tool.parameters)}"
            for name, schema in tool.properties.items()
        ]
        arguments = members(rules, written, [name in needed for name in tool.properties], "/, ?/")
        calls.append(f'{literal(tool.name + "(")} {arguments} ")"')
    text = call_rules(calls, parallel=parallel, between="/, ?/", extra=rules)
    whole = f'calls: {literal(_CALLS)} "[" call_list "]" {literal(_CALLS_END)}\n'
    return whole + "call_list" + text.removeprefix("calls")


_SYNTAX: Final = CallSyntax((_CALLS,), _lark)

parser(
    "lfm2",
    ParserFamily(make=_make, tools=True, preserved_tokens=(_CALLS, _CALLS_END), calls=_SYNTAX),
)
parser(
    "lfm2-thinking",
    ParserFamily(
        make=_make_thinking,
        tools=True,
        thinking=True,
        preserved_tokens=(_CALLS, _CALLS_END, _THINK, _THINK_END),
        think_start=_THINK,
        think_ends=(_THINK_END,),
        calls=_SYNTAX,
    ),
)
