"""The protocol of a connection: when it has been idle for too long, and in how many writes an answer leaves."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import trio
import trio.testing
from hypercorn.trio.worker_context import EventWrapper

from kit.fake_olm import FakeOlm
from kit.live_http import served_in_thread
from olm.api.http1 import IdleTimer

LIMIT_S = 300.0


async def test_an_idle_connection_expires(autojump_clock: trio.testing.MockClock) -> None:
    timer = IdleTimer(LIMIT_S, EventWrapper())
    timer.start()

    assert await timer.expired()
    assert trio.current_time() >= LIMIT_S


async def test_requests_put_the_end_off(autojump_clock: trio.testing.MockClock) -> None:
    timer = IdleTimer(LIMIT_S, EventWrapper())
    timer.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timer.expired)
        await trio.sleep(LIMIT_S - 1)
        timer.stop()
        await trio.sleep(10 * LIMIT_S)
        timer.start()
        restarted = trio.current_time()

    assert trio.current_time() == restarted + LIMIT_S


async def test_a_stopping_server_ends_idle_connections_and_waits_for_busy_ones(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ending = EventWrapper()
    idle, busy = IdleTimer(LIMIT_S, ending), IdleTimer(LIMIT_S, ending)
    ended: list[tuple[str, float]] = []

    async def watch(name: str, timer: IdleTimer) -> None:
        assert await timer.expired()
        ended.append((name, trio.current_time()))

    async with trio.open_nursery() as nursery:
        idle.start()
        busy.start()
        busy.stop()
        nursery.start_soon(watch, "idle", idle)
        nursery.start_soon(watch, "busy", busy)
        began = trio.current_time()
        await trio.sleep(5)
        await ending.set()
        await trio.sleep(5)
        busy.start()

    assert ended == [("idle", began + 5), ("busy", began + 10)]


async def test_a_connection_that_ended_by_itself_has_not_expired(
    autojump_clock: trio.testing.MockClock,
) -> None:
    timer = IdleTimer(LIMIT_S, EventWrapper())
    timer.start()
    timer.end()

    assert not await timer.expired()


def test_an_answer_with_a_length_leaves_in_one_piece() -> None:
    """Head and body together: each write is a packet, and wakes the client."""
    with served_in_thread(FakeOlm("tiny")) as url:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port), 10) as connection:
            pieces = []
            for path in ("/api/version", "/api/tags"):
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                pieces.append(connection.recv(1 << 16))

    for piece in pieces:
        head, end, body = piece.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert end
        assert f"content-length: {len(body)}".encode() in head.lower()
        assert body
