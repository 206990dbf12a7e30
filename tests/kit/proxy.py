"""A small HTTP proxy on loopback, CONNECT and plain, which leads every host to where a test wants it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from kit.registry_http import read_request, send

__all__ = ["Proxy", "open_proxy"]


@attrs.define
class Proxy:
    """A proxy.

    Attributes:
        hosts: where `name:port` really is: a port of this machine.
        wants: the Proxy-Authorization without which nothing goes; empty for none.
        log: method and host:port (CONNECT) or address of each request.
    """

    hosts: dict[str, int] = attrs.field(factory=dict)
    wants: str = ""
    log: list[tuple[str, str]] = attrs.field(factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        """Its address, as environment variables want it."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection; of plain requests, one for each."""
        try:
            request = await read_request(stream, bytearray())
            if request is None:
                return
            self.log.append((request.method, request.target))
            if request.headers.get("proxy-authorization", "") != self.wants:
                await send(stream, 407, b"who are you?")
                return
            is_tunnel = request.method == "CONNECT"
            host = request.target if is_tunnel else request.target.split("/")[2]
            port = self.hosts.get(host if ":" in host else f"{host}:80")
            if port is None:
                await send(stream, 502, b"no such host")
                return
            async with await trio.open_tcp_stream("127.0.0.1", port) as inner:
                if is_tunnel:
                    await stream.send_all(b"HTTP/1.1 200 established\r\n\r\n")
                else:
                    path = "/" + request.target.split("/", 3)[3]
                    fields = {**request.headers, "connection": "close"}
                    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
                    await inner.send_all(
                        f"{request.method} {path} HTTP/1.1\r\n{lines}\r\n".encode()
                    )
                await inner.send_all(bytes(request.rest))
                await _relay(stream, inner)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            with trio.CancelScope() as scope:
                scope.cancel()
                await stream.aclose()


async def _relay(one: trio.SocketStream, other: trio.SocketStream) -> None:
    async def copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        async for data in source:
            await sink.send_all(data)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(copy, one, other)
        nursery.start_soon(copy, other, one)


@asynccontextmanager
async def open_proxy() -> AsyncIterator[Proxy]:
    """Run a proxy while the block runs."""
    proxy = Proxy()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, proxy.serve, 0, host="127.0.0.1"))
        proxy.port = listeners[0].socket.getsockname()[1]
        yield proxy
        nursery.cancel_scope.cancel()
