"""Answers that are text with sections in it: text up to a marker, and calls amid content. What stands in a section is
a `CallReader`'s business (`json_calls`, `xml_calls`, …).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from olm.chat.parsers.kit.scan import find_first, held_back
from olm.chat.types import AnswerEvent, Piece

__all__ = ["CallReader", "TextBefore", "TextWithCalls"]


class TextBefore:
    """Gives out text up to the first of some markers, and holds back what may yet become one.

    With `trims`, white space before a marker and at the end of the text is dropped, so it is held back, too. No marker
    may be the beginning of another one or end in white space.
    """

    __slots__ = ("_held", "_markers", "_trims")

    def __init__(self, markers: Sequence[str], *, trims: bool = True) -> None:
        self._markers = tuple(markers)
        self._trims = trims
        self._held: list[str] = []

    def push(self, text: str) -> tuple[str, str, str]:
        """Take more text: returns what can be given out, the marker that ends it or "", and the text behind the marker."""
        if self._trims and text.isspace():
            self._held.append(
                text
            )  # not joined, so that a long run of blanks costs no more for each
            return "", "", ""
        whole = "".join((*self._held, text))
        at, marker = find_first(whole, self._markers)
        if marker:
            self._held = []
            return self._trimmed(whole[:at]), marker, whole[at + len(marker) :]
        given = self._trimmed(whole[: len(whole) - held_back(whole, self._markers)])
        self._held = [whole[len(given) :]]
        return given, "", ""

    def finish(self) -> str:
        """Give out what was held back; no marker will come."""
        rest, self._held = "".join(self._held), []
        return self._trimmed(rest)

    def _trimmed(self, text: str) -> str:
        return text.rstrip() if self._trims else text


class CallReader(Protocol):
    """Reads one section of calls, from behind the marker that opened it."""

    def push(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Take more text: events, and the text behind the section; None while it goes on."""

    def finish(self) -> tuple[list[AnswerEvent], str]:
        """The text is over: the last events, and text that is to be read again, as it turned out not to belong here.

        That text is shorter than what was pushed."""


class TextWithCalls:
    """A parser of content with sections of calls in it. White space around sections is dropped.

    Args:
        markers: what opens a section.
        open_section: given the marker, makes a reader.
    """

    __slots__ = ("_before", "_is_behind_call", "_open_section", "_reader")

    def __init__(self, markers: Sequence[str], open_section: Callable[[str], CallReader]) -> None:
        self._before = TextBefore(markers)
        self._open_section = open_section
        self._reader: CallReader | None = None
        self._is_behind_call = False

    def push(self, text: str) -> list[AnswerEvent]:
        """Take more of the answer."""
        events: list[AnswerEvent] = []
        rest: str | None = text
        while rest is not None:
            if self._reader is None:
                rest = self._push_content(rest, events)
            if self._reader is not None and rest is not None:
                more, rest = self._reader.push(rest)
                events += more
                if rest is not None:
                    self._reader, self._is_behind_call = None, True
        return events

    def _push_content(self, text: str, events: list[AnswerEvent]) -> str | None:
        """Take content: returns what stands behind the marker of a section, for whom there is a reader now, or None."""
        if self._is_behind_call:
            text = text.lstrip()
            self._is_behind_call = not text
        content, marker, rest = self._before.push(text)
        if content:
            events.append(Piece(content=content))
        if not marker:
            return None
        self._reader = self._open_section(marker)
        return rest

    def finish(self) -> list[AnswerEvent]:
        """The answer is over."""
        events: list[AnswerEvent] = []
        while self._reader is not None:
            more, rest = self._reader.finish()
            self._reader, self._is_behind_call = None, True
            events += more
            events += self.push(rest)
        content = self._before.finish()
        return [*events, Piece(content=content)] if content else events
