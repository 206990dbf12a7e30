"""The thinking at the beginning of an answer: telling it from what follows, whether or not the prompt has opened it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from olm.chat.parsers.base import ParseInput, Parser
from olm.chat.parsers.kit.sections import TextBefore
from olm.chat.types import AnswerEvent, Piece

__all__ = ["ThinkMode", "ThinkSection", "ThinkingParser", "think_mode"]

ThinkMode = Literal["open", "maybe", "closed"]
"""How an answer begins: in its thinking, perhaps with a tag that opens it, or without any."""

_State = Literal["start", "thinking", "after", "over"]
_TAIL: Final = 64
"""Characters of a prompt's end that may hold a tag and white space behind it."""


def think_mode(
    inp: ParseInput,
    *,
    is_on: bool,
    start: str = "<think>",
    ends: Sequence[str] = ("</think>",),
    unsaid: ThinkMode = "maybe",
) -> ThinkMode:
    """Say how an answer begins. The end of the prompt knows best; without a prompt, `is_on` decides.

    Args:
        is_on: whether the model is to think.
        unsaid: the mode when it is and the prompt's end says nothing: some renderers leave it to the model, after a
            tool's result, say.
    """
    tail = inp.prompt[-_TAIL:].rstrip()
    if tail.endswith(start):
        return "open"
    if not is_on or tail.endswith(tuple(ends)):
        return "closed"
    return unsaid if tail else "open"


class ThinkSection:
    """Splits an answer into its thinking and the rest.

    White space around the end of the thinking is dropped, and so is that behind a start tag.

    Args:
        mode: `open`: the prompt has opened the thinking; a start tag that the model writes all the same is dropped.
            `maybe`: the answer thinks if it begins with a start tag. `closed`: it does not think.
        start: the tag that opens thinking; may be empty with mode `open`.
        ends: the tags that close it.
        cuts: markers that end it without a closing tag, and belong to the rest: a model that calls a tool while it thinks.
        trims_start: drop white space at the beginning of the thinking, too, even if the prompt has opened it.
    """

    __slots__ = (
        "_before",
        "_cuts",
        "_held",
        "_is_behind_start",
        "_mode",
        "_start",
        "_state",
        "_trims_start",
    )

    def __init__(
        self,
        mode: ThinkMode,
        *,
        start: str = "<think>",
        ends: Sequence[str] = ("</think>",),
        cuts: Sequence[str] = (),
        trims_start: bool = False,
    ) -> None:
        self._mode, self._start, self._trims_start = mode, start, trims_start
        self._cuts = frozenset(cuts)
        self._before = TextBefore((*ends, *cuts))
        self._state: _State = "over" if mode == "closed" else "start"
        self._held: list[str] = []
        self._is_behind_start = False

    def push(self, text: str) -> tuple[str, str]:
        """Take more of the answer: returns more thinking, and text that follows it."""
        if self._state == "start":
            text = self._push_start(text)
        thinking = ""
        if self._state == "thinking":
            if self._is_behind_start:
                text = text.lstrip()
                self._is_behind_start = not text
            thinking, marker, text = self._before.push(text)
            if marker in self._cuts:
                self._state, text = "over", marker + text
            elif marker:
                self._state = "after"
        if self._state == "after":
            text = text.lstrip()
            if text:
                self._state = "over"
        return thinking, text

    def _push_start(self, text: str) -> str:
        """Wait until it is clear whether the answer begins with the start tag."""
        self._held.append(text)
        if text.isspace():
            return ""
        whole = "".join(self._held)
        inner = whole.lstrip()
        if self._start and inner.startswith(self._start):
            self._state, self._is_behind_start = "thinking", True
            whole = inner[len(self._start) :]
        elif len(inner) < len(self._start) and self._start.startswith(inner):
            return ""
        else:
            self._state = "thinking" if self._mode == "open" else "over"
            whole = inner if self._mode == "open" and self._trims_start else whole
        self._held = []
        return whole

    def finish(self) -> tuple[str, str]:
        """The answer is over: returns what was held back, as thinking and as rest."""
        if self._state == "start":
            held = "".join(self._held)
            return (held.rstrip(), "") if self._mode == "open" else ("", held)
        return self._before.finish(), ""


class ThinkingParser:
    """A parser that takes the thinking off the beginning and leaves the rest to another one."""

    __slots__ = ("_body", "_section")

    def __init__(self, section: ThinkSection, body: Parser) -> None:
        self._section = section
        self._body = body

    def push(self, text: str) -> list[AnswerEvent]:
        """Take more of the answer."""
        return self._events(*self._section.push(text))

    def finish(self) -> list[AnswerEvent]:
        """The answer is over."""
        return [*self._events(*self._section.finish()), *self._body.finish()]

    def _events(self, thinking: str, rest: str) -> list[AnswerEvent]:
        events: list[AnswerEvent] = [Piece(thinking=thinking)] if thinking else []
        return events + self._body.push(rest) if rest else events
