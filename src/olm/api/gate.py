"""Requests in flight: counting them, draining them, and the memory their bodies may take.

`Call` is what olm knows of one request beside the ASGI scope; it travels in the scope under `CALL_KEY`.
No HTTP is written here: `olm.api.asgi` answers, `olm.api.serve` decides when to drain.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import attrs
import trio

from olm.errors import Busy

__all__ = ["CALL_KEY", "Buffer", "Call", "Gate"]

CALL_KEY: Final = "olm.call"

MAX_BUFFERED_BYTES: Final = 192 << 20
"""Bodies held in memory at once, all requests together: three of the largest."""


@attrs.define(eq=False)
class Call:
    """One request from its head to its last byte.

    Attributes:
        id: the request id, taken from the client or made here; it is in the answer and in every log line.
        started_s: `trio.current_time()` at arrival; total_duration counts from here.
        body: the whole request body until it is taken, empty for requests without one and for blob uploads.
        buffer: the body's share of the memory for bodies.
        chunk_writer: asks the connection for its direct way for the pieces of a body (see `connection`).
        headers: header fields to add to the answer (request id, CORS).
        status: of the answer, 0 until it starts.
    """

    id: str
    method: str
    path: str
    client: str
    started_s: float
    buffer: Buffer
    chunk_writer: Callable[[], Callable[[bytes], Awaitable[None]] | None]
    body: bytes = b""
    user_agent: str = ""
    headers: list[tuple[bytes, bytes]] = attrs.field(factory=list)
    status: int = 0
    _scope: trio.CancelScope | None = None
    _aborted: str = ""

    def take_body(self) -> bytes:
        """Hand the body over, once; its memory is no longer counted, and is free when the caller is done with it."""
        body, self.body = self.body, b""
        self.buffer.release()
        return body

    @contextmanager
    def working(self) -> Iterator[trio.CancelScope]:
        """Run this request's work in a scope that `abort` cancels; the answer is written outside of it."""
        with trio.CancelScope() as scope:
            self._scope = scope
            if self._aborted:
                scope.cancel(self._aborted)
            yield scope

    def abort(self, reason: str) -> None:
        """Cancel the request's work, now or as soon as it starts; its error can still be written."""
        self._aborted = reason
        if self._scope is not None:
            self._scope.cancel(reason)

    def elapsed_ns(self) -> int:
        """Nanoseconds since the request arrived."""
        return round((trio.current_time() - self.started_s) * 1e9)


class Gate:
    """Knows every request in flight. One per server; used from the trio thread only."""

    def __init__(self) -> None:
        self._calls: set[Call] = set()
        self._idle = trio.Event()
        self._idle.set()
        self._buffered_bytes = 0
        self._draining = False

    @property
    def is_draining(self) -> bool:
        """Whether new requests are to be refused."""
        return self._draining

    @property
    def n_in_flight(self) -> int:
        """Requests that have not ended."""
        return len(self._calls)

    @contextmanager
    def track(self, call: Call) -> Iterator[None]:
        """Count a request in until the block ends."""
        if not self._calls:
            self._idle = trio.Event()
        self._calls.add(call)
        try:
            yield
        finally:
            call.buffer.release()
            self._calls.discard(call)
            if not self._calls:
                self._idle.set()

    def _reserve(self, size_bytes: int) -> None:
        if self._buffered_bytes + size_bytes > MAX_BUFFERED_BYTES:
            raise Busy(
                "server busy, please try again.  too many large request bodies", retry_after_s=1
            )
        self._buffered_bytes += size_bytes

    def drain(self) -> None:
        """Refuse new requests from now on; those in flight go on."""
        self._draining = True

    async def wait_idle(self) -> None:
        """Wait until no request is in flight."""
        await self._idle.wait()

    def abort(self, reason: str) -> None:
        """Cancel the work of every request in flight; each still writes its error."""
        for call in self._calls:
            call.abort(reason)


class Buffer:
    """The share one body has in the memory for all of them."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.size_bytes = 0

    def grow(self, size_bytes: int) -> None:
        """Claim more bytes. Raises Busy when all bodies together are too large."""
        self._gate._reserve(size_bytes)
        self.size_bytes += size_bytes

    def release(self) -> None:
        """Give the share back."""
        self._gate._buffered_bytes -= self.size_bytes
        self.size_bytes = 0
