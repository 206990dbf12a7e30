"""The pace of a turn's reader: whether it is away, since when, and what happens to the turn when it stays away.

A `Pace` is written by the turn (`olm.actors.models`) and watched by the scheduler, both on the trio thread: the one
piece of state that two sides share, because the reader that is away cannot say so. What a slot is, and who gets it
meanwhile, is in `book`.
"""

from __future__ import annotations

import math

import trio

from olm.actors.runtime import Stream
from olm.chat.types import TurnEvent
from olm.errors import OlmError

__all__ = ["Pace", "SlowReader"]


class SlowReader(OlmError):
    """Nothing of the answer was read for so long that it was given up."""

    status = 408


class Pace:
    """How one turn is read. A turn that is not streamed has a reader that is never away.

    Attributes:
        error: why the turn was given up; None while it was not.
        is_over: the worker has said its last word; what is left is here, waiting to be read.
    """

    __slots__ = ("_away_since_s", "_back", "_events", "error")

    def __init__(self) -> None:
        self._away_since_s = math.inf
        self._back: trio.Event | None = None
        self._events: Stream[TurnEvent] | None = None
        self.error: OlmError | None = None

    def attach(self, events: Stream[TurnEvent]) -> None:
        """Begin to keep the pace of a turn."""
        self._events = events

    @property
    def is_over(self) -> bool:
        return self._events is not None and self._events.ended

    def ask(self) -> None:
        """Note that the reader wants the next event."""
        self._away_since_s = math.inf
        if self._back is not None:
            self._back.set()
            self._back = None

    def leave(self, now_s: float) -> None:
        """Note that the reader has got something and is busy with it."""
        self._away_since_s = now_s

    def give_up(self, error: OlmError) -> None:
        """End the turn on the worker; its reader meets the error if it ever comes back."""
        self.error = error
        if self._events is not None:
            self._events.close()

    async def wait_away(self, limit_s: float) -> None:
        """Return when the reader has been away for this long. A slow model's reader is not away: it asks."""
        # Reading sets no event, for its cost: there is one look at most every `limit_s`.
        while self._away_since_s + limit_s > trio.current_time():  # noqa: ASYNC110 # as said
            await trio.sleep_until(min(self._away_since_s, trio.current_time()) + limit_s)

    async def wait_back(self) -> None:
        """Return when the reader asks for more."""
        if self._away_since_s == math.inf:
            return
        self._back = trio.Event()
        await self._back.wait()
