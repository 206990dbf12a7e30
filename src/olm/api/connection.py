"""One client connection: hypercorn's trio server with its traps removed. The protocol spoken on it is in `http1`.

Differences from `hypercorn.trio.tcp_server.TCPServer` 0.18: HTTP/2 is not spoken (no upgrade, no prior knowledge; Ollama
does not either); a request head must be complete within a bound; a failure inside one connection ends that connection
only; and every connection can be closed at once, which unblocks a write to a client that stopped reading (hypercorn
shields that write without a bound). Here too clients are turned away before they cost much: when there are too many,
or when they speak http to a port of https.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import EventWrapper, WorkerContext
from hypercorn.typing import ConnectionState, LifespanState
from hypercorn.utils import parse_socket_addr

from olm.api.auth import peer_name
from olm.api.http1 import Http1, IdleTimer
from olm.api.limits import Crowd
from olm.api.tls import Certificates, NotTls, handshake
from olm.log import get_logger

__all__ = ["CHUNK_WRITER_KEY", "ChunkWriter", "Connection", "Connections"]

CHUNK_WRITER_KEY: Final = "olm.chunk_writer"
"""Where `Connection.chunk_writer` is in ASGI's `state`."""

HEAD_TIMEOUT_S: Final = 30.0
"""From the first byte of a request to the end of its header, and from the connection to the end of its first one: a
client that drips bytes is cut off."""
LINGER_S: Final = 1.0
"""How long a client that is turned away may go on sending; a socket closed on unread data loses the answer."""
MAX_LINGERING: Final = 64
"""Clients turned away at once that get to read why; in a flood the others find their connection closed."""
_RECEIVE_BYTES: Final = 1 << 16

ChunkWriter = Callable[[bytes], Awaitable[None]]

_BUSY: Final = b"503 Service Unavailable\r\nretry-after: 1"
_TOO_MANY: Final = b'{"error":"server busy, please try again.  too many connections"}'
_SPEAKS_HTTPS: Final = b'{"error":"this server speaks https: use a URL that begins with https://"}'

_log = get_logger("http")


def _refusal(status: bytes, body: bytes) -> bytes:
    return (
        b"HTTP/1.1 %b\r\ncontent-type: application/json; charset=utf-8\r\n"
        b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)
    )


