"""What only real sockets show: hostile bytes, slow and half-closed clients, stalls, drain, binding. All on loopback."""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
from pathlib import Path

import pytest
import trio

from kit.fake_olm import FakeOlm, Until, answer
from kit.live_http import LiveServer, open_live_server, read_all, read_reply
from olm.api import connection, replies, serve
from olm.api.sockets import open_listeners
from olm.chat.types import Done, Piece
from olm.config import Address
from olm.errors import OlmError

HOST = b"Host: localhost\r\n"
CHAT = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "x"}]}).encode()


def post(path: str, body: bytes, *headers: bytes) -> bytes:
    head = b"POST %b HTTP/1.1\r\n" % path.encode() + HOST + b"".join(h + b"\r\n" for h in headers)
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def closing(request: bytes) -> bytes:
    return request.replace(HOST, HOST + b"Connection: close\r\n", 1)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0


# --- hostile bytes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # a TLS hello
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", 400),
        (b"GET /\x01 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 200_000 + b"\r\n\r\n", 431),
        (
            b"GET / HTTP/1.1\r\n"
            + HOST
            + b"".join(b"X-%d: a\r\n" % i for i in range(100))
            + b"Connection: close\r\n\r\n",
            431,
        ),
        (b"GET http://evil.example.com/ HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n", 403),
        (
            b"GET http://localhost/api/version HTTP/1.1\r\nHost: evil.example.com\r\nConnection: close\r\n\r\n",
            200,
        ),
        (b"GET foo HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / HTTP/1.0\r\n\r\n", 200),
        (
            b"POST /api/chat HTTP/1.1\r\n"
            + HOST
            + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nabc\r\n0\r\n\r\n",
            400,
        ),
    ],
)
async def test_bytes_that_are_no_request(request_bytes: bytes, status: int) -> None:
    async with open_live_server() as server:
        answered = await server.exchange(request_bytes)

        assert status_of(answered) == status
        assert (
            status_of(await server.exchange(closing(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"))) == 200
        )


async def test_an_offer_of_http2_is_ignored() -> None:
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    async with open_live_server() as server:
        stream = await server.connect()
        await stream.send_all(b"GET /api/version HTTP/1.1\r\n" + HOST + upgrade + b"\r\n")
        answered = bytes(await stream.receive_some())
        await stream.aclose()

    assert status_of(answered) == 200


async def test_websockets_are_refused() -> None:
    upgrade = (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    async with open_live_server() as server:
        answered = await server.exchange(b"GET / HTTP/1.1\r\n" + HOST + upgrade + b"\r\n")

    assert status_of(answered) == 403


async def test_chunked_bodies_work() -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (1, CHAT[i : i + 1]) for i in range(len(CHAT)))
    async with open_live_server() as server:
        answered = await server.exchange(
            b"POST /api/chat HTTP/1.1\r\n"
            + HOST
            + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            + chunks
            + b"0\r\n\r\n"
        )

    assert status_of(answered) == 200
    assert b'"done":true' in answered


async def test_expect_100_continue_gets_its_go_ahead() -> None:
    async with open_live_server() as server:
        stream = await server.connect()
        head, _, body = post(
            "/api/chat", CHAT, b"Expect: 100-continue", b"Connection: close"
        ).partition(b"\r\n\r\n")
        await stream.send_all(head + b"\r\n\r\n")
        go_ahead = bytes(await stream.receive_some())
        await stream.send_all(body)
        answered = await read_all(stream)
        await stream.aclose()

    assert go_ahead.startswith(b"HTTP/1.1 100")
    assert status_of(answered) == 200


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with open_live_server() as server:
        answered = await server.exchange(
            post("/api/chat", CHAT) + closing(b"GET /api/version HTTP/1.1\r\n" + HOST + b"\r\n")
        )

    assert answered.count(b"HTTP/1.1 200") == 2
    assert answered.index(b'"done":true') < answered.index(b'"version"')


async def test_a_client_that_sends_its_head_byte_by_byte_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.05)
    async with open_live_server() as server:
        stream = await server.connect()
        await stream.send_all(b"GET / HTTP/1.1\r\nX: ")

        answered = await read_all(stream)
        await stream.aclose()

    assert answered == b""


async def test_old_clients_get_streams_without_chunks() -> None:
    async with open_live_server() as server:
        answered = await server.exchange(post("/api/chat", CHAT).replace(b"HTTP/1.1", b"HTTP/1.0"))

    head, _, body = answered.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert [json.loads(line)["done"] for line in body.splitlines()] == [False, False, True]


# --- bodies that are too large --------------------------------------------------------------------------------------


async def test_a_declared_giant_is_refused_and_the_client_reads_why() -> None:
    async with open_live_server() as server:
        stream = await server.connect()
        size = 100 << 20
        await stream.send_all(
            b"POST /api/chat HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % size
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_until_closed, stream, size)
            answered = await read_reply(stream)
            nursery.cancel_scope.cancel()
        await stream.aclose()

    assert status_of(answered) == 413
    assert b"request body too large: olm takes up to 64 MiB" in answered


async def _send_until_closed(stream: trio.SocketStream, size: int) -> None:
    try:
        for _ in range(size >> 20):
            await stream.send_all(bytes(1 << 20))
    except trio.BrokenResourceError:
        pass


async def test_an_early_answer_does_not_leave_a_connection_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rest of a refused body fills hypercorn's queue; nobody may wait on it for ever."""
    monkeypatch.setattr(replies, "LINGER_S", 0.05)
    async with open_live_server() as server:
        stream = await server.connect()
        await stream.send_all(
            b"POST /api/chat HTTP/1.1\r\nHost: evil.example.com\r\nContent-Length: 90000000\r\n\r\n"
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_until_closed, stream, 90_000_000)
            with trio.fail_after(5):
                answered = await read_all(stream)
            nursery.cancel_scope.cancel()
        await stream.aclose()
        with trio.fail_after(5):
            await server.api.gate.wait_idle()

    assert status_of(answered) == 403


async def test_all_bodies_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("olm.api.gate.MAX_BUFFERED_BYTES", 1000)
    async with open_live_server() as server:
        answered = await server.exchange(post("/api/chat", b" " * 2000, b"Connection: close"))

    assert status_of(answered) == 503
    assert b"retry-after: 1" in answered.lower()


async def test_a_body_counts_until_its_request_has_taken_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("olm.api.gate.MAX_BUFFERED_BYTES", 2 * len(CHAT) - 1)
    olm = FakeOlm()
    olm.models.script = [Piece(content="a"), Until(trio.Event())]
    async with open_live_server(olm) as server:
        streams = [await server.connect() for _ in range(3)]
        for stream in streams:
            await stream.send_all(post("/api/chat", CHAT))
            assert status_of(bytes(await stream.receive_some())) == 200
            await trio.testing.wait_all_tasks_blocked()
        for stream in streams:
            await stream.aclose()


# --- clients that leave or stall ------------------------------------------------------------------------------------


async def test_half_closing_counts_as_leaving() -> None:
    """As in Go: a client that closes its sending side has gone."""
    olm = FakeOlm()
    olm.models.script = [Piece(content="a"), Until(trio.Event())]
    async with open_live_server(olm) as server:
        stream = await server.connect()
        await stream.send_all(post("/api/chat", CHAT))
        await stream.receive_some()
        await stream.send_eof()
        with trio.fail_after(5):
            await olm.models.all_ended.wait()
        await stream.aclose()

    assert olm.models.n_left_early == 1


async def test_a_reset_ends_the_turn() -> None:
    olm = FakeOlm()
    olm.models.script = [Piece(content="a"), Until(trio.Event())]
    async with open_live_server(olm) as server:
        stream = await server.connect()
        await stream.send_all(post("/api/chat", CHAT))
        await stream.receive_some()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()
        with trio.fail_after(5):
            await olm.models.all_ended.wait()

    assert olm.models.n_left_early == 1


def _endless(n_pieces: int = 100_000) -> list[Piece | Done]:
    return [*[Piece(content="x" * 500)] * n_pieces, Done("stop")]


async def _stalled_client(server: LiveServer) -> trio.SocketStream:
    """A client that asks for more than fits into the sockets' buffers, and reads nothing."""
    stream = await server.connect()
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await stream.send_all(post("/api/chat", CHAT))
    await stream.receive_some(1)
    return stream


async def test_a_stalled_reader_holds_back_only_itself() -> None:
    olm = FakeOlm()
    async with open_live_server(olm) as server:
        olm.models.script = list(_endless())
        stalled = await _stalled_client(server)
        olm.models.script = answer("quick")
        with trio.fail_after(5):
            answered = await server.exchange(post("/api/chat", CHAT, b"Connection: close"))
        n_running = olm.models.n_running
        await stalled.aclose()
        with trio.fail_after(5):
            await olm.models.all_ended.wait()

    assert b"quick" in answered
    assert n_running == 1  # held back, not ended


async def test_a_stalled_reader_that_reads_on_gets_everything() -> None:
    olm = FakeOlm()
    olm.models.script = list(_endless(6000))
    async with open_live_server(olm) as server:
        stream = await _stalled_client(server)
        data = bytearray(b"H")
        with trio.fail_after(20):
            while not data.endswith(b"0\r\n\r\n"):
                data += await stream.receive_some()
        await stream.aclose()

    assert data.count(b'"done":false') == 6000
    assert data.count(b'"done":true') == 1


async def test_a_stalled_reader_cannot_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """hypercorn shields its writes without a bound; closing the socket under them ends them."""
    monkeypatch.setattr(serve, "ABORT_GRACE_S", 0.02)
    monkeypatch.setattr(serve, "CLOSE_GRACE_S", 0.02)
    olm = FakeOlm()
    olm.models.script = list(_endless())
    async with open_live_server(olm, drain_timeout_s=0.05) as server:
        stream = await _stalled_client(server)
        server.shutdown.set()
        with trio.fail_after(8):
            await server.ended.wait()
        await stream.aclose()

    assert olm.models.n_running == 0


async def test_cancelling_the_server_closes_stalled_clients() -> None:
    olm = FakeOlm()
    olm.models.script = list(_endless())
    with trio.fail_after(5):
        async with open_live_server(olm) as server:
            stream = await _stalled_client(server)

    assert olm.models.n_running == 0
    await stream.aclose()


# --- drain ----------------------------------------------------------------------------------------------------------


async def test_drain_lets_streams_end_and_refuses_new_ones() -> None:
    olm = FakeOlm()
    gate = trio.Event()
    olm.models.script = [Piece(content="a"), Until(gate), *answer("b")]
    async with open_live_server(olm) as server:
        running, idle = await server.connect(), await server.connect()
        await idle.send_all(b"GET /api/version HTTP/1.1\r\n" + HOST + b"\r\n")
        await read_reply(idle)
        await running.send_all(post("/api/chat", CHAT))
        first = bytes(await running.receive_some())

        server.shutdown.set()
        await trio.testing.wait_all_tasks_blocked()
        await idle.send_all(post("/api/chat", CHAT))
        on_open = await read_all(idle)
        on_new = await server.exchange(post("/api/chat", CHAT))
        gate.set()
        rest = await read_all(running)
        await idle.aclose()
        await running.aclose()
        with trio.fail_after(5):
            await server.ended.wait()

    assert status_of(on_open) == status_of(on_new) == 503
    assert b"retry-after" in on_new.lower()
    assert status_of(first) == 200
    assert b'"done":true' in rest


async def test_inherited_sockets_are_left_to_the_successor() -> None:
    """Under socket activation a client that comes during the drain waits for the next daemon instead of a 503."""
    olm = FakeOlm()
    gate = trio.Event()
    olm.models.script = [Piece(content="a"), Until(gate), *answer("b")]
    with socket.create_server(("127.0.0.1", 0)) as given:
        async with open_live_server(olm, fds=[os.dup(given.fileno())]) as server:
            running = await server.connect()
            await running.send_all(post("/api/chat", CHAT))
            await running.receive_some()
            server.shutdown.set()
            await trio.testing.wait_all_tasks_blocked()
            late = await server.connect()
            gate.set()
            with trio.fail_after(5):
                await server.ended.wait()
        given.setblocking(True)
        accepted, peer = given.accept()
        ours = late.socket.getsockname()
        accepted.close()
        await late.aclose()
        await running.aclose()

    assert peer == ours


async def test_a_stream_that_outlives_the_drain_is_told_in_band() -> None:
    olm = FakeOlm()
    olm.models.script = [Piece(content="a"), Until(trio.Event())]
    async with open_live_server(olm, drain_timeout_s=0.02) as server:
        stream = await server.connect()
        await stream.send_all(post("/api/chat", CHAT))
        first = bytes(await stream.receive_some())
        server.shutdown.set()
        rest = await read_all(stream)
        await stream.aclose()
        with trio.fail_after(5):
            await server.ended.wait()

    assert b'{"error":"server is shutting down, please try again later"}\n' in first + rest
    assert rest.endswith(b"0\r\n\r\n")  # closed properly


# --- binding --------------------------------------------------------------------------------------------------------


def test_a_taken_port_is_one_clear_line() -> None:
    with open_listeners(Address("127.0.0.1", 0)) as first:
        port = first.sockets[0].getsockname()[1]

        with pytest.raises(OlmError) as caught, open_listeners(Address("127.0.0.1", port)):
            pass

    assert caught.value.message == (
        f"cannot listen on 127.0.0.1:{port}: address already in use (is olm or ollama running there already?)"
    )


def test_an_address_of_somebody_else_is_one_clear_line() -> None:
    with (
        pytest.raises(OlmError, match=r"cannot listen on 192\.0\.2\.1:0"),
        open_listeners(Address("192.0.2.1", 0)),
    ):
        pass


def test_ipv6_has_brackets_in_its_url() -> None:
    with open_listeners(Address("::1", 0)) as listeners:
        assert listeners.urls[0].startswith("http://[::1]:")


def test_options_of_the_listening_socket() -> None:
    with open_listeners(Address("127.0.0.1", 0)) as listeners:
        sock = listeners.sockets[0]

        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert not sock.get_inheritable()


async def test_unix_sockets_are_private_asked_first_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "olm.sock"
    address = Address("localhost", 0, unix_path=str(path))
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()

    with open_listeners(address) as listeners:
        assert listeners.urls == [f"unix:{path}"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(OlmError, match="already in use"), open_listeners(address):
            pass
        assert path.exists()

    assert not path.exists()


async def test_unix_sockets_serve_whatever_the_host_says(tmp_path: Path) -> None:
    path = str(tmp_path / "olm.sock")
    async with (
        open_live_server(address=Address("localhost", 0, unix_path=path)),
        await trio.open_unix_socket(path) as stream,
    ):
        await stream.send_all(b"GET /api/version HTTP/1.1\r\nHost: anything\r\n\r\n")
        answered = await read_reply(stream)
        await stream.send_all(post("/api/chat", CHAT, b"Connection: close"))
        streamed = await read_all(stream)

    assert status_of(answered) == status_of(streamed) == 200
    assert b'"done":true' in streamed


def test_a_file_in_the_way_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")

    with (
        pytest.raises(OlmError, match="not a socket"),
        open_listeners(Address("localhost", 0, unix_path=str(path))),
    ):
        pass

    assert path.read_text() == "mine"


def test_inherited_sockets_are_taken_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        port = given.getsockname()[1]
        with open_listeners(Address("127.0.0.1", 1), fds=[os.dup(given.fileno())]) as listeners:
            assert listeners.inherited
            assert listeners.urls == [f"http://127.0.0.1:{port}"]
