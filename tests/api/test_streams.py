"""Streams over time: framing, errors in the middle, clients that leave or stall, abort; all in virtual time."""

from __future__ import annotations

import json

import h11
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kit.fake_olm import FakeOlm, Pause, Until, answer
from kit.memory_http import MemoryClient, MemoryServer
from olm.chat.types import Done, Piece
from olm.errors import RunnerCrashed

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}
CRASH = "model runner has unexpectedly stopped"


async def test_each_line_is_sent_when_it_is_there(
    client: MemoryClient, olm: FakeOlm, autojump_clock: MockClock
) -> None:
    olm.models.script = [Piece(content="a"), Pause(3600), *answer("b")]
    await client.send("POST", "/api/chat", CHAT)
    arrivals: list[tuple[str, int]] = []

    while (event := await client.next_event()) is not None:
        if isinstance(event, h11.Data):
            now = round(trio.current_time())
            lines = map(json.loads, bytes(event.data).splitlines())
            arrivals.extend((line["message"]["content"], now) for line in lines)

    assert arrivals == [("a", 0), ("b", 3600), ("", 3600)]


async def test_hours_of_silence_do_not_end_a_stream(
    client: MemoryClient, olm: FakeOlm, autojump_clock: MockClock
) -> None:
    """None of the stack's time limits for web forms may cut a slow load or a long answer."""
    olm.models.script = [Pause(5 * 3600), Piece(content="a"), Pause(5 * 3600), *answer("b")]

    reply = await client.post("/api/chat", CHAT)

    assert [line["done"] for line in reply.lines] == [False, False, True]


async def test_events_that_wait_share_a_write_but_not_a_line(
    client: MemoryClient, olm: FakeOlm
) -> None:
    olm.models.script = answer(*"abcdefgh")

    reply = await client.post("/api/chat", CHAT)

    assert len(reply.lines) == 9
    assert len(reply.chunks) < 9
    assert all(chunk.endswith(b"\n") for chunk in reply.chunks)


async def test_an_error_in_the_middle_is_a_line_of_its_own(
    client: MemoryClient, olm: FakeOlm
) -> None:
    olm.models.script = [Piece(content="a"), RunnerCrashed(CRASH)]

    reply = await client.post("/api/chat", CHAT)

    assert reply.status == 200
    assert reply.lines[0]["message"] == {"role": "assistant", "content": "a"}
    assert reply.lines[1:] == [{"error": CRASH}]


async def test_an_error_as_the_first_event_has_its_status(
    client: MemoryClient, olm: FakeOlm
) -> None:
    olm.models.script = [RunnerCrashed(CRASH)]

    reply = await client.post("/api/chat", CHAT)

    assert (reply.status, reply.error) == (500, CRASH)
    assert reply.headers["content-type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_of_the_turn_is_found_in_its_group(
    client: MemoryClient, olm: FakeOlm, stream: bool
) -> None:
    """The fake's turn runs in a nursery, so the error comes out as a group; clients see the error."""
    olm.models.script = [RunnerCrashed(CRASH)]

    reply = await client.post("/api/chat", {**CHAT, "stream": stream})

    assert (reply.status, reply.error) == (500, CRASH)


