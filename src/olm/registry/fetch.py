"""The bytes of a blob, from a connection to where they go, in a thread: none of them passes the event loop.

The library sends the request, speaks to proxies and reads the head. The body is read from its socket into one buffer:
the library would copy each byte three times, and TLS on the event loop costs a hundred microseconds of Python for every
16 KiB. The price is that a connection serves one request. Which bytes to ask for, and what to do after a failure, is the
caller's business. Everything here is blocking.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

import attrs
import trio

from olm.outbound import ConnectionBroke, outbound_errors
from olm.registry.client import Place, failure_of
from olm.registry.errors import RangesIgnored, RegistryError, TryAgain

if TYPE_CHECKING:
    import httpx2

__all__ = ["Body", "Handover", "Limit", "Part", "Sink", "copy_body", "open_body"]

_PIECE_BYTES: Final = 1 << 20
"""Read, then written in one go: large enough that Python's share does not count, small enough to have 16 of."""
_TICK_S: Final = 0.1
"""How long a read waits before it looks whether anybody still wants the bytes. What has come by then is written."""
_LOW_WATER_BYTES: Final = 1 << 18
"""A read waits for so much, or for the tick: waking up for every packet would cost the event loop its turns."""
_CONNECT_S: Final = 15.0
_NO_LIMIT: Final = 1 << 62


class Sink(Protocol):
    """Where bytes go."""

    def write_at(self, offset: int, data: memoryview) -> None:
        """Write bytes at their place. Several threads do, each at another."""


class Limit(Protocol):
    """How fast bytes may come; `olm.actors.bandwidth.Bandwidth` is one."""

    def piece_bytes(self, at_most: int) -> int:
        """How many bytes to move at a time; `at_most` where nothing limits."""

    async def spend(self, n_bytes: int) -> None:
        """Return when `n_bytes` more may have come. Called on the event loop."""


@attrs.define
class Part:
    """Bytes that requests are to bring. `at` moves on, in the thread that writes, as they are written."""

    at: int
    end: int

    @property
    def is_done(self) -> bool:
        """Whether all bytes are written."""
        return self.at >= self.end


class Body:
    """The body of one answer. One thread reads."""

    def __init__(self, answer: httpx2.Response) -> None:
        """Wait for the first bytes: they may have come with the head, and the library has them then. Raises TryAgain."""
        self._answer = answer
        self._what = f"GET {str(answer.url).partition('?')[0]}"
        self._pieces = answer.iter_raw()
        self._ready = memoryview(b"")
        self._low_water = 1
        self._n_left = int(answer.headers.get("content-length", 0))
        try:
            self._socket = _bare_socket(answer)
            self._take_piece()
        except BaseException:
            self.close()
            raise
        if self._socket is not None:
            self._socket.settimeout(_TICK_S)

    def read_into(self, view: memoryview) -> int:
        """Read some bytes; 0 when none came within a tick. Raises TryAgain: the end is never welcome."""
        if not self._ready:
            if self._socket is not None:
                return self._receive(self._socket, view)
            self._take_piece()
        n_bytes = min(len(self._ready), len(view))
        view[:n_bytes] = self._ready[:n_bytes]
        self._ready = self._ready[n_bytes:]
        self._n_left -= n_bytes
        return n_bytes

    def _take_piece(self) -> None:
        try:
            with outbound_errors(self._what):
                self._ready = memoryview(next(self._pieces, b""))
        except ConnectionBroke as exc:
            raise TryAgain(exc.message) from exc
        if not self._ready:
            raise TryAgain("the answer ended early")

    def _receive(self, connection: socket.socket, view: memoryview) -> int:
        try:
            n_bytes = self._receive_much(connection, view)
        except TimeoutError:
            return 0
        except OSError as exc:
            raise TryAgain(f"{self._what}: {exc.strerror or exc}") from exc
        if n_bytes == 0:
            raise TryAgain("the answer ended early")
        self._n_left -= n_bytes
        return n_bytes

    def _receive_much(self, connection: socket.socket, view: memoryview) -> int:
        """Wait until a read is worth it, or for a tick, and then take what there is."""
        try:
            self._wait_for(connection, min(_LOW_WATER_BYTES, self._n_left))
            return connection.recv_into(view)
        except TimeoutError:
            self._wait_for(connection, 1)
            return connection.recv_into(view)

    def _wait_for(self, connection: socket.socket, n_bytes: int) -> None:
        """Have reads wait until so many bytes are there (on Linux; elsewhere each takes what comes)."""
        if n_bytes != self._low_water:
            self._low_water = n_bytes
            with suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, n_bytes)

    def close(self) -> None:
        """Close the connection, unless the library has read the body to its end. May be done twice."""
        self._answer.close()


def _bare_socket(answer: httpx2.Response) -> socket.socket | None:
    """The socket whose bytes are the body's and nothing else; None where the library has to decode them."""
    if "content-length" not in answer.headers or "transfer-encoding" in answer.headers:
        return None
    stream = answer.extensions.get("network_stream")
    if stream is None or not answer.extensions.get("http_version", b"").startswith(b"HTTP/1."):
        return None
    found: object = stream.get_extra_info("socket")
    if not isinstance(found, socket.socket):
        return None
    # Behind a proxy that itself speaks TLS the socket carries one more layer than it knows of.
    is_tls = stream.get_extra_info("ssl_object") is not None
    return found if is_tls == isinstance(found, ssl.SSLSocket) else None


