"""Calls in Gemma's syntax, `call:NAME{…}` between markers, as sections of an answer. Their arguments: `gemma_arguments`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.coerce import allowed_types
from olm.chat.parsers.kit.gemma_arguments import GemmaArguments
from olm.chat.parsers.kit.sections import TextBefore
from olm.chat.tools import Tool
from olm.chat.types import AnswerEvent

__all__ = ["GemmaCall", "GemmaSyntax"]

_HEAD: Final = re.compile(r"\s*call:([^{<\n]*)([{<\n]?)")
_START: Final = "call:"
_MAX_HEAD: Final = 256


@attrs.frozen(kw_only=True)
class GemmaSyntax:
    """How a family writes calls.

    Attributes:
        begin, end: the markers around a call.
        quote: the delimiter of strings.
        noise: markers that are dropped behind a call, besides `end`.
        is_bare_text: whether a bare word is a string.
    """

    begin: str
    end: str
    quote: str
    noise: tuple[str, ...] = ()
    is_bare_text: bool = False


class GemmaCall:
    """Reads one call, from behind its first marker. A missing end marker is forgiven where the object is whole."""

    def __init__(self, syntax: GemmaSyntax, writer: CallWriter, tools: Sequence[Tool]) -> None:
        self._syntax, self._writer = syntax, writer
        self._tools = {tool.name: tool for tool in tools}
        self._events: list[AnswerEvent] = []
        self._raw = [syntax.begin]
        self._held = ""
        self._step: Callable[[str], str | None] = self._in_head
        self._arguments: GemmaArguments
        self._before = TextBefore((syntax.end, syntax.begin), trims=False)

    def push(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Take more text: events, and the text behind the call or None."""
        self._events = []
        self._raw.append(text)
        return self._events, self._step(text)

    def finish(self) -> tuple[list[AnswerEvent], str]:
        """The text is over: what is whole or can be repaired is a call, the rest fails."""
        self._events = []
        if self._step == self._behind:
            return [], ""  # at most the beginning of a marker that would have been dropped
        if self._step == self._in_arguments:
            self._events += self._writer.arguments(self._arguments.finish())
            if self._arguments.state == "done":
                self._events += self._writer.end()
                return self._events, self._without_noise(self._arguments.rest)
        return [*self._events, *self._writer.fail("".join(self._raw))], ""

    # Each step takes text and returns what follows the call, or None while it goes on.

    def _in_head(self, text: str) -> str | None:
        self._held += text
        found = _HEAD.match(self._held)
        if found is None:
            is_beginning = _START.startswith(self._held.lstrip())
            return None if is_beginning else self._break(self._held)
        name, end = found[1].strip(), found[2]
        if not end and len(self._held) <= _MAX_HEAD:
            return None
        if end != "{" or not name or found.end() > _MAX_HEAD:
            return self._break(self._held)
        self._events += self._writer.start(name)
        self._arguments = self._new_arguments(name)
        self._step, rest, self._held = self._in_arguments, self._held[found.end() - 1 :], ""
        return self._in_arguments(rest)

    def _new_arguments(self, name: str) -> GemmaArguments:
        tool = self._tools.get(name)
        properties = tool.properties if tool else {}
        texts = [key for key, schema in properties.items() if "string" in allowed_types(schema)]
        return GemmaArguments(
            self._syntax.quote,
            self._syntax.end,
            texts=texts,
            keys=properties,
            is_bare_text=self._syntax.is_bare_text,
        )

    def _in_arguments(self, text: str) -> str | None:
        self._events += self._writer.arguments(self._arguments.push(text))
        if self._arguments.state == "open":
            return None
        rest = self._arguments.rest
        if self._arguments.state == "broken":
            return self._break(rest)
        self._events += self._writer.end()
        self._step = self._behind
        return self._behind(rest)

    def _break(self, rest: str) -> str | None:
        self._step, self._held = self._broken, ""
        return self._broken(rest)

    def _broken(self, text: str) -> str | None:
        """Wait for the call's end or the next one's beginning, with which all of it is given up."""
        _, marker, rest = self._before.push(text)
        if not marker:
            return None
        if marker == self._syntax.begin:
            rest = marker + rest
        raw = "".join(self._raw)
        self._events += self._writer.fail(raw[: len(raw) - len(rest)])
        self._step = self._behind
        return self._behind(rest)

    def _behind(self, text: str) -> str | None:
        """Drop the end marker and what models write after it by mistake."""
        text = self._without_noise(self._held + text)
        self._held = ""
        if any(mark.startswith(text) for mark in self._noise):
            self._held = text
            return None
        return text

    @property
    def _noise(self) -> tuple[str, ...]:
        return (self._syntax.end, *self._syntax.noise)

    def _without_noise(self, text: str) -> str:
        while True:
            text = text.lstrip()
            found = next((mark for mark in self._noise if text.startswith(mark)), "")
            if not found:
                return text
            text = text[len(found) :]
