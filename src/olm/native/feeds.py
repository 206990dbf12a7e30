"""Events of the engine on their way to the streams of turns, with the consumers' pace kept.

One `Feed` for each running turn. The engine posts one frame a step with the events of all sequences; every event is
handed to its stream at once. A consumer that has used up its window gets its sequence paused, so that it slows
itself and nobody else; the turn's own task then waits for room and resumes it. Whom its slot is lent to meanwhile is
the scheduler's business (`olm.actors.pace`), parsing frames `engine`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from olm.actors.runtime import StreamClosed, StreamSink
from olm.chat.types import Done, TurnEvent
from olm.errors import OlmError

__all__ = ["Feed"]


class Feed:
    """Between the frames of one request and its stream.

    Args:
        sink: the stream's end.
        pause: tells the engine to pause or to resume the request; called from the worker's loop only.
    """

    __slots__ = ("_backlog", "_done", "_error", "_pause", "_paused", "_sink", "_wake")

    def __init__(self, sink: StreamSink[TurnEvent], pause: Callable[[bool], None]) -> None:
        self._sink = sink
        self._pause = pause
        self._backlog: deque[TurnEvent] = deque()
        self._paused = False
        self._done = False
        self._error: OlmError | None = None
        self._wake = trio.Event()

    @property
    def is_done(self) -> bool:
        """Whether the engine has said its last word about this request."""
        return self._done

    def push(self, event: TurnEvent) -> None:
        """Hand over an event; never waits."""
        if isinstance(event, Done):
            self._done = True
            self._wake.set()
        if not self._backlog:
            try:
                self._sink.send_nowait(event)
            except trio.WouldBlock:
                pass
            except StreamClosed:
                return  # the turn's task is being cancelled, and cancels the request
            else:
                return
        self._backlog.append(event)
        if not (self._paused or self._done):
            self._paused = True
            self._pause(True)
        self._wake.set()

    def fail(self, error: OlmError) -> None:
        """End with an error, after what waits."""
        self._done = True
        self._error = error
        self._wake.set()

    async def run(self) -> None:
        """Carry the request to its end: send what did not fit at once. Raises what `fail` was given."""
        while not (self._done and not self._backlog):
            await self._wake.wait()
            self._wake = trio.Event()
            while self._backlog:
                await self._sink.send(self._backlog[0])
                self._backlog.popleft()
            if self._paused and not self._done:
                self._paused = False
                self._pause(False)
        if self._error is not None:
            raise self._error
