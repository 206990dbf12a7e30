"""Calls that a model writes as Python does, `name(city="Oslo", days=3)`: cut out of a stream and read without `eval`.

Values may be Python's or JSON's (`True` and `true`, `None` and `null`); a bare word is text. Facts are those of Ollama's
`model/parsers/olmo3.go`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from olm.chat.jsontext import compact_json
from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.lark import json_value, literal, members, required_of, section_rules
from olm.chat.parsers.kit.sections import TextBefore
from olm.chat.tools import Tool
from olm.chat.types import AnswerEvent

__all__ = [
    "Begun",
    "Ended",
    "Junk",
    "PythonCalls",
    "PythonSection",
    "python_call_rules",
    "read_arguments",
    "read_calls",
]

_BETWEEN: Final = re.compile(r"[\s,;\[\]]*")
_BLANKS: Final = re.compile(r"\s*")
_NOT_IN_NAME: Final = re.compile(r"[\s()\[\]{},;='\"]")
_TURNS: Final = re.compile(r"[\"'()\[\]{}]")
_IN_QUOTES: Final = {quote: re.compile(rf"\\|{quote}") for quote in "\"'"}
_KEY: Final = re.compile(r"[^\s()\[\]{},;:='\"]+")
_BARE: Final = re.compile(r"[^()\[\]{},\"']+")
_STRING: Final = re.compile(r'"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\'', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPED: Final = {char: char for char in "\\\"'/"} | {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "b": "\b",
    "f": "\f",
    "\n": "",
}
_WORDS: Final = {
    "true": True,
    "True": True,
    "false": False,
    "False": False,
    "null": None,
    "None": None,
    "nil": None,
}
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_INT64_END: Final = 2**63
_MAX_DEPTH: Final = 100
"""No arguments of use are nested deeper, and Python's stack is safe."""


@attrs.frozen
class Begun:
    """A call begins; its name is complete."""

    name: str


@attrs.frozen
class Ended:
    """A call is over. `arguments` is None when they cannot be read; `raw` is the call as it was written."""

    arguments: dict[str, object] | None
    raw: str


@attrs.frozen
class Junk:
    """Text between the calls that is none."""

    text: str


Found = Begun | Ended | Junk


class PythonCalls:
    """Cuts a stream into calls, which stand one a line or in a list. What is found does not depend on the pieces."""

    __slots__ = ("_depth", "_is_escaped", "_is_junk", "_parts", "_quote")

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._depth = 0
        self._quote = ""
        self._is_escaped = self._is_junk = False

    def push(self, text: str) -> list[Found]:
        """Take more text."""
        found: list[Found] = []
        at = 0
        while at < len(text):
            if self._depth:
                at = self._take_arguments(text, at, found)
            elif self._is_junk:
                at = self._take_junk(text, at, found)
            else:
                at = self._take_name(text, at, found)
        return found

    def finish(self) -> list[Found]:
        """The text is over: what has begun cannot be read any more."""
        rest, self._parts = "".join(self._parts), []
        is_call, self._depth, self._quote = self._depth > 0, 0, ""
        self._is_escaped = self._is_junk = False
        if is_call:
            return [Ended(None, rest)]
        return [Junk(rest)] if rest else []

    def _take_name(self, text: str, at: int, found: list[Found]) -> int:
        if not self._parts:
            at = _end(_BETWEEN, text, at)
        stop = _NOT_IN_NAME.search(text, at)
        end = stop.start() if stop else len(text)
        if end > at:
            self._parts.append(text[at:end])
        if stop is None:
            return end
        if stop[0] == "(" and self._parts:
            found.append(Begun("".join(self._parts)))
            self._parts.append("(")
            self._depth = 1
            return stop.end()
        found += [Junk("".join(self._parts))] if self._parts else []
        self._parts, self._is_junk = [], True
        return end

    def _take_junk(self, text: str, at: int, found: list[Found]) -> int:
        """Whatever is no call spoils the rest of its line."""
        end = text.find("\n", at)
        self._is_junk = end < 0
        end = len(text) if end < 0 else end
        if end > at:
            found.append(Junk(text[at:end]))
        return end

    def _take_arguments(self, text: str, start: int, found: list[Found]) -> int:
        at = start
        while self._depth and at < len(text):
            if self._is_escaped:
                self._is_escaped, at = False, at + 1
                continue
            turn = (_IN_QUOTES[self._quote] if self._quote else _TURNS).search(text, at)
            at = turn.end() if turn else len(text)
            if turn:
                self._turn(turn[0])
        self._parts.append(text[start:at])
        if not self._depth:
            raw, self._parts = "".join(self._parts), []
            found.append(Ended(read_arguments(raw[raw.index("(") + 1 : -1]), raw))
        return at

    def _turn(self, char: str) -> None:
        if self._quote:
            self._is_escaped = char == "\\"
            self._quote = self._quote if self._is_escaped else ""
        elif char in "\"'":
            self._quote = char
        else:
            self._depth += 1 if char in "([{" else -1


