"""HTTP/1.1 and 1.0 by hand for `kit.registry`: a request's head and body, an answer. What is answered is theirs."""

from __future__ import annotations

from typing import Protocol
from urllib.parse import parse_qs, urlsplit

import attrs
import trio

__all__ = ["Out", "Request", "head", "read_request", "send"]


@attrs.define
class Request:
    """A request, its body still to be read from the connection.

    Attributes:
        rest: what has come in behind the head.
        n_left: bytes of the body that were not read yet.
    """

    method: str
    target: str
    headers: dict[str, str]
    rest: bytearray
    n_left: int
    _stream: trio.abc.Stream

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    def field(self, name: str) -> str:
        """A field of the query; empty when it is not there."""
        return parse_qs(urlsplit(self.target).query).get(name, [""])[0]

    async def piece(self) -> bytes:
        """The next piece of the body; empty at its end, or when the connection ends before."""
        if self.n_left and not self.rest:
            self.rest += await self._stream.receive_some(65536)
        piece = bytes(self.rest[: self.n_left])
        del self.rest[: len(piece)]
        self.n_left -= len(piece)
        return piece

    async def body(self) -> bytes:
        """What is left of the body."""
        data = bytearray()
        while piece := await self.piece():
            data += piece
        return bytes(data)


async def read_request(stream: trio.abc.Stream, buffer: bytearray) -> Request | None:
    """Read the head of the next request; None at the end of the connection. `buffer` is what came in already."""
    while b"\r\n\r\n" not in buffer:
        data = await stream.receive_some(65536)
        if not data:
            return None
        buffer += data
    text, _, rest = bytes(buffer).partition(b"\r\n\r\n")
    first, *lines = text.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    method, target, _ = first.split(" ")
    return Request(
        method, target, headers, bytearray(rest), int(headers.get("content-length", "0")), stream
    )


def head(status: int, size_bytes: int | None, headers: dict[str, str]) -> bytes:
    """The head of an answer; without a size the body lasts as long as the connection."""
    lines = [f"HTTP/1.1 {status} x"]
    lines += [] if size_bytes is None else [f"content-length: {size_bytes}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Out(Protocol):
    """Where answers go."""

    async def send_all(self, data: bytes) -> None:
        """Send it all."""


async def send(
    stream: Out, status: int, body: bytes = b"", headers: dict[str, str] | None = None
) -> bool:
    """Send a whole answer; true, because the connection can go on."""
    await stream.send_all(head(status, len(body), headers or {}) + body)
    return True
