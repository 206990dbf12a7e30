"""The HTTP/1.1 reader: heads, the three kinds of bodies, lines wherever they were cut, and broken peers."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olm.cli.http1 import ProtocolError, body_pieces, lines, read_head, request_head


def whole(raw: bytes, method: str = "GET") -> tuple[int, bytes]:
    file = io.BytesIO(raw)
    head = read_head(file)
    return head.status, b"".join(body_pieces(file, head, method=method))


@pytest.mark.parametrize(
    ("raw", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcREST", 200, b"abc"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n",
            200,
            b"abcd",
        ),
        (b"HTTP/1.0 200 OK\r\n\r\nto the end", 200, b"to the end"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\nx",
            404,
            b"x",
        ),
        (b"HTTP/1.1 200\r\ncontent-length:0\r\n\r\n", 200, b""),
    ],
)
def test_bodies_are_read_as_framed(raw: bytes, status: int, body: bytes) -> None:
    assert whole(raw) == (status, body)


def test_head_responses_have_no_body() -> None:
    assert whole(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "HEAD") == (200, b"")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 3 + b"Y: " + b"z" * 70_000,
    ],
)
def test_a_peer_that_breaks_off_or_speaks_otherwise_is_an_error(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        whole(raw)


@given(st.lists(st.binary(max_size=8)), st.integers(min_value=1, max_value=7))
def test_lines_do_not_depend_on_how_the_stream_was_cut(parts: list[bytes], size: int) -> None:
    stream = b"\n".join(parts)
    pieces = (stream[i : i + size] for i in range(0, len(stream), size))

    assert list(lines(pieces)) == [line for line in stream.split(b"\n") if line.strip()]


def test_request_head_is_what_the_rfc_says() -> None:
    assert request_head("GET", "/x", {"Host": "h:1"}) == b"GET /x HTTP/1.1\r\nHost: h:1\r\n\r\n"
