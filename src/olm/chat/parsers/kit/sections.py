"""Answers that are text with sections in it: text up to a marker, and content amid which calls, thoughts or notes stand.

What stands in a section of calls is a `SectionReader`'s business (`json_calls`, `xml_calls`, …).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

from olm.chat.parsers.kit.scan import find_first, held_back
from olm.chat.types import AnswerEvent, CallArguments, CallEnd, Piece, ToolCall

__all__ = ["SectionReader", "TextBefore", "TextSection", "TextWithSections"]


class TextBefore:
    """Gives out text up to the first of some markers, and holds back what may yet become one.

    With `trims`, white space before a marker and at the end of the text is dropped, so it is held back, too. No marker
    may be the beginning of another one or end in white space.
    """

    __slots__ = ("_firsts", "_held", "_markers", "_trims")

    def __init__(self, markers: Sequence[str], *, trims: bool = True) -> None:
        self._markers = tuple(markers)
        self._firsts = frozenset(marker[0] for marker in markers)
        self._trims = trims
        self._held: list[str] = []

    def push(self, text: str) -> tuple[str, str, str]:
        """Take more text: returns what can be given out, the marker that ends it or "", and the text behind the marker."""
        if (
            not self._held
            and self._firsts.isdisjoint(text)
            and not (self._trims and text[-1:].isspace())
        ):
            return text, "", ""  # most of an answer
        if self._trims and text.isspace():
            # Not joined, so that a long run of blanks costs no more for each.
            self._held.append(text)
            return "", "", ""
        whole = "".join((*self._held, text))
        at, marker = find_first(whole, self._markers)
        if marker:
            self._held = []
            return self._trimmed(whole[:at]), marker, whole[at + len(marker) :]
        given = self._trimmed(whole[: len(whole) - held_back(whole, self._markers)])
        self._held = [whole[len(given) :]] if len(given) < len(whole) else []
        return given, "", ""

    def finish(self) -> str:
        """Give out what was held back; no marker will come."""
        rest, self._held = "".join(self._held), []
        return self._trimmed(rest)

    def _trimmed(self, text: str) -> str:
        return text.rstrip() if self._trims else text


class SectionReader(Protocol):
    """Reads one section, from behind the marker that opened it."""

    def push(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Take more text: events, and the text behind the section; None while it goes on."""

    def finish(self) -> tuple[list[AnswerEvent], str]:
        """The text is over: the last events, and text that is to be read again, as it turned out not to belong here.

        That text is shorter than what was pushed."""


class TextSection:
    """Reads a section that is nothing but text, up to the first of its `ends`.

    Args:
        kind: what the text is; None drops it.
        drops: where its white space is dropped.
        cuts: markers that end it as well, but belong to what follows.
    """

    __slots__ = ("_before", "_cuts", "_drops_start", "_kind")

    def __init__(
        self,
        ends: Sequence[str],
        kind: Literal["content", "thinking"] | None,
        *,
        drops: Sequence[Literal["start", "end"]] = (),
        cuts: Sequence[str] = (),
    ) -> None:
        self._kind, self._cuts = kind, frozenset(cuts)
        self._before = TextBefore((*ends, *cuts), trims="end" in drops)
        self._drops_start = "start" in drops

    def push(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Take more text: events, and the text behind the section or None."""
        if self._drops_start:
            text = text.lstrip()
            self._drops_start = not text
        inside, marker, rest = self._before.push(text)
        behind = marker + rest if marker in self._cuts else rest
        return self._given(inside), behind if marker else None

    def finish(self) -> tuple[list[AnswerEvent], str]:
        """The text is over, and so is the section."""
        return self._given(self._before.finish()), ""

    def _given(self, text: str) -> list[AnswerEvent]:
        if not text or self._kind is None:
            return []
        return [Piece(content=text) if self._kind == "content" else Piece(thinking=text)]


class TextWithSections:
    """A parser of content with sections in it.

    What a section gives as content, as one does that turns out to be no call, is content like any other. A section that
    gives nothing leaves the white space before it.

    Args:
        openers: by the marker that opens a section, what makes its reader.
        drops: where white space is dropped: at the `start` of the content, `before` sections, `behind` them, at the `end`.
        opened: a section that the prompt has opened already.
    """

    __slots__ = ("_before", "_drops", "_is_content", "_is_eating", "_openers", "_reader", "_space")

    def __init__(
        self,
        openers: Mapping[str, Callable[[str], SectionReader]],
        *,
        drops: Sequence[Literal["start", "before", "behind", "end"]] = (),
        opened: SectionReader | None = None,
    ) -> None:
        self._openers, self._drops, self._reader = openers, frozenset(drops), opened
        self._before = TextBefore(tuple(openers), trims=False)
        self._is_eating = "start" in drops
        self._is_content = False
        """Whether what the open section gave last is content."""
        self._space: list[str] = []
        """White space at the end of the content so far, which may have to be dropped."""

    def push(self, text: str) -> list[AnswerEvent]:
        """Take more of the answer."""
        events: list[AnswerEvent] = []
        rest: str | None = text
        while rest is not None:
            if self._reader is None:
                content, marker, rest = self._before.push(rest)
                self._give(content, events)
                if not marker:
                    break
                self._reader = self._openers[marker](marker)
            more, rest = self._reader.push(rest)
            self._take(more, events)
            if rest is not None:
                self._end_section()
        return events

    def finish(self) -> list[AnswerEvent]:
        """The answer is over."""
        events: list[AnswerEvent] = []
        while self._reader is not None:
            more, rest = self._reader.finish()
            self._take(more, events)
            self._end_section()
            events += self.push(rest)
        self._give(self._before.finish(), events)
        if "end" not in self._drops:
            self._give_space(events)
        return events

    def _give(self, text: str, events: list[AnswerEvent]) -> None:
        """Give content out, but for white space at its end if that may have to be dropped."""
        if self._is_eating:
            text = text.lstrip()
            self._is_eating = not text
        if not text:
            return
        if "before" in self._drops:
            body = text.rstrip()
            if not body:
                self._space.append(text)
                return
            held = [text[len(body) :]] if len(body) < len(text) else []
            text, self._space = "".join((*self._space, body)), held
        events.append(Piece(content=text))

    def _give_space(self, events: list[AnswerEvent]) -> None:
        if self._space:
            events.append(Piece(content="".join(self._space)))
            self._space = []

    def _take(self, more: list[AnswerEvent], events: list[AnswerEvent]) -> None:
        """Take what a section gives. Until a call has ended it may yet turn out to be content."""
        for event in more:
            match event:
                case CallArguments():
                    pass
                case Piece(malformed=True):
                    self._give_space(events)
                    self._is_content, self._is_eating = True, False
                case Piece(content=content) if content:
                    self._give(content, events)
                    self._is_content = True
                    continue
                case Piece() | CallEnd(call=ToolCall()):
                    self._space = []
                    self._is_content, self._is_eating = False, "behind" in self._drops
                case _:
                    pass
            events.append(event)

    def _end_section(self) -> None:
        if not self._is_content:
            self._is_eating = self._is_eating or "behind" in self._drops
        self._reader, self._is_content = None, False
