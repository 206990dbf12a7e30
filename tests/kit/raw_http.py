"""Byte strings that no well-meant client sends, each with the statuses it may be answered with."""

from __future__ import annotations

import json
from typing import Final

__all__ = ["ATTACKS", "CHAT", "CLOSE", "HOST", "VERSION", "post", "statuses"]

HOST: Final = b"Host: localhost\r\n"
CLOSE: Final = b"Connection: close\r\n"
CHAT: Final = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "x"}]}).encode()
VERSION: Final = b"GET /api/version HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"

_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
_SMUGGLED: Final = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"


def post(body: bytes, *headers: bytes, path: bytes = b"/api/chat") -> bytes:
    """A POST with these header lines, and with a Content-Length unless a framing is among them."""
    framing = b"" if any(b"-encoding:" in h.lower() or b"-length" in h.lower() for h in headers) else (
        b"Content-Length: %d\r\n" % len(body)
    )  # fmt: skip
    return b"POST %b HTTP/1.1\r\n" % path + HOST + b"".join(headers) + framing + b"\r\n" + body


def get(target: bytes, *headers: bytes, version: bytes = b"HTTP/1.1", host: bytes = HOST) -> bytes:
    return b"GET %b %b\r\n" % (target, version) + host + b"".join(headers) + b"\r\n"


def statuses(answer: bytes) -> tuple[int, ...]:
    """The status of every answer in what a connection gave."""
    return tuple(int(piece[2:5]) for piece in answer.split(b"HTTP/1.")[1:] if piece[2:5].isdigit())


