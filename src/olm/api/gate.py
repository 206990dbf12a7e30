"""Requests in flight: counting them, draining them, and the memory their bodies may take.

`Call` is what olm knows of one request beside the ASGI scope; it travels in the scope under `CALL_KEY`, and deeper
layers of the API find it with `current_call`. Who wants to know how requests ended watches the gate (`olm.api.access`,
`olm.api.metrics`). No HTTP is written here: `olm.api.asgi` answers, `olm.api.serve` decides when to drain.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import attrs
import trio

from olm.errors import Busy

__all__ = ["CALL_KEY", "Buffer", "Call", "Gate", "Usage", "current_call"]

CALL_KEY: Final = "olm.call"

MAX_BUFFERED_BYTES: Final = 192 << 20
"""Bodies held in memory at once, all requests together: three of the largest."""


@attrs.define
class Usage:
    """What the turns of a request came to; several when it asked for several answers.

    Attributes:
        model: the shortest form of its name, with its tag.
        queue_s: longest wait for a slot, the load included. first_s: from arrival to the first event of an answer.
        n_prompt, n_cached, n_generated: tokens, as in `olm.chat.types.Done`.
    """

    model: str
    queue_s: float = 0.0
    first_s: float | None = None
    n_prompt: int = 0
    n_cached: int = 0
    n_generated: int = 0


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
        route: the rule that matched (`/v1/models/{model}`), empty where none did.
        usage: None for requests that asked no model.
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
    route: str = ""
    usage: Usage | None = None
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


_CURRENT: Final[ContextVar[Call | None]] = ContextVar("olm.api.call", default=None)
"""A context variable, so that the clients the routes call can be metered without each route handing its call on."""


def current_call() -> Call | None:
    """Find the request that this task works for; None outside of any."""
    return _CURRENT.get()


class Gate:
    """Knows every request in flight. One per server; used from the trio thread only."""

    def __init__(self) -> None:
        self._calls: set[Call] = set()
        self._idle = trio.Event()
        self._idle.set()
        self._buffered_bytes = 0
        self._draining = False
        self._watchers: list[Callable[[Call], None]] = []

    def watch(self, ended: Callable[[Call], None]) -> None:
        """Have a function called with every request that has ended, after its last byte. It must not raise."""
        self._watchers.append(ended)

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
        token = _CURRENT.set(call)
        try:
            yield
        finally:
            _CURRENT.reset(token)
            call.buffer.release()
            self._calls.discard(call)
            for ended in self._watchers:
                ended(call)
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
