"""A turn as pieces of a stream with a sign of life: while nothing is said for long, a beat is sent instead.

Loading a model or reading a long prompt can take minutes, in which clients and proxies give a silent connection up. The
status is still decided by the first event if that comes soon; a failure after the first beat is told in-band.
What a beat and an event look like is the dialect's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import trio

from olm.actors.client import Turn
from olm.api.errors import unfinished
from olm.chat.types import Done, TurnEvent
from olm.errors import OlmError

__all__ = ["BEAT_S", "open_beating"]

BEAT_S: Final = 5.0
"""Silence before a beat, seconds. Short enough for any proxy, long enough for errors of most loads to have their status."""


@asynccontextmanager
async def open_beating(
    turn: AbstractAsyncContextManager[Turn],
    *,
    start: Callable[[], bytes],
    write: Callable[[TurnEvent], bytes],
    beat: bytes,
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Open a turn as batches of bytes; events that already wait come in one.

    Args:
        start: the first bytes of the stream, asked for once, when there is an event or it is time for a beat.
        write: the bytes of an event, empty for one that says nothing.

    Raises:
        ExceptionGroup: what entering or leaving the turn raised.
    """
    async with trio.open_nursery() as nursery:
        stream = _Beating(start, write, beat)
        nursery.start_soon(stream.hold, turn)
        yield stream
        stream.left.set()


class _Beating:
    def __init__(
        self, start: Callable[[], bytes], write: Callable[[TurnEvent], bytes], beat: bytes
    ) -> None:
        self.left = trio.Event()
        self._start = start
        self._write_event = write
        self._beat = beat
        self._turn: Turn | None = None
        self._opened = trio.Event()
        self._started = False
        self._pending: OlmError | None = None
        self._last: TurnEvent | None = None

    async def hold(self, turn: AbstractAsyncContextManager[Turn]) -> None:
        """Enter the turn, which waits for the model, and leave it in the same task when the stream is over."""
        async with turn as running:
            self._turn = running
            self._opened.set()
            await self.left.wait()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        batch = b""
        while not batch:
            if self._pending is not None:
                raise self._pending
            event = await self._next()
            batch = self._begin()
            if event is None:
                return batch or self._beat
            batch += self._write(event)
            batch += self._write_waiting()
        return batch

    async def _next(self) -> TurnEvent | None:
        """The next event, None when it is time for a beat. Both waits are all or nothing, so no event is lost."""
        with trio.move_on_after(BEAT_S):
            if self._turn is None:
                await self._opened.wait()
            assert self._turn is not None, "an opened turn is there"
            try:
                return await self._turn.__anext__()
            except StopAsyncIteration:
                if isinstance(self._last, Done):
                    raise
                raise unfinished() from None
        return None

    def _begin(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        return self._start()

    def _write_waiting(self) -> bytes:
        assert self._turn is not None, "it gave an event"
        batch = b""
        try:
            for event in self._turn.drain():
                batch += self._write(event)
        except OlmError as exc:
            self._pending = exc  # what came before it is written first
        return batch

    def _write(self, event: TurnEvent) -> bytes:
        self._last = event
        return self._write_event(event)
