"""HTTP/1.1 on one connection, as hypercorn and h11 speak it, with what olm changes: how heads are read and written,
and how the time between two requests is counted. No sockets are touched here; `connection` does that.
"""

from __future__ import annotations

import math
from typing import Final

import h11
import trio
from hypercorn.events import RawData
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.worker_context import EventWrapper

__all__ = ["Http1", "IdleTimer"]

_JOINED_BYTES: Final = 1 << 16
"""A body up to this size is copied behind its head; more costs more than a second write."""

_Sendable = h11.Response | h11.InformationalResponse | h11.Data | h11.EndOfMessage


class _H11(h11.Connection):
    """h11, but for what follows a last request: an error there would cost the answer that is being written.

    Old clients send a line end too much, and clients that pipeline may not know that the server will close.
    """

    def receive_data(self, data: bytes) -> None:
        """Take what has arrived; nobody will read more of this client, so it must not pile up."""
        if not (data and self.their_state is h11.MUST_CLOSE):
            super().receive_data(data)

    def next_event(self) -> type[h11.NEED_DATA | h11.PAUSED] | h11.Event:
        """The next event, as h11 has it."""
        if self.their_state is h11.MUST_CLOSE and self.trailing_data[0]:
            return h11.NEED_DATA
        return super().next_event()


class Http1(H11Protocol):
    """One connection's protocol; `open` comes before anything else."""

    def open(self) -> None:
        """Use our reader in the place of hypercorn's."""
        self._held = b""
        self.connection = _H11(
            h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size
        )

    async def _check_protocol(self, event: h11.Request) -> None:
        """Ignore offers of HTTP/2."""

    async def _send_h11_event(self, event: _Sendable) -> None:
        """Write the head of a whole answer together with what follows it: one write, and its reader wakes once."""
        try:
            data = self.connection.send(event) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return
        if self._held and len(data) <= _JOINED_BYTES:
            data, self._held = self._held + data, b""
        elif self._held:
            held, self._held = self._held, b""
            await self.send(RawData(held))
        if isinstance(event, h11.Response) and _has_length(event):
            self._held = data
        elif data:
            await self.send(RawData(data))

    def is_in_head(self) -> bool:
        """Whether part of a request head has arrived and the rest has not."""
        connection = self.connection
        if not isinstance(connection, h11.Connection):
            return False
        return connection.their_state is h11.IDLE and bool(connection.trailing_data[0])


def _has_length(head: h11.Response) -> bool:
    return any(name == b"content-length" for name, _ in head.headers)


class IdleTimer:
    """Counts the time between two requests of a connection, and knows when that is too much.

    One task and one deadline that moves; hypercorn starts a task after every answer, which costs more than writing it.

    Args:
        limit_s: how long the connection may be idle.
        ending: set when the server stops; a connection that is idle then has been so for long enough.
    """

    def __init__(self, limit_s: float, ending: EventWrapper) -> None:
        self._limit_s = limit_s
        self._ending = ending
        self._scope = trio.CancelScope()
        self._is_idle = True
        self._is_over = False

    def start(self) -> None:
        """The connection is idle from now on."""
        self._is_idle = True
        if self._ending.is_set():
            self._scope.cancel("the server stops")
        else:
            self._scope.deadline = trio.current_time() + self._limit_s

    def stop(self) -> None:
        """A request is being served."""
        self._is_idle = False
        self._scope.deadline = math.inf

    def end(self) -> None:
        """The connection has ended by itself."""
        self._is_over = True
        self._scope.cancel("connection ended")

    async def expired(self) -> bool:
        """Wait until the connection has been idle for too long, or is idle when the server stops; False after `end`."""
        with self._scope:
            await self._ending.wait()
            if not self._is_idle:
                await trio.sleep_forever()
        return not self._is_over