async def test_a_bug_in_the_middle_is_told_in_band(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.script = [Piece(content="a"), Pause(0), ZeroDivisionError("oops")]

    reply = await client.request("POST", "/api/chat", CHAT, {"X-Request-Id": "r1"})

    assert reply.lines[-1] == {"error": "internal error, see the log for request r1"}


async def test_a_cancelled_turn_says_so(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.script = [Piece(content="a"), Done("cancelled")]

    streamed = await client.post("/api/chat", CHAT)
    whole = await client.post("/api/chat", {**CHAT, "stream": False})

    assert streamed.lines[-1] == {"error": "request canceled"}
    assert "message" in streamed.lines[0]
    assert (whole.status, whole.error) == (499, "request canceled")


async def test_a_turn_that_just_stops_is_an_error(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.script = [Piece(content="a")]

    streamed = await client.post("/api/chat", CHAT)
    whole = await client.post("/api/chat", {**CHAT, "stream": False})

    assert streamed.lines[-1] == {"error": "the answer ended without a final event"}
    assert whole.status == 500


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_ends_its_turn(
    server: MemoryServer, olm: FakeOlm, stream: bool, autojump_clock: MockClock
) -> None:
    olm.models.script = [Piece(content="a"), Pause(10_000), *answer("b")]
    client = server.connect()
    await client.send("POST", "/api/chat", {**CHAT, "stream": stream})
    await wait_all_tasks_blocked()

    await client.aclose()
    with trio.fail_after(1):
        await olm.models.all_ended.wait()

    assert olm.models.n_left_early == 1
    await wait_all_tasks_blocked()
    assert server.api.gate.n_in_flight == 0


async def test_a_client_that_leaves_before_the_first_event_ends_its_turn(
    server: MemoryServer, olm: FakeOlm, autojump_clock: MockClock
) -> None:
    olm.models.script = [Pause(10_000), *answer("b")]
    client = server.connect()
    await client.send("POST", "/api/chat", CHAT)
    await wait_all_tasks_blocked()

    await client.aclose()
    with trio.fail_after(1):
        await olm.models.all_ended.wait()

    assert olm.models.n_left_early == 1


async def test_the_server_goes_on_after_clients_left_at_every_step(
    server: MemoryServer, olm: FakeOlm
) -> None:
    """The scopes of a stream are entered and left in one task, so no moment of leaving can spoil them."""
    for n_steps in range(60):
        client = server.connect()
        await client.send("POST", "/api/chat", CHAT)
        for _ in range(n_steps):
            await trio.lowlevel.checkpoint()
        await client.aclose()
        await wait_all_tasks_blocked()
        assert server.api.gate.n_in_flight == 0

    reply = await server.connect().post("/api/chat", CHAT)

    assert reply.lines[-1]["done"] is True
    assert olm.models.n_running == 0


async def test_a_reader_that_stalls_holds_back_only_its_own_turn(
    server: MemoryServer, olm: FakeOlm
) -> None:
    stalled, other = server.connect(), server.connect()
    pipe = server.stall(stalled)
    olm.models.script = answer(*["x" * 1000] * 200)

    await stalled.send("POST", "/api/chat", CHAT)
    await wait_all_tasks_blocked()
    n_waiting = olm.models.n_running
    reply = await other.post("/api/chat", CHAT)

    assert n_waiting == 1
    assert len(reply.lines) == 201
    pipe.set()
    assert len((await stalled.read()).lines) == 201


async def test_abort_tells_streams_in_band_and_others_by_status(
    server: MemoryServer, olm: FakeOlm
) -> None:
    forever = trio.Event()
    olm.models.script = [Piece(content="a"), Until(forever)]
    streamed, whole = server.connect(), server.connect()
    await streamed.send("POST", "/api/chat", CHAT)
    await whole.send("POST", "/api/chat", {**CHAT, "stream": False})
    await wait_all_tasks_blocked()

    server.api.gate.abort("test")

    text = "server is shutting down, please try again later"
    assert (await streamed.read()).lines[-1] == {"error": text}
    reply = await whole.read()
    assert (reply.status, reply.error, reply.headers["retry-after"]) == (503, text, "1")
    assert olm.models.n_running == 0


async def test_draining_refuses_new_requests_on_open_connections(
    server: MemoryServer, olm: FakeOlm
) -> None:
    gate = trio.Event()
    olm.models.script = [Piece(content="a"), Until(gate), *answer("b")]
    running, idle = server.connect(), server.connect()
    await idle.get("/api/version")
    await running.send("POST", "/api/chat", CHAT)
    await wait_all_tasks_blocked()

    server.api.gate.drain()
    refused = await idle.get("/api/version")
    gate.set()
    finished = await running.read()

    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert refused.headers["connection"] == "close"
    assert refused.error == "server is shutting down, please try again later"
    assert finished.lines[-1]["done"] is True
    await server.api.gate.wait_idle()


async def test_request_ids_come_back_and_are_harmless(client: MemoryClient) -> None:
    given = await client.get("/api/version", **{"X-Request-Id": "abc_DEF-123"})
    hostile = await client.get("/api/version", **{"X-Request-Id": "a b=c"})
    made = await client.post("/api/chat", CHAT)

    assert given.headers["x-request-id"] == "abc_DEF-123"
    assert hostile.headers["x-request-id"] != "a b=c"
    assert len(made.headers["x-request-id"]) == 16


async def test_the_access_log_has_one_line_a_request(
    client: MemoryClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "olm.access")

    await client.request("POST", "/api/chat", CHAT, {"X-Request-Id": "r7"})
    await client.get("/nope")
    await wait_all_tasks_blocked()

    lines = [record.getMessage() for record in caplog.records if record.name == "olm.access"]
    assert lines[0].startswith("POST /api/chat status=200 ms=")
    assert lines[0].endswith("client=127.0.0.1 id=r7")
    assert lines[1].startswith("GET /nope status=404")


async def test_an_idle_connection_is_closed_after_a_while(
    client: MemoryClient, autojump_clock: MockClock
) -> None:
    """The timer starts also after an answer of Quart's, whose task is cancelled at that very moment."""
    await client.post("/api/chat", CHAT)

    rest = await client.stream.receive_some()

    assert rest == b""
    assert round(trio.current_time()) == 300


async def test_a_client_that_left_keeps_nothing_alive(
    server: MemoryServer, autojump_clock: MockClock
) -> None:
    client = server.connect()
    await client.post("/api/chat", CHAT)

    await client.aclose()
    await server.connections.wait_none_open()

    assert trio.current_time() < 1