class Handover:
    """Passes a body from the thread that opens it to a task that may have left meanwhile."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_left = False
        self._body: Body | None = None

    def put(self, body: Body) -> None:
        """Hand the body over; nobody there, it is closed."""
        with self._lock:
            if not self._is_left:
                self._body = body
                return
        body.close()

    def take(self) -> Body:
        """Take the body; who takes it closes it."""
        with self._lock:
            body, self._body, self._is_left = self._body, None, True
        assert body is not None, "taken once, after it was put"
        return body

    def leave(self) -> None:
        """Say that nobody will take it."""
        with self._lock:
            body, self._body, self._is_left = self._body, None, True
        if body is not None:
            body.close()


def open_body(
    client: httpx2.Client,
    place: Place,
    span: tuple[int, int] | None,
    stall_s: float,
    handover: Handover,
) -> None:
    """Ask for a span of a blob, or for all of it, and hand its body over when the first bytes are there.

    Raises:
        RangesIgnored: the server answers with the whole blob.
        TryAgain: the server has trouble, or the blob is no longer there but elsewhere.
        RegistryError: anything else but bytes.
    """
    import httpx2

    headers = dict(place.headers)
    if span is not None:
        headers["Range"] = f"bytes={span[0]}-{span[1] - 1}"
    what = f"GET {place.url.partition('?')[0]}"
    try:
        with outbound_errors(what):
            request = client.build_request(
                "GET",
                place.url,
                headers=headers,
                timeout=httpx2.Timeout(stall_s, connect=_CONNECT_S),
            )
            answer = client.send(request, stream=True)
    except ConnectionBroke as exc:
        raise TryAgain(exc.message) from exc
    try:
        _check(answer, place, span)
    except BaseException:
        answer.close()
        raise
    handover.put(Body(answer))


def _check(answer: httpx2.Response, place: Place, span: tuple[int, int] | None) -> None:
    if answer.is_redirect:
        raise TryAgain("the registry has moved the blob", http_status=answer.status_code)
    if not answer.is_success:
        with outbound_errors("GET"):
            body = answer.read()
        # A token may have expired; the next try signs in again.
        elsewhere = place.is_elsewhere or answer.status_code == 401
        raise failure_of(answer.status_code, answer.headers, body, elsewhere=elsewhere)
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise RegistryError(f"GET {place.url.partition('?')[0]}: the bytes come encoded, unasked")
    if span is None:
        return
    if answer.status_code != 206:
        raise RangesIgnored(f"{answer.url.host} sends whole files only")
    if not answer.headers.get("content-range", "").startswith(f"bytes {span[0]}-"):
        raise RegistryError(f"GET {place.url.partition('?')[0]}: other bytes than those asked for")


class _Buffer:
    """Collects bytes until it is worth a write."""

    def __init__(self, part: Part, sink: Sink) -> None:
        self._part = part
        self._sink = sink
        self._bytes = memoryview(bytearray(min(_PIECE_BYTES, part.end - part.at)))
        self._n = 0
        self._since_s = 0.0

    def room(self, at_most: int) -> memoryview:
        """Where to read to."""
        wanted = min(len(self._bytes) - self._n, self._part.end - self._part.at - self._n, at_most)
        return self._bytes[self._n : self._n + wanted]

    def add(self, n_bytes: int, now_s: float) -> None:
        """Note what was read, and write when it is much, or has waited, or is all."""
        if self._n == 0:
            self._since_s = now_s
        self._n += n_bytes
        is_all = self._part.at + self._n >= self._part.end
        if is_all or self._n == len(self._bytes) or now_s - self._since_s > _TICK_S:
            self.flush()

    def flush(self) -> None:
        """Write what is there. Raises DiskFull, StoreError."""
        n_bytes, self._n = self._n, 0
        if n_bytes:
            self._sink.write_at(self._part.at, self._bytes[:n_bytes])
            self._part.at += n_bytes


def copy_body(
    body: Body, part: Part, sink: Sink, limit: Limit, stall_s: float, n_skip: int = 0
) -> None:
    """Copy a body to its place until the part is done; the first `n_skip` bytes are let go.

    For a thread of `trio.to_thread`: it ends when its task is cancelled. However it ends, what was read is written.

    Raises:
        TryAgain: the body ended early, or nothing came for `stall_s`, which `is_stalled` in the details says.
        DiskFull, StoreError: what the sink says.
    """
    buffer, last_s, n_owed = _Buffer(part, sink), time.monotonic(), 0
    try:
        while not part.is_done:
            trio.from_thread.check_cancelled()
            piece_bytes = limit.piece_bytes(_NO_LIMIT)
            view = buffer.room(min(piece_bytes, n_skip or _NO_LIMIT))
            n_bytes, now_s = body.read_into(view), time.monotonic()
            if n_bytes:
                last_s = now_s
            elif now_s - last_s > stall_s:
                raise TryAgain(f"no data for {stall_s:g} s", is_stalled=True)
            n_owed = n_owed + n_bytes if piece_bytes < _NO_LIMIT else 0
            if n_owed >= piece_bytes or (n_owed and part.at + n_owed >= part.end):
                # TLS brings 16 KiB at a time; the event loop is asked once for many of those.
                trio.from_thread.run(limit.spend, n_owed)
                n_owed, last_s = 0, time.monotonic()  # waiting for one's turn is no stall
            if n_skip:
                n_skip -= n_bytes
            else:
                buffer.add(n_bytes, now_s)
    finally:
        buffer.flush()
