"""Writing the events of tool calls: indices, ids, deltas that add up to the whole, and calls that break off."""

from __future__ import annotations

from collections.abc import Callable

from olm.chat.types import AnswerEvent, CallArguments, CallEnd, CallStart, Piece, ToolCall

__all__ = ["CallWriter"]


class CallWriter:
    """Counts the calls of one answer and turns them into events. At most one call is open at a time."""

    __slots__ = ("_id", "_name", "_new_id", "_parts", "index")

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self.index = -1
        self._id = self._name = ""
        self._parts: list[str] | None = None

    @property
    def is_open(self) -> bool:
        """Whether a call has begun and not ended."""
        return self._parts is not None

    def start(self, name: str, call_id: str = "") -> list[AnswerEvent]:
        """Begin a call whose name is known; `call_id` is the model's own, else a new one is made."""
        assert self._parts is None, "the call before has ended"
        self.index += 1
        self._id, self._name, self._parts = call_id or self._new_id(), name, []
        return [CallStart(self.index, self._id, name)]

    def arguments(self, json: str) -> list[AnswerEvent]:
        """Add to the JSON text of the arguments."""
        assert self._parts is not None, "a call is open"
        if not json:
            return []
        self._parts.append(json)
        return [CallArguments(self.index, json)]

    def end(self) -> list[AnswerEvent]:
        """End the call with what its arguments have become; without any they are `{}`."""
        assert self._parts is not None, "a call is open"
        events = [] if self._parts else self.arguments("{}")
        call = ToolCall(self._name, "".join(self._parts), self._id, self.index)
        self._parts = None
        return [*events, CallEnd(self.index, call)]

    def whole(self, name: str, arguments_json: str, call_id: str = "") -> list[AnswerEvent]:
        """Write a call that came at once."""
        return [*self.start(name, call_id), *self.arguments(arguments_json), *self.end()]

    def fail(self, raw: str) -> list[AnswerEvent]:
        """Give a call up: `raw`, its text as the model wrote it, markers included, comes back as malformed content."""
        ended: list[AnswerEvent] = []
        if self._parts is not None:
            self._parts = None
            ended = [CallEnd(self.index, None)]
        return [*ended, Piece(content=raw, malformed=True)] if raw else ended
