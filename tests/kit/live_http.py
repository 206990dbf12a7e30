"""A fake-backed server on a real loopback socket: in the test's own loop, or in a thread for synchronous clients."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import attrs
import trio

from kit.fake_olm import FakeOlm
from kit.memory_http import settings_for_tests
from olm.api.app import create_app
from olm.api.asgi import Api
from olm.api.limits import Crowd
from olm.api.serve import serve
from olm.api.sockets import open_listeners
from olm.api.tls import Certificates
from olm.config import Address

__all__ = ["LiveServer", "open_live_server", "read_all", "read_reply", "served_in_thread"]


READ_S = 10.0
"""Real seconds after which a test gives up on an answer."""


@attrs.define
class LiveServer:
    """A running server."""

    olm: FakeOlm
    api: Api
    port: int
    shutdown: trio.Event
    ended: trio.Event

    async def connect(self) -> trio.SocketStream:
        """Open a TCP connection."""
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def exchange(self, request: bytes, *, half_close: bool = False) -> bytes:
        """Send bytes on a fresh connection and read until the server closes it."""
        async with await self.connect() as stream:
            await stream.send_all(request)
            if half_close:
                await stream.send_eof()
            return await read_all(stream)


async def read_reply(stream: trio.SocketStream) -> bytes:
    """Read one answer that has a Content-Length."""
    data = bytearray()
    with trio.fail_after(READ_S):
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some()
        head, _, body = bytes(data).partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        while len(body) < int(fields[b"content-length"]):
            body += await stream.receive_some()
    return head + b"\r\n\r\n" + body


async def read_all(stream: trio.SocketStream) -> bytes:
    """Read until the end; a reset counts as one."""
    data = bytearray()
    with trio.fail_after(READ_S):
        try:
            while chunk := await stream.receive_some():
                data += chunk
        except trio.BrokenResourceError:
            pass
    return bytes(data)


@asynccontextmanager
async def open_live_server(
    olm: FakeOlm | None = None,
    *,
    drain_timeout_s: float = 5.0,
    address: Address | None = None,
    fds: Sequence[int] = (),
    crowd: Crowd | None = None,
    certificates: Certificates | None = None,
) -> AsyncIterator[LiveServer]:
    """Serve on a free port, or where it is said, until the block ends."""
    address = address or Address("127.0.0.1", 0)
    fake = olm or FakeOlm()
    api = create_app(fake.clients, attrs.evolve(settings_for_tests(), address=address))
    shutdown, ended = trio.Event(), trio.Event()
    with open_listeners(address, fds=fds, tls=certificates is not None) as listeners:
        async with trio.open_nursery() as nursery:

            async def run(*, task_status: trio.TaskStatus[object]) -> None:
                await serve(
                    api,
                    listeners,
                    drain_timeout_s=drain_timeout_s,
                    shutdown=shutdown,
                    crowd=crowd,
                    certificates=certificates,
                    task_status=task_status,
                )
                ended.set()

            await nursery.start(run)
            port = 0 if address.unix_path else int(listeners.urls[0].rpartition(":")[2])
            yield LiveServer(fake, api, port, shutdown, ended)
            nursery.cancel_scope.cancel()


@contextmanager
def served_in_thread(olm: FakeOlm) -> Iterator[str]:
    """Serve in another thread; gives the base URL."""
    started = threading.Event()
    where: list[object] = []

    async def main() -> None:
        async with open_live_server(olm) as server:
            with trio.CancelScope() as scope:
                where[:] = [
                    f"http://127.0.0.1:{server.port}",
                    trio.lowlevel.current_trio_token(),
                    scope,
                ]
                started.set()
                await trio.sleep_forever()

    thread = threading.Thread(target=partial(trio.run, main))
    thread.start()
    assert started.wait(10), "the server did not start"
    url, token, scope = where
    try:
        yield str(url)
    finally:
        assert isinstance(token, trio.lowlevel.TrioToken)
        assert isinstance(scope, trio.CancelScope)
        token.run_sync_soon(scope.cancel)
        thread.join(10)
