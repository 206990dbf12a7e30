"""Calls whose name stands before their arguments in JSON, as DeepSeek, Cogito and Ministral write them.

The arguments are passed on literally while they come, and checked when they end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

import attrs

from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.json_span import JsonSpan, object_or_none
from olm.chat.parsers.kit.sections import TextBefore
from olm.chat.types import AnswerEvent

__all__ = ["NamedJson", "NamedJsonCalls"]

_BLANKS: Final = " \t\r\n"
_MAX_NAME: Final = 256
"""Longer than any name."""


@attrs.frozen(kw_only=True)
class NamedJson:
    """How a family writes such calls: `[begin][kind]NAME[divider]{…}[fence][end]`.

    Attributes:
        begin, end: around each call; empty when the section is one call.
        section_end: what closes the section of several calls.
        kind: what must stand before the name, with anything in front of it; may be empty.
        divider: between name and arguments.
        fence: what may stand between arguments and end.
    """

    divider: str
    begin: str = ""
    end: str = ""
    section_end: str = ""
    kind: str = ""
    fence: str = ""


class NamedJsonCalls:
    """Reads a section of such calls.

    A call that cannot be read fails, markers included; those beside it are not touched. A missing end is forgiven where
    the arguments are whole.

    Args:
        marker: what opened the section.
        known: the names that are calls; None for all.
    """

    def __init__(
        self,
        writer: CallWriter,
        syntax: NamedJson,
        marker: str,
        *,
        known: Collection[str] | None = None,
    ) -> None:
        self._writer, self._syntax, self._known = writer, syntax, known
        self._ends = tuple(end for end in (syntax.end, syntax.section_end) if end)
        self._events: list[AnswerEvent] = []
        self._raw: list[str] = []
        """The text of the call so far, should it have to be given back."""
        self._value: list[str] = []
        self._span = JsonSpan()
        self._is_over = False
        self._step: Callable[[str], str]
        self._before: TextBefore
        if syntax.begin:
            self._expect_call()
        else:
            self._begin_call(marker)

    def push(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Take more text: events, and the text behind the section or None."""
        self._events = []
        rest = text
        while rest and not self._is_over:
            rest = self._step(rest)
        return self._events, rest if self._is_over else None

    def finish(self) -> tuple[list[AnswerEvent], str]:
        """The text is over."""
        self._events = []
        held = self._before.finish() if self._step != self._in_arguments else ""
        if self._raw:
            self._raw.append(held)
            self._fail()
        else:
            self._give_junk(held)
        return self._events, ""

    # Each step takes text and returns what the next one goes on with.

    def _expect_call(self) -> None:
        self._step = self._between
        skipped = (self._syntax.fence,) if self._syntax.fence else ()
        self._before = TextBefore((self._syntax.begin, *self._ends, *skipped))

    def _between(self, text: str) -> str:
        junk, marker, rest = self._before.push(text)
        self._give_junk(junk)
        if marker == self._syntax.section_end:
            self._is_over = True
        elif marker == self._syntax.begin:
            self._begin_call(marker)
        return rest

    def _give_junk(self, text: str) -> None:
        if text.strip():
            self._events += self._writer.fail(text)

    def _begin_call(self, marker: str) -> None:
        self._raw, self._value = [marker], []
        self._step = self._in_name
        self._before = TextBefore((self._syntax.divider, *self._ends), trims=False)

    def _in_name(self, text: str) -> str:
        part, marker, rest = self._before.push(text)
        self._raw += [part, marker]
        self._value.append(part)
        if not self._ends and len("".join(self._value)) > _MAX_NAME:
            # Nothing would end it: the marker is text, and what stands behind it is read again.
            self._events += self._writer.fail(self._raw[0])
            self._is_over = True
            return "".join(self._raw[1:]) + (rest or self._before.finish())
        if not marker:
            return rest
        before, kind, name = "".join(self._value).rpartition(self._syntax.kind or "\0")
        name, is_good = name.strip(), bool(kind) or not (self._syntax.kind or before)
        is_good = is_good and bool(name) and (self._known is None or name in self._known)
        if marker != self._syntax.divider:
            self._end_broken(marker)
        elif is_good:
            self._events += self._writer.start(name)
            self._value, self._span = [], JsonSpan()
            self._step = self._in_arguments
        else:
            self._break()
        return rest

    def _in_arguments(self, text: str) -> str:
        if not self._value:
            inner = text.lstrip(_BLANKS)
            self._raw.append(text[: len(text) - len(inner)])
            text = inner
            if not text:
                return ""
            if text[0] != "{":
                self._break()
                return text
        end = self._span.push(text)
        part = text if end < 0 else text[:end]
        self._raw.append(part)
        self._value.append(part)
        if self._writer.is_open:
            self._events += self._writer.arguments(part)
        if end < 0:
            return ""
        if object_or_none("".join(self._value)) is None:
            self._break()
        else:
            self._events += self._writer.end()
            self._end_call()
        return text[end:]

    def _end_call(self) -> None:
        self._raw = []
        if self._syntax.begin:
            self._expect_call()
        else:
            self._is_over = True

    def _break(self) -> None:
        """Give the call up: with its end marker if it has one, else at once."""
        self._step, self._before = self._in_broken, TextBefore(self._ends, trims=False)
        if not self._ends:
            self._fail()
            self._is_over = True

    def _in_broken(self, text: str) -> str:
        part, marker, rest = self._before.push(text)
        self._raw += [part, marker]
        if marker:
            self._end_broken(marker)
        return rest

    def _end_broken(self, marker: str) -> None:
        self._fail()
        if marker == self._syntax.section_end:
            self._is_over = True
        else:
            self._expect_call()

    def _fail(self) -> None:
        self._events += self._writer.fail("".join(self._raw))
        self._raw = []
