"""Content with sections in it of more kinds than calls, for families that `sections.TextWithCalls` does not fit: sections
that turn out to be content, or whose surroundings keep their white space. And how an answer of theirs begins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from olm.chat.parsers.base import ParseInput
from olm.chat.parsers.kit.lark import call_rules, literal
from olm.chat.parsers.kit.scan import trailing_space
from olm.chat.parsers.kit.sections import CallReader, TextBefore
from olm.chat.types import AnswerEvent, Piece

__all__ = ["MixedText", "section_rules", "think_mode"]


def think_mode(
    inp: ParseInput, *, is_on: bool, start: str = "<think>"
) -> Literal["open", "maybe", "closed"]:
    """Say how an answer begins, as `thinking.ThinkSection` wants it.

    The end of the prompt knows best: a renderer need not open the thinking after a tool's result, say, even if it is on.
    Without a prompt, `is_on` decides.
    """
    if inp.prompt:
        is_open = inp.prompt.rstrip().endswith(start)
        return "open" if is_open else "maybe" if is_on else "closed"
    return "open" if is_on else "closed"


def section_rules(
    begin: str,
    calls: Sequence[str],
    end: str,
    *,
    parallel: bool,
    between: str = "",
    extra: Sequence[str] = (),
) -> str:
    """Write the rule `calls` as `grammar.call_rules` does, for calls that stand in one section between two markers."""
    listed = call_rules(calls, parallel=parallel, between=between, extra=extra)
    section = f"calls: {literal(begin)} call_list {literal(end)}\n"
    return section + listed.replace("calls:", "call_list:", 1)


class MixedText:
    """A parser of content with sections in it.

    Args:
        openers: by the marker that opens a section, what makes its reader.
        trims: drop white space at both ends and around sections. A section that gives content is none in this respect.
    """

    __slots__ = ("_before", "_eats_space", "_openers", "_reader", "_space", "_trims")

    def __init__(
        self, openers: Mapping[str, Callable[[str], CallReader]], *, trims: bool = False
    ) -> None:
        self._openers = openers
        self._trims = self._eats_space = trims
        self._before = TextBefore(tuple(openers), trims=False)
        self._reader: CallReader | None = None
        self._space: list[str] = []

    def push(self, text: str) -> list[AnswerEvent]:
        """Take more of the answer."""
        events: list[AnswerEvent] = []
        rest: str | None = text
        while rest is not None:
            if self._reader is None:
                rest = self._push_content(rest, events)
            if self._reader is not None and rest is not None:
                more, rest = self._reader.push(rest)
                self._take(more, events)
                if rest is not None:
                    self._reader = None
        return events

    def finish(self) -> list[AnswerEvent]:
        """The answer is over."""
        events: list[AnswerEvent] = []
        while self._reader is not None:
            more, rest = self._reader.finish()
            self._reader = None
            self._take(more, events)
            events += self.push(rest)
        self._give(self._before.finish(), events)
        return events

    def _push_content(self, text: str, events: list[AnswerEvent]) -> str | None:
        content, marker, rest = self._before.push(text)
        self._give(content, events)
        if not marker:
            return None
        self._reader = self._openers[marker](marker)
        return rest

    def _give(self, text: str, events: list[AnswerEvent]) -> None:
        """Give content out, but for white space at its end if that may have to be dropped."""
        if self._eats_space:
            text = text.lstrip()
            self._eats_space = not text
        if self._trims and text:
            n_held = trailing_space(text)
            if n_held == len(text):
                self._space.append(text)
                return
            held = text[len(text) - n_held :]
            text = "".join(self._space) + text[: len(text) - n_held]
            self._space = [held] if held else []
        if text:
            events.append(Piece(content=text))

    def _take(self, more: list[AnswerEvent], events: list[AnswerEvent]) -> None:
        for event in more:
            if isinstance(event, Piece) and event.content and not event.malformed:
                self._give(event.content, events)
                continue
            events.append(event)
            self._space, self._eats_space = [], self._trims