class Connections:
    """The open connections of one server.

    Args:
        crowd: how many there may be; None for any number.
        certificates: for https over TCP; None for http. Unix sockets never speak TLS.
    """

    def __init__(
        self,
        app: ASGIWrapper,
        config: Config,
        *,
        crowd: Crowd | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        self.app = app
        self.config = config
        self.context = WorkerContext(None)
        ending = self.context.terminated
        assert isinstance(ending, EventWrapper), "it is a trio context"
        self.ending = ending
        self._crowd = crowd
        self._certificates = certificates
        self._open: set[Connection] = set()
        self._none_open = trio.Event()
        self._n_lingering = 0

    @property
    def n_open(self) -> int:
        """How many clients are connected."""
        return len(self._open)

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serve one connection to its end. Never raises but Cancelled."""
        try:
            peer = parse_socket_addr(stream.socket.family, stream.socket.getpeername())
        except OSError:  # gone before we asked who it is
            await stream.aclose()
            return
        name = peer_name(peer[0] if peer else None)
        if self._crowd is not None and not self._crowd.enter(name):
            reply = b"" if self._certificates else _refusal(_BUSY, _TOO_MANY)
            await self._turn_away(stream, reply)
            return
        try:
            await self._serve(stream, is_tcp=peer is not None)
        finally:
            if self._crowd is not None:
                self._crowd.leave(name)

    async def _serve(self, stream: trio.SocketStream, *, is_tcp: bool) -> None:
        tls = self._certificates.context if self._certificates and is_tcp else None
        connection = Connection(self, stream, tls)
        if not self._open:
            self._none_open = trio.Event()
        self._open.add(connection)
        try:
            await connection.run()
        except NotTls:
            await self._turn_away(stream, _refusal(b"400 Bad Request", _SPEAKS_HTTPS))
        except Exception:
            _log.exception("connection failed")
        finally:
            self._open.discard(connection)
            if not self._open:
                self._none_open.set()

    async def _turn_away(self, stream: trio.SocketStream, reply: bytes) -> None:
        if not reply or self._n_lingering >= MAX_LINGERING:
            await trio.aclose_forcefully(stream)
            return
        self._n_lingering += 1
        try:
            with trio.move_on_after(LINGER_S):
                await stream.send_all(reply)
                await stream.send_eof()
                while await stream.receive_some(_RECEIVE_BYTES):
                    pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it did not wait to hear why
        finally:
            self._n_lingering -= 1
            await trio.aclose_forcefully(stream)

    async def close_idle(self) -> None:
        """Let idle connections close, and the others when their answer is complete."""
        await self.context.terminated.set()

    async def wait_none_open(self) -> None:
        """Wait until no client is connected."""
        if self._open:
            await self._none_open.wait()
        else:
            await trio.lowlevel.checkpoint()

    def close_all(self) -> None:
        """Close every socket now; whatever reads or writes there ends."""
        for connection in self._open:
            connection.close_now()


class Connection(TCPServer):
    """A connection; see the module."""

    def __init__(
        self, connections: Connections, stream: trio.SocketStream, tls: ssl.SSLContext | None
    ) -> None:
        state: LifespanState = {CHUNK_WRITER_KEY: self.chunk_writer}
        super().__init__(
            connections.app,
            connections.config,
            connections.context,
            state,
            stream,  # type: ignore[arg-type]  # annotated for TLS, made for both
        )
        self._stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] = stream
        self._socket = stream.socket
        self._tls = tls
        self._idle = IdleTimer(connections.config.keep_alive_timeout, connections.ending)

    def close_now(self) -> None:
        """Close the socket; tasks that wait on it get ClosedResourceError."""
        self._socket.close()

    async def run(self) -> None:
        """Serve requests until the connection ends.

        Raises:
            NotTls: from `handshake`; the socket is still open.
        """
        if self._tls is not None and not await self._begin_tls(self._tls):
            return
        socket = self._socket
        try:
            client = parse_socket_addr(socket.family, socket.getpeername())
            server = parse_socket_addr(socket.family, socket.getsockname())
            async with TaskGroup() as task_group:
                self._task_group = task_group
                self._http = Http1(
                    self.app,
                    self.config,
                    self.context,
                    task_group,
                    ConnectionState(self.state),
                    self._tls is not None,
                    client,
                    server,
                    self.protocol_send,
                )
                self._http.open()
                self.protocol = self._http  # type: ignore[assignment]  # the part of its wrapper we need
                self._idle.start()
                task_group.spawn(self._close_when_idle)
                await self._read_data()
                self._idle.end()
        except OSError:
            pass  # the client was gone before we asked who it is
        finally:
            await self._close()

    async def _close_when_idle(self) -> None:
        if await self._idle.expired():
            with trio.CancelScope(shield=True):
                await self._initiate_server_close()

    async def _begin_tls(self, context: ssl.SSLContext) -> bool:
        """Say whether the client got through the handshake; if not, the connection is closed."""
        stream = self._stream
        assert isinstance(stream, trio.SocketStream), "TLS begins on the bare connection"
        try:
            self.stream = self._stream = await handshake(stream, context)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as exc:
            _log.debug("TLS handshake failed: %r", exc.__cause__ or exc)
            await trio.aclose_forcefully(stream)
            return False
        return True

    def chunk_writer(self) -> ChunkWriter | None:
        """Give a streamed answer, whose head is out, a direct way for its body; None when it has to take the long one.

        hypercorn and h11 take 25 µs to frame a token, which is the larger part of its cost. Their framing of a
        chunked body has no state, so a body can be written beside them; they still write its head and its end.
        """
        connection = self._http.connection
        if not isinstance(connection, h11.Connection) or not isinstance(
            self._stream, trio.SocketStream | trio.SSLStream
        ):
            return None
        is_chunked = (
            connection.their_http_version == b"1.1"
        )  # we never give a stream a content-length
        return self._write_chunk if is_chunked and connection.our_state is h11.SEND_BODY else None

    async def _write_chunk(self, data: bytes) -> None:
        """Write a piece of the body. Without waiting if the socket takes it all, else as `protocol_send` does.

        This may not let other tasks run; the caller's source of pieces must.
        """
        framed = b"%x\r\n%b\r\n" % (len(data), data)
        n_sent = 0
        if self._tls is None and not self.send_lock.locked():
            try:
                n_sent = os.write(self._socket.fileno(), framed)
            except BlockingIOError:
                pass
            except OSError:
                await self.protocol.handle(Closed())
                return
        if n_sent < len(framed):
            await self.protocol_send(RawData(framed[n_sent:]))

    async def protocol_send(self, event: Event) -> None:
        """Write, close, or start the idle timer. As hypercorn does, but shielded, and without its lock when that is free.

        The end of an exchange is told to Quart's receiver, which cancels the task that is just telling us: unshielded,
        the socket would stay open, or the idle timer would not start. Neither waits for anything.
        """
        if isinstance(event, Updated):
            if event.idle:
                self._idle.start()
            else:
                self._idle.stop()
            return
        if not isinstance(event, RawData) or self.send_lock.locked():
            with trio.CancelScope(shield=True):
                await super().protocol_send(event)
            return
        self.send_lock.acquire_nowait()
        try:
            # A write cut off in the middle would spoil the stream, so it is shielded; `close_now` bounds it.
            with trio.CancelScope(shield=True):
                await self.stream.send_all(event.data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await self.protocol.handle(Closed())
        finally:
            self.send_lock.release()

    async def _read_data(self) -> None:
        head_deadline = trio.current_time() + HEAD_TIMEOUT_S
        while True:
            try:
                with trio.fail_at(head_deadline):
                    data = await self._stream.receive_some(_RECEIVE_BYTES)
            except (trio.ClosedResourceError, trio.BrokenResourceError, trio.TooSlowError):
                break
            await self.protocol.handle(RawData(bytes(data)))
            if not data:
                break
            if not self._http.is_in_head():
                head_deadline = float("inf")
            elif head_deadline == float("inf"):
                head_deadline = trio.current_time() + HEAD_TIMEOUT_S
        await self.protocol.handle(Closed())
