"""Hostile bytes on real sockets: each gets a clear status or a close, and a stream beside it does not notice.

The same bytes against a real daemon, and what they do to its memory, are at the end.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import h11
import httpx2
import pytest
import trio
import trio.testing

from kit.bystander import run_bystander
from kit.daemon import Daemon, wait_until
from kit.fake_olm import FakeOlm, Until
from kit.live_http import LiveServer, open_live_server, read_all
from kit.memory_http import open_memory_server
from kit.raw_http import ATTACKS, CHAT, CLOSE, HOST, VERSION, post, statuses
from olm.api import body, connection, replies
from olm.chat.types import Done, Piece


@asynccontextmanager
async def under_attack() -> AsyncIterator[LiveServer]:
    """A server with a stream that began before the block and must end well after it."""
    olm = FakeOlm()
    gate = trio.Event()
    olm.models.script = [Piece(content="a"), Until(gate), Piece(content="b"), Done("stop")]
    async with open_live_server(olm) as server, await server.connect() as neighbour:
        await neighbour.send_all(post(CHAT, CLOSE))
        begun = bytes(await neighbour.receive_some())
        yield server
        gate.set()
        rest = await read_all(neighbour)
        with trio.fail_after(5):
            await server.api.gate.wait_idle()
    assert b'"content":"b"' in begun + rest
    assert rest.endswith(b"0\r\n\r\n")


def error_of(answer: bytes) -> str:
    return str(json.loads(answer.partition(b"\r\n\r\n")[2])["error"])


@pytest.mark.parametrize("name", ATTACKS)
async def test_bytes_of_ill_will(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "LINGER_S", 0.05)
    attack, expected = ATTACKS[name]
    async with under_attack() as server:
        answered = await server.exchange(attack)
        after = await server.exchange(VERSION)

    [status] = statuses(answered)  # one answer: nothing was smuggled in
    assert status in expected
    assert statuses(after) == (200,)


# --- JSON -----------------------------------------------------------------------------------------------------------


async def test_json_cut_anywhere_is_said_to_be() -> None:
    async with under_attack() as server, await server.connect() as stream:
        for end in range(1, len(CHAT)):
            await stream.send_all(post(CHAT[:end]))
            answered = bytes(await stream.receive_some())
            while b'"}' not in answered:
                answered += bytes(await stream.receive_some())

            assert statuses(answered) == (400,)
            assert error_of(answered) == "unexpected EOF"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{'model':1}", "invalid character '\\'' looking for beginning of object key string"),
        (b'{"model":1,}', "invalid character '}' looking for beginning of object key string"),
        (b'{"model":tru}', "invalid character '}' in literal true (expecting 'e')"),
        (
            b'{"model":5}',
            "json: cannot unmarshal number into Go struct field ChatRequest.model of type string",
        ),
        (
            b'{"messages":"x"}',
            "json: cannot unmarshal string into Go struct field ChatRequest.messages of type []api.Message",
        ),
        (b"[]", "json: cannot unmarshal array into Go value of type api.ChatRequest"),
        (b'{"format":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "exceeded max depth"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else "",
)
async def test_bad_json_gets_gos_words(text: bytes, words: str) -> None:
    async with under_attack() as server:
        answered = await server.exchange(post(text, CLOSE))

    assert statuses(answered) == (400,)
    assert error_of(answered) == words


# --- size -----------------------------------------------------------------------------------------------------------


async def send_all(stream: trio.SocketStream, piece: bytes, n_pieces: int) -> None:
    try:
        for _ in range(n_pieces):
            await stream.send_all(piece)
    except trio.BrokenResourceError:
        pass  # the server has closed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("framing", "piece"),
    [
        (b"Content-Length: %d\r\n" % (100 << 20), bytes(1 << 20)),
        (b"Transfer-Encoding: chunked\r\n", b"100000\r\n" + bytes(1 << 20) + b"\r\n"),
    ],
    ids=["declared", "chunked"],
)
async def test_100_mb_are_refused_and_the_client_reads_why(framing: bytes, piece: bytes) -> None:
    async with under_attack() as server, await server.connect() as stream:
        await stream.send_all(post(b"", CLOSE, framing))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, stream, piece, 100)
            with trio.fail_after(20):
                answered = await read_all(stream)
            nursery.cancel_scope.cancel()

    assert statuses(answered) == (413,)
    assert error_of(answered) == "request body too large: olm takes up to 64 MiB"


async def test_expect_100_continue_does_not_help_a_body_that_is_too_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replies, "LINGER_S", 0.05)
    async with under_attack() as server:
        answered = await server.exchange(
            post(b"", CLOSE, b"Expect: 100-continue\r\n", b"Content-Length: 999999999\r\n")
        )

    assert statuses(answered)[-1] == 413


async def test_a_body_in_pieces_of_one_byte_is_the_same_body() -> None:
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in CHAT)
    async with under_attack() as server:
        answered = await server.exchange(
            post(chunks.replace(b"tiny", b"t") + b"0\r\n\r\n", CLOSE, b"Transfer-Encoding: chunked\r\n",
                 path=b"/api/show")
        )  # fmt: skip

    assert statuses(answered) == (200,)


# --- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "begun", [b"", b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n" + HOST, b"\r", b"GET / HTTP/1.1\rHost: a\r\r"]
)  # fmt: skip
async def test_a_head_that_does_not_come_ends_the_connection(
    begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.05)
    async with under_attack() as server:
        assert statuses(await server.exchange(begun)) in ((), (400,))


async def test_a_head_that_drips_is_cut_off_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.1)
    async with under_attack() as server, await server.connect() as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\n")
        n_sent = 0
        with trio.fail_after(5):
            try:
                while True:
                    await stream.send_all(b"X")
                    n_sent += 1
                    with trio.move_on_after(0.01):
                        if not await stream.receive_some():
                            break
            except trio.BrokenResourceError:
                pass

    assert n_sent > 2, "it was cut off while it sent"


async def test_a_body_that_stops_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_IDLE_S", 0.05)
    monkeypatch.setattr(replies, "LINGER_S", 0.02)
    async with under_attack() as server:
        answered = await server.exchange(post(b'{"model', CLOSE, b"Content-Length: 100\r\n"))

    assert statuses(answered) == (408,)
    assert error_of(answered) == "the request body did not arrive in time"


async def test_a_body_that_drips_is_told_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_IDLE_S", 0.1)
    monkeypatch.setattr(replies, "LINGER_S", 0.02)
    async with under_attack() as server, await server.connect() as stream:
        await stream.send_all(post(b"", CLOSE, b"Content-Length: 100000\r\n"))
        answered = b""
        with trio.fail_after(5):
            while not answered:
                await stream.send_all(b" ")
                with trio.move_on_after(0.02):  # never idle for long
                    answered = bytes(await stream.receive_some())
        answered += await read_all(stream)

    assert statuses(answered) == (408,)


# --- clients that leave or hurry ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "begun", [b"GET / HT", post(b"", b"Content-Length: 100\r\n"), post(b"5\r\nab", b"Transfer-Encoding: chunked\r\n")]
)  # fmt: skip
async def test_half_closing_in_the_middle_of_a_request_ends_it(begun: bytes) -> None:
    async with under_attack() as server:
        with trio.fail_after(5):
            answered = await server.exchange(begun, half_close=True)

    assert statuses(answered) in ((), (400,))


async def test_a_hundred_pipelined_requests_are_answered_in_order() -> None:
    ids = [f"request-{i}" for i in range(100)]
    requests = [
        b"GET /api/version HTTP/1.1\r\n" + HOST + b"X-Request-Id: %b\r\n\r\n" % name.encode()
        for name in ids
    ]
    async with under_attack() as server:
        answered = await server.exchange(b"".join(requests) + VERSION)

    found = [
        line.split(b": ")[1].decode() for line in answered.split(b"\r\n") if b"x-request-id" in line
    ]
    assert found[:100] == ids
    assert statuses(answered) == (200,) * 101


@pytest.mark.parametrize(
    ("close", "limit_bytes"),
    [(b"", 2 << 16), (CLOSE, 1 << 16)],
    ids=["pipelined", "after the last"],
)
async def test_what_comes_behind_a_running_request_does_not_pile_up(
    close: bytes, limit_bytes: int
) -> None:
    olm = FakeOlm()
    gate = trio.Event()
    olm.models.script = [Piece(content="a"), Until(gate), Done("stop")]
    async with open_memory_server(olm) as server:
        stream = server.connect().stream
        await stream.send_all(post(CHAT, close))
        begun = await stream.receive_some()
        for _ in range(50):
            await stream.send_all(VERSION * 1000)
            await trio.testing.wait_all_tasks_blocked()
        [served] = server.connections._open
        reader = served._http.connection
        n_kept = len(reader.trailing_data[0])
        gate.set()
        with trio.fail_after(5):
            while b'"done":true' not in begun:
                begun += await stream.receive_some()

    assert isinstance(reader, h11.Connection)
    assert n_kept <= limit_bytes


# --- a real daemon --------------------------------------------------------------------------------------------------

StartDaemon = Callable[..., Daemon]


def resident_mib(daemon: Daemon, field: str = "VmRSS") -> int:
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) >> 10


def exchange(daemon: Daemon, request: bytes) -> bytes:
    """Send bytes and read to the end; a close in the middle of sending is an answer too."""
    url = httpx2.URL(daemon.url)
    answered = b""
    with socket.create_connection((url.host, url.port or 0), timeout=30) as client:
        try:
            client.sendall(request)
            while data := client.recv(1 << 16):
                answered += data
        except OSError:
            pass
    return answered


@pytest.mark.daemon
@pytest.mark.native
@pytest.mark.slow
def test_a_daemon_under_every_attack_keeps_its_memory_and_its_streams(
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon(OLM_SPARE_WORKER="0")
    big = post(bytes(100 << 20), CLOSE)
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    big_in_chunks = post(chunk * 100, CLOSE, b"Transfer-Encoding: chunked\r\n")
    url = httpx2.URL(daemon.url)

    def round_trip() -> None:
        for name, (attack, expected) in ATTACKS.items():
            answered = statuses(exchange(daemon, attack))
            assert answered == () or answered[0] in expected, name
        exchange(daemon, big)

    with run_bystander(daemon) as bystander:
        round_trip()
        bystander.wait()
        before = resident_mib(daemon)
        held = [socket.create_connection((url.host, url.port or 0)) for _ in range(200)]
        for index, client in enumerate(held):
            client.sendall(
                (b"GET / HTTP/1.1\r\nX: ", post(b"{", b"Content-Length: 99\r\n"))[index % 2]
            )
        threads = [threading.Thread(target=round_trip) for _ in range(2)]
        for thread in threads:
            thread.start()
        exchange(daemon, big_in_chunks)
        for thread in threads:
            thread.join()
        for client in held:
            client.close()
        bystander.wait()
        trouble = bystander.trouble

    assert trouble == ""
    assert exchange(daemon, VERSION).startswith(b"HTTP/1.1 200")
    wait_until(lambda: resident_mib(daemon) < before + 24, what="memory to be given back")
    assert resident_mib(daemon, "VmHWM") < before + 200, "bodies in flight are bounded all together"
    assert "Traceback" not in daemon.log
