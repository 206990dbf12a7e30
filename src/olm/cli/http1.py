"""As much HTTP/1.1 as a client of one server needs: a request head, a response head, and bodies as pieces of bytes.

`http.client` would do the same and costs 18 ms of imports (email, ssl) on every command; measured on the machine of
runtime-notes §8, where a bare interpreter with click takes 38 ms. One request a connection, no redirects, no
trailers kept. Reads come from a buffered binary file, so that everything here is tested on `io.BytesIO`. No sockets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Final, NamedTuple

from olm.errors import OlmError

__all__ = ["ProtocolError", "ResponseHead", "body_pieces", "lines", "read_head", "request_head"]

MAX_HEAD_LINE: Final = 65_536  # as http.client; a longer line is not a server of ours
MAX_HEADERS: Final = 256
PIECE: Final = 65_536


class ProtocolError(OlmError):
    """The peer broke off, or does not speak HTTP."""

    status = 502


class ResponseHead(NamedTuple):  # not attrs: its import is a fifth of the start-up budget
    """Status and headers (names in lower case; the last of repeated ones wins)."""

    status: int
    reason: str
    headers: Mapping[str, str]


def request_head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """Write a request head. Names and values come from our own code, never from a user, and are ASCII."""
    head = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(head) + "\r\n\r\n").encode("ascii")


def _line(file: IO[bytes]) -> str:
    raw = file.readline(MAX_HEAD_LINE + 1)
    if len(raw) > MAX_HEAD_LINE:
        raise ProtocolError("the server sent a header line that is too long; is it an olm server?")
    if not raw.endswith(b"\n"):
        raise ProtocolError("the server closed the connection before it answered")
    return raw.decode("latin-1").rstrip("\r\n")


def read_head(file: IO[bytes]) -> ResponseHead:
    """Read a response head; informational (1xx) responses are skipped.

    Raises:
        ProtocolError: the connection ended early, or this is not HTTP.
    """
    while True:
        version, _, rest = _line(file).partition(" ")
        code, _, reason = rest.partition(" ")
        if not version.startswith("HTTP/1.") or not (code.isascii() and code.isdigit()):
            raise ProtocolError("what answers on that port does not speak HTTP")
        headers: dict[str, str] = {}
        while line := _line(file):
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
            if len(headers) > MAX_HEADERS:
                raise ProtocolError("the server sent too many headers; is it an olm server?")
        if not 100 <= int(code) < 200:
            return ResponseHead(int(code), reason, headers)


def body_pieces(file: IO[bytes], head: ResponseHead, *, method: str) -> Iterator[bytes]:
    """Read a response body piece by piece as it arrives: chunked, counted, or until the end of the connection.

    Raises:
        ProtocolError: the body ended before it was complete.
    """
    if method == "HEAD" or head.status in (204, 304):
        return
    if "chunked" in head.headers.get("transfer-encoding", "").lower():
        yield from _chunks(file)
    elif (length := head.headers.get("content-length", "")).isdigit():
        left = int(length)
        while left:
            piece = file.read(min(left, PIECE))
            if not piece:
                raise _cut_off()
            left -= len(piece)
            yield piece
    else:
        while piece := file.read(PIECE):
            yield piece


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while True:
        line = file.readline(MAX_HEAD_LINE)
        try:
            left = int(line.split(b";", 1)[0].strip(), 16)
        except ValueError:
            raise _cut_off() from None
        if left == 0:
            while file.readline(MAX_HEAD_LINE).strip():
                pass
            return
        while left:
            piece = file.read(min(left, PIECE))
            if not piece:
                raise _cut_off()
            left -= len(piece)
            yield piece
        file.readline(MAX_HEAD_LINE)


def _cut_off() -> ProtocolError:
    return ProtocolError("the server closed the connection in the middle of its answer")


def lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Split a stream of pieces at newlines, wherever the pieces were cut; empty lines are dropped."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line for line in whole if line.strip())
    if rest.strip():
        yield rest