ATTACKS: Final[dict[str, tuple[bytes, tuple[int, ...]]]] = {
    # framing: one length, or none
    "length and chunks": (
        post(b"0\r\n\r\n" + _SMUGGLED, b"Content-Length: 4\r\n", _CHUNKED),
        (400,),
    ),
    "chunks and length": (
        post(b"0\r\n\r\n" + _SMUGGLED, _CHUNKED, b"Content-Length: 60\r\n"),
        (400,),
    ),
    "two lengths": (
        post(b"{}" + _SMUGGLED, b"Content-Length: 2\r\nContent-Length: 60\r\n"),
        (400,),
    ),
    "a list of lengths": (post(b"{}", b"Content-Length: 2, 3\r\n"), (400,)),
    "one length twice": (post(b"{}", CLOSE, b"Content-Length: 2\r\nContent-Length: 2\r\n"), (400,)),
    "a negative length": (post(b"{}", b"Content-Length: -2\r\n"), (400,)),
    "a signed length": (post(b"{}", b"Content-Length: +2\r\n"), (400,)),
    "a hexadecimal length": (post(b"{}", b"Content-Length: 0x2\r\n"), (400,)),
    "no length in it": (post(b"{}", b"Content-Length: \r\n"), (400,)),
    "a length before its colon": (post(b"{}", b"Content-Length : 2\r\n"), (400,)),
    "a length of 5000 digits": (post(b"{}", b"Content-Length: " + b"9" * 5000 + b"\r\n"), (400,)),
    "a length of exabytes": (post(b"{}", CLOSE, b"Content-Length: 9999999999999999999\r\n"), (413,)),
    "an unknown coding": (post(b"0\r\n\r\n", b"Transfer-Encoding: xchunked\r\n"), (501,)),
    "two codings": (post(b"0\r\n\r\n", b"Transfer-Encoding: gzip, chunked\r\n"), (501,)),
    "chunked twice": (post(b"0\r\n\r\n", _CHUNKED, _CHUNKED), (501,)),
    "a coding before its colon": (post(b"0\r\n\r\n", b"Transfer-Encoding : chunked\r\n"), (400,)),
    "a coding with a tab in it": (post(b"0\r\n\r\n", b"Transfer-Encoding: \x0bchunked\r\n"), (400,)),
    # chunks
    "a chunk of no size": (post(b"ZZ\r\nabc\r\n0\r\n\r\n", _CHUNKED), (400,)),
    "a chunk of negative size": (post(b"-1\r\nabc\r\n0\r\n\r\n", _CHUNKED), (400,)),
    "a chunk of 2**84 bytes": (post(b"1" + b"0" * 21 + b"\r\nabc", _CHUNKED), (400,)),
    "a chunk without its end": (post(b"1\r\n{}0\r\n\r\n", _CHUNKED), (400,)),
    "an endless chunk extension": (post(b"1;" + b"a" * 100_000, _CHUNKED), (431,)),
    "an endless trailer": (post(b"2\r\n{}\r\n0\r\nX: " + b"a" * 100_000, _CHUNKED), (431,)),
    # heads
    "one huge field": (get(b"/", b"X: " + b"a" * 200_000 + b"\r\n"), (431,)),
    "a field of 40 kB": (get(b"/", CLOSE, b"X: " + b"a" * 40_000 + b"\r\n"), (431,)),
    "a target of 40 kB": (get(b"/" + b"a" * 40_000, CLOSE), (431,)),
    "a query of 40 kB": (get(b"/?" + b"a" * 40_000, CLOSE), (431,)),
    "a hundred fields": (get(b"/", CLOSE, *[b"X-%d: a\r\n" % i for i in range(100)]), (431,)),
    "twenty thousand fields": (get(b"/", *[b"X: a\r\n"] * 20_000), (431,)),
    "a field without a name": (get(b"/", b": x\r\n"), (400,)),
    "a method of 20 kB": (b"A" * 20_000 + b" / HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", (405,)),
    "a null byte in a field": (get(b"/", b"X: a\x00b\r\n"), (400,)),
    "a null byte in a name": (get(b"/", b"X\x00: a\r\n"), (400,)),
    "a null byte in the target": (get(b"/\x00"), (400,)),
    "a null byte in the host": (get(b"/", host=b"Host: local\x00host\r\n"), (400,)),
    "an escaped null byte": (get(b"/api/tags%00", CLOSE), (404,)),
    "an escaped null byte in a name": (get(b"/v1/models/a%00b", CLOSE), (400,)),
    "escapes that are none": (get(b"/%zz%f", CLOSE), (404,)),
    "escapes that are no text": (get(b"/%ff%fe", CLOSE), (404,)),
    "dots": (get(b"/v1/models/../../etc/passwd", CLOSE), (400,)),
    "a null byte in JSON": (post(b'{"model":"a\x00b"}', CLOSE), (400,)),
    "an escaped null byte in JSON": (post(b'{"model":"a\\u0000b"}', CLOSE), (400,)),
    "every byte": (bytes(range(256)) * 10, (400,)),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", (400,)),
    # versions
    "HTTP/0.9": (b"GET /\r\n\r\n", (400,)),
    "HTTP/1.0": (b"GET /api/version HTTP/1.0\r\n\r\n", (200,)),
    "HTTP/1.0 that stays": (
        b"GET /api/version HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2,
        (200,),
    ),
    "HTTP/2.0": (get(b"/", CLOSE, version=b"HTTP/2.0"), (505,)),
    "HTTP/11.1": (get(b"/", version=b"HTTP/11.1"), (400,)),
    "an HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (505,)),
    # targets
    "a whole URL": (get(b"http://localhost/api/version?x=1", CLOSE), (200,)),
    "a whole URL of another host": (get(b"http://evil.example.com/api/version", CLOSE), (403,)),
    "a whole URL against its Host": (
        get(b"http://localhost/api/version", CLOSE, host=b"Host: evil.example.com\r\n"),
        (200,),
    ),
    "a user before another host": (get(b"http://localhost@evil.example.com/", CLOSE), (403,)),
    "a URL of another scheme": (get(b"ftp://localhost/", CLOSE), (400,)),
    "a URL without a host": (get(b"http:///api/tags", CLOSE), (400,)),
    "half an address": (get(b"http://[::1/", CLOSE), (400,)),
    "a tunnel": (b"CONNECT localhost:443 HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", (400,)),
    "a star": (b"OPTIONS * HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", (400,)),
    "a trace": (b"TRACE / HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", (405,)),
    # hosts and origins
    "no host": (b"GET / HTTP/1.1\r\n\r\n", (400,)),
    "two hosts": (get(b"/", host=HOST + b"Host: evil.example.com\r\n"), (400,)),
    "an unknown host": (get(b"/", CLOSE, host=b"Host: evil.example.com\r\n"), (403,)),
    "a host that begins like ours": (
        get(b"/", CLOSE, host=b"Host: localhost.evil.example.com\r\n"),
        (403,),
    ),
    "a rebound name, of the same origin": (
        get(
            b"/api/tags",
            CLOSE,
            b"Origin: http://rebound.example.com:11434\r\n",
            host=b"Host: rebound.example.com:11434\r\n",
        ),
        (403,),
    ),
    "a host that is no text": (get(b"/", CLOSE, host=b"Host: \xff\xfe\r\n"), (403,)),
    "a host with a dot at its end": (
        get(b"/", CLOSE, host=b"Host: evil.example.com.\r\n"),
        (403,),
    ),
    "an unknown origin": (get(b"/", CLOSE, b"Origin: https://evil.example.com\r\n"), (403,)),
    "no origin": (get(b"/", CLOSE, b"Origin: null\r\n"), (403,)),
    # bodies
    "no body": (post(b"", CLOSE), (400,)),
    "half a body": (post(CHAT[: len(CHAT) // 2], CLOSE), (400,)),
    "no JSON": (post(b"\xff\xfe\x00", CLOSE), (400,)),
    "a wrong type": (post(b'{"model":5}', CLOSE), (400,)),
    "10,000 lists deep": (post(b'{"format":' + b"[" * 10_000, CLOSE), (400,)),
    "10,000 objects deep": (
        post(b'{"format":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001, CLOSE),
        (400,),
    ),
    "a million lists": (post(b'{"format":[' + b"[]," * 1_000_000 + b"1]}", CLOSE), (400,)),
    "a number of a million digits": (
        post(b'{"model":"tiny","options":{"seed":' + b"9" * 1_000_000 + b"}}", CLOSE),
        (400, 500),
    ),
}  # fmt: skip
