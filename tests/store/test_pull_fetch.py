"""The byte path of a download: bodies of every framing, plain and over TLS, that end, stall or are not wanted any more."""

from __future__ import annotations

import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import httpx2
import pytest
import trio

from kit.certificates import make_certificate
from olm.actors.bandwidth import Bandwidth
from olm.registry.client import Place
from olm.registry.errors import RangesIgnored, RegistryError, TryAgain
from olm.registry.fetch import Body, Handover, Part, copy_body, open_body

DATA = random.Random(7).randbytes(3_300_001)
SIZE = b"Content-Length: %d\r\n" % len(DATA)
STALL_S = 0.25

Answer = Callable[[socket.socket], object]


class Bytes:
    """A sink that holds what was written."""

    def __init__(self) -> None:
        self.data = bytearray(len(DATA))

    def write_at(self, offset: int, data: memoryview) -> None:
        self.data[offset : offset + len(data)] = data


def send(head: bytes, *pieces: bytes) -> Answer:
    return lambda connection: connection.sendall(b"HTTP/1.1 " + head + b"\r\n" + b"".join(pieces))


@contextmanager
def serving(answer: Answer, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Answer one request, in a thread; the connection stays open until the block ends."""
    done = threading.Event()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with closing(connection):
            connection.settimeout(10)
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            connection.recv(65536)
            try:
                if answer(connection) != "hang up":
                    done.wait(10)
            except OSError:
                pass  # the client has had enough
            finally:
                connection.close()

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            scheme = "http" if context is None else "https"
            yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/blob?signature=x"
        finally:
            done.set()
            thread.join()


async def fetch(
    url: str,
    span: tuple[int, int] | None = None,
    limit: Bandwidth | None = None,
    verify: ssl.SSLContext | bool = True,
    n_skip: int = 0,
    part: Part | None = None,
) -> bytes:
    """Fetch the blob, or a span; returns what was written there."""
    place, sink = Place(url, {}, has_ranges=True, is_elsewhere=False), Bytes()
    part = part or Part(*(span or (n_skip, len(DATA))))
    with httpx2.Client(verify=verify) as client:
        handover = Handover()
        await trio.to_thread.run_sync(open_body, client, place, span, STALL_S, handover)
        with closing(handover.take()) as body:
            copy = partial(copy_body, body, part, sink, limit or Bandwidth(), STALL_S, n_skip)
            await trio.to_thread.run_sync(copy)
    return bytes(sink.data)


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
async def test_a_body_arrives_byte_for_byte(tmp_path: Path, is_tls: bool) -> None:
    context: ssl.SSLContext | None = None
    verify: ssl.SSLContext | bool = True
    if is_tls:
        files = make_certificate(tmp_path, "registry")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(files.cert, files.key)
        verify = ssl.create_default_context(cafile=str(files.cert))

    with serving(send(b"200 OK\r\n" + SIZE, DATA), context) as url:
        assert await fetch(url, verify=verify) == DATA


@pytest.mark.parametrize(
    "answer",
    [
        send(
            b"200 OK\r\nTransfer-Encoding: chunked\r\n",
            b"%x\r\n" % len(DATA), DATA, b"\r\n0\r\n\r\n",
        ),
        lambda connection: (
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + DATA),
            "hang up",
        )[1],
        lambda connection: [
            connection.sendall(piece)
            for piece in (b"HTTP/1.1 200 OK\r\n" + SIZE, b"\r\n" + DATA[:1], DATA[1:9], DATA[9:])
        ],
    ],
    ids=["chunked", "1.0", "in pieces"],
)  # fmt: skip
async def test_every_framing_is_read(answer: Answer) -> None:
    with serving(answer) as url:
        assert await fetch(url) == DATA


async def test_a_span_goes_to_its_place_and_what_is_there_already_is_let_go() -> None:
    head = b"206 x\r\nContent-Range: bytes 100-2000099/9\r\nContent-Length: 2000000\r\n"
    with serving(send(head, DATA[100:2_000_100])) as url:
        assert (await fetch(url, (100, 2_000_100)))[100:2_000_100] == DATA[100:2_000_100]
    with serving(send(b"200 OK\r\n" + SIZE, DATA)) as url:
        assert (await fetch(url, n_skip=1_500_000))[1_500_000:] == DATA[1_500_000:]


@pytest.mark.parametrize("n_bytes", [0, 1, 70_000, 1_200_000])
@pytest.mark.parametrize("ending", ["hang up", "stall"])
async def test_what_came_before_the_end_is_written(n_bytes: int, ending: str) -> None:
    def answer(connection: socket.socket) -> str:
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + SIZE + b"\r\n" + DATA[:n_bytes])
        return ending

    part = Part(0, len(DATA))
    with serving(answer) as url, pytest.raises(TryAgain):
        await fetch(url, part=part)

    assert part.at == n_bytes


async def test_a_stall_says_so() -> None:
    with (
        serving(send(b"200 OK\r\n" + SIZE, DATA[:5])) as url,
        pytest.raises(TryAgain, match=r"^no data for 0.25 s$") as failed,
    ):
        await fetch(url)

    assert failed.value.details["is_stalled"]


@pytest.mark.parametrize(
    ("head", "span", "error", "message"),
    [
        (b"200 OK\r\n" + SIZE, (0, 5), RangesIgnored, "whole files only"),
        (b"206 x\r\nContent-Range: bytes 7-11/99\r\nContent-Length: 5\r\n", (0, 5), RegistryError,
         "other bytes than those asked for$"),
        (b"200 OK\r\nContent-Encoding: gzip\r\n" + SIZE, None, RegistryError, "encoded, unasked$"),
        (b"404 x\r\nContent-Length: 0\r\n", None, RegistryError, "^file does not exist$"),
        (b"401 x\r\nContent-Length: 0\r\n", None, TryAgain, "^401"),
        (b"302 x\r\nLocation: /x\r\nContent-Length: 0\r\n", None, TryAgain, "has moved the blob"),
        (b"503 x\r\nRetry-After: 7\r\nContent-Length: 4\r\n", None, TryAgain, "^503: busy$"),
    ],
)  # fmt: skip
async def test_what_is_no_body_is_an_error_that_says_why(
    head: bytes, span: tuple[int, int] | None, error: type[RegistryError], message: str
) -> None:
    with serving(send(head, b"busy")) as url, pytest.raises(error, match=message) as failed:
        await fetch(url, span)

    assert type(failed.value) is error
    assert "signature" not in str(failed.value)
    if "503" in message:
        assert failed.value.details["retry_after_s"] == 7


async def test_a_cancelled_download_ends_at_once_and_keeps_what_came() -> None:
    part = Part(0, len(DATA))
    with serving(send(b"200 OK\r\n" + SIZE, DATA[:90_000])) as url:
        place = Place(url, {}, has_ranges=True, is_elsewhere=False)
        with httpx2.Client() as client:
            handover = Handover()
            await trio.to_thread.run_sync(open_body, client, place, None, 60.0, handover)
            started = trio.current_time()
            with closing(handover.take()) as body, trio.move_on_after(0.3) as scope:
                copy = partial(copy_body, body, part, Bytes(), Bandwidth(), 60.0)
                await trio.to_thread.run_sync(copy)

    assert scope.cancelled_caught
    assert trio.current_time() - started < 3
    assert part.at == 90_000


async def test_a_limit_is_kept() -> None:
    started = trio.current_time()
    with serving(send(b"200 OK\r\n" + SIZE, DATA)) as url:
        assert await fetch(url, limit=Bandwidth(10_000_000)) == DATA

    assert trio.current_time() - started >= len(DATA) / 10_000_000 - 0.11


def test_a_body_that_nobody_takes_is_closed() -> None:
    closed: list[str] = []

    class FakeBody(Body):
        def __init__(self, name: str) -> None:
            self.name = name

        def close(self) -> None:
            closed.append(self.name)

    before, after = Handover(), Handover()
    before.put(FakeBody("before"))
    before.leave()
    after.leave()
    after.put(FakeBody("after"))

    assert closed == ["before", "after"]