class PythonSection:
    """Reads a section of such calls. Its `end` ends it even within quotes: an open quote must not swallow the answer.

    A call that cannot be read fails alone, without the section's markers, as in Ollama.
    """

    def __init__(self, writer: CallWriter, end: str) -> None:
        self._writer = writer
        self._calls = PythonCalls()
        self._before = TextBefore((end,), trims=False)

    def push(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Take more text."""
        inside, marker, rest = self._before.push(text)
        events = self._events(self._calls.push(inside))
        if not marker:
            return events, None
        events += self._events(self._calls.finish())
        return events, rest

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


def read_calls(text: str) -> list[tuple[str, dict[str, object]]] | None:
    """Read the calls of a whole text; None when there is anything else in it."""
    calls = PythonCalls()
    read: list[tuple[str, dict[str, object]]] = []
    name = ""
    for event in [*calls.push(text), *calls.finish()]:
        if isinstance(event, Begun):
            name = event.name
        elif isinstance(event, Ended) and event.arguments is not None:
            read.append((name, event.arguments))
        else:
            return None
    return read


def read_arguments(text: str) -> dict[str, object] | None:
    """Read what stands between a call's parentheses; None when it is not `name=value, …`."""
    try:
        return _Literals(text).arguments()
    except _UnreadableError:
        return None


class _UnreadableError(Exception):
    """The text is no literal; caught above, never seen by callers."""


class _Literals:
    """Reads a text from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def arguments(self) -> dict[str, object]:
        found: dict[str, object] = {}
        while self._peek():
            key = self._take(_KEY)
            self._expect("=")
            found[key] = self._value(0)
            self._expect_comma_or("")
        return found

    def _value(self, depth: int) -> object:
        if depth > _MAX_DEPTH:
            raise _UnreadableError
        if self._accept("["):
            return self._items("]", depth + 1)
        if self._accept("("):
            return self._items(")", depth + 1)
        if self._accept("{"):
            return self._entries(depth + 1)
        if self._peek() in {'"', "'"}:
            return self._string()
        return _plain(self._take(_BARE).rstrip())

    def _items(self, end: str, depth: int) -> list[object]:
        items: list[object] = []
        while not self._accept(end):
            items.append(self._value(depth))
            self._expect_comma_or(end)
        return items

    def _entries(self, depth: int) -> dict[str, object]:
        entries: dict[str, object] = {}
        while not self._accept("}"):
            key = self._string() if self._peek() in {'"', "'"} else self._take(_KEY)
            self._expect(":")
            entries[key] = self._value(depth)
            self._expect_comma_or("}")
        return entries

    def _string(self) -> str:
        text = self._take(_STRING)[1:-1]
        if "\\" in text:
            # \u escapes may be halves of a pair; what stays alone is not writable as UTF-8.
            raw = _ESCAPE.sub(_unescaped, text).encode("utf-16", "surrogatepass")
            return raw.decode("utf-16", "replace")
        return text

    def _peek(self) -> str:
        self._at = _end(_BLANKS, self._text, self._at)
        return self._text[self._at : self._at + 1]

    def _accept(self, char: str) -> bool:
        is_there = self._peek() == char
        self._at += is_there
        return is_there

    def _expect(self, char: str) -> None:
        if not self._accept(char):
            raise _UnreadableError

    def _expect_comma_or(self, end: str) -> None:
        if self._peek() != end:
            self._expect(",")

    def _take(self, pattern: re.Pattern[str]) -> str:
        self._peek()
        found = pattern.match(self._text, self._at)
        if found is None:
            raise _UnreadableError
        self._at = found.end()
        return found[0]


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    assert found is not None, "the pattern matches the empty text, too"
    return found.end()


def _unescaped(escape: re.Match[str]) -> str:
    char = escape[1]
    if len(char) > 1:
        return chr(int(char[1:], 16))
    return _ESCAPED.get(char, escape[0])


def _plain(word: str) -> object:
    if not word:
        raise _UnreadableError
    if word in _WORDS:
        return _WORDS[word]
    if _INTEGER.fullmatch(word) and -_INT64_END <= int(word) < _INT64_END:
        return int(word)
    if _NUMBER.fullmatch(word) and math.isfinite(number := float(word)):
        return number
    return word


def python_call_rules(
    tools: Sequence[Tool], begin: str, end: str, *, parallel: bool, between: str
) -> str:
    """Write the grammar of such calls in a section: arguments in the order of the schema, their values as JSON.

    Args:
        begin, end: what stands around the calls, as text.
        between: an expression that stands between two calls.
    """
    rules: list[str] = []
    calls = []
    for tool in tools:
        needed = required_of(tool.parameters)
        written = [
            f"{literal(name + '=')} {json_value(schema, tool.parameters)}"
            for name, schema in tool.properties.items()
        ]
        arguments = members(rules, written, [name in needed for name in tool.properties], "/, ?/")
        calls.append(f'{literal(tool.name + "(")} {arguments} ")"')
    return section_rules(
        literal(begin), calls, literal(end), parallel=parallel, between=between, extra=rules
    )
