"""The whole HTTP stack without sockets: a client's bytes through memory streams into hypercorn, Quart and the routes.

Virtual time works, so a stream of hours takes milliseconds. For memory, back-pressure and kernel behaviour use real
sockets (`tests/api/test_sockets.py`).
"""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import h11
import trio
import trio.testing
from hypercorn.app_wrappers import ASGIWrapper

from kit.fake_olm import FakeOlm
from olm.api.app import create_app
from olm.api.asgi import Api
from olm.api.connection import Connections
from olm.api.serve import make_config
from olm.config import Address, Settings

__all__ = ["MemoryClient", "MemoryServer", "Reply", "open_memory_server", "settings_for_tests"]


def settings_for_tests(
    host: str = "127.0.0.1", port: int = 11434, *, origins: tuple[str, ...] = ()
) -> Settings:
    """Settings of a server that nobody configured."""
    return Settings(
        address=Address(host, port), home=Path("/nowhere"), models=Path("/nowhere"), origins=origins
    )


@attrs.frozen
class Reply:
    """A whole answer. `chunks` are the pieces as they were framed."""

    status: int
    headers: Mapping[str, str]
    chunks: tuple[bytes, ...]

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.body.splitlines()]

    @property
    def json(self) -> dict[str, object]:
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value

    @property
    def error(self) -> str:
        return str(self.json["error"])


class _Socket:
    """What a connection asks of its socket."""

    family = socket.AF_INET

    def __init__(self, stream: trio.StapledStream) -> None:
        self._stream = stream

    def getpeername(self) -> tuple[str, int]:
        return ("127.0.0.1", 50000)

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 11434)

    def close(self) -> None:
        self._stream.send_stream.close()
        self._stream.receive_stream.close()


class MemoryClient:
    """One connection to the server, kept alive between requests."""

    def __init__(self, stream: trio.StapledStream) -> None:
        self.stream = stream
        self._h11 = h11.Connection(h11.CLIENT)

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a request and read its whole answer; a body that is not bytes is sent as JSON."""
        await self.send(method, path, body, headers)
        return await self.read()

    async def get(self, path: str, **headers: str) -> Reply:
        return await self.request("GET", path, headers=headers)

    async def post(self, path: str, body: object) -> Reply:
        return await self.request("POST", path, body)

    async def send(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a request."""
        data = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        fields = {"Host": "localhost:11434", **(headers or {})}
        if data or method in ("POST", "DELETE"):
            fields["Content-Length"] = str(len(data))
        if self._h11.our_state is h11.DONE:
            self._h11.start_next_cycle()
        out = self._h11.send(h11.Request(method=method, target=path, headers=list(fields.items())))
        out += self._h11.send(h11.Data(data=data)) if data else b""
        out += self._h11.send(h11.EndOfMessage())
        await self.stream.send_all(out)

    async def read(self) -> Reply:
        """Read a whole answer."""
        chunks: list[bytes] = []
        status, fields = 0, {}
        while (event := await self.next_event()) is not None:
            if isinstance(event, h11.Response):
                status = event.status_code
                fields = {k.decode(): v.decode() for k, v in event.headers}
            elif isinstance(event, h11.Data):
                chunks.append(bytes(event.data))
        return Reply(status, fields, tuple(chunks))

    async def next_event(self) -> h11.Event | None:
        """The next event of an answer; None at its end."""
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                self._h11.receive_data(await self.stream.receive_some())
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                return None
            else:
                assert isinstance(event, h11.Event)
                return event

    async def aclose(self) -> None:
        await self.stream.aclose()


@attrs.define
class MemoryServer:
    """A server with a fake behind it."""

    olm: FakeOlm
    api: Api
    connections: Connections
    nursery: trio.Nursery
    _stalls: list[trio.Event] = attrs.field(factory=list)
    _server_ends: dict[MemoryClient, trio.StapledStream] = attrs.field(factory=dict)

    def connect(self) -> MemoryClient:
        """Open a connection."""
        ours, theirs = trio.testing.memory_stream_pair()
        theirs.socket = _Socket(theirs)  # type: ignore[attr-defined]  # what a SocketStream has
        self.nursery.start_soon(self.connections.handle, theirs)
        client = MemoryClient(ours)
        self._server_ends[client] = theirs
        return client

    def stall(self, client: MemoryClient) -> trio.Event:
        """Let nothing through to a client until the event is set: its window is full."""
        gate = trio.Event()
        send_stream = self._server_ends[client].send_stream
        assert isinstance(send_stream, trio.testing.MemorySendStream)
        pump = send_stream.send_all_hook
        assert pump is not None

        async def wait_then_pump() -> None:
            await gate.wait()
            await pump()

        send_stream.send_all_hook = wait_then_pump
        self._stalls.append(gate)
        return gate

    def release_stalls(self) -> None:
        """Let every stalled client go on."""
        for gate in self._stalls:
            gate.set()


@asynccontextmanager
async def open_memory_server(
    olm: FakeOlm | None = None, settings: Settings | None = None
) -> AsyncIterator[MemoryServer]:
    """Serve a fake (by default with one model, `tiny`) until the block ends."""
    fake = olm or FakeOlm()
    api = create_app(fake.clients, settings or settings_for_tests(), fake.snapshot)
    connections = Connections(ASGIWrapper(api), make_config())
    async with trio.open_nursery() as nursery:
        server = MemoryServer(fake, api, connections, nursery)
        try:
            yield server
        finally:
            # hypercorn shields writes, so a test that fails must not leave one waiting
            server.release_stalls()
            connections.close_all()
        nursery.cancel_scope.cancel()
