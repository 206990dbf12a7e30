"""What clients are told about the queue: their place on a refusal and in an answer that waited, and all lines by model."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from kit.fake_olm import FakeOlm
from kit.memory_http import open_memory_server
from olm.actors.client import ChatRequest, EmbedRequest
from olm.actors.queue import QueueRow
from olm.api.asking import queue_client
from olm.errors import Busy

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
PATHS = ("/api/chat", "/v1/chat/completions", "/v1/messages")
BUSY = "server busy, please try again.  maximum pending requests exceeded"


@pytest.mark.parametrize("path", PATHS)
async def test_a_refusal_tells_place_and_time(autojump_clock: MockClock, path: str) -> None:
    olm = FakeOlm()
    olm.models.enter_error = Busy(BUSY, retry_after_s=12.0, queue_position=513)
    async with open_memory_server(olm) as server:
        reply = await server.connect().post(path, {**CHAT, "max_tokens": 5})

    assert reply.status == 503
    assert BUSY in reply.text
    assert (reply.headers["retry-after"], reply.headers["x-olm-queue-position"]) == ("12", "513")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", PATHS)
async def test_an_answer_that_waited_says_so(
    autojump_clock: MockClock, path: str, *, stream: bool
) -> None:
    olm = FakeOlm()
    olm.models.queue_position, olm.models.load_ns = 3, 2_345_678_901
    async with open_memory_server(olm) as server:
        client = server.connect()
        reply = await client.post(path, {**CHAT, "max_tokens": 5, "stream": stream})
        olm.models.queue_position = 0
        at_once = await client.post(path, {**CHAT, "max_tokens": 5, "stream": stream})

    assert reply.status == 200
    assert (reply.headers["x-olm-queue-position"], reply.headers["x-olm-queue-ms"]) == ("3", "2345")
    assert not [name for name in at_once.headers if "queue" in name]


async def test_requests_say_who_asks(autojump_clock: MockClock) -> None:
    async with open_memory_server() as server:
        client = server.connect()
        await client.post("/api/chat", CHAT)
        await client.post("/api/embed", {"model": "tiny", "input": "a"})
        chat, embed = server.olm.models.requests

    assert isinstance(chat, ChatRequest)
    assert isinstance(embed, EmbedRequest)
    assert (chat.client, embed.client) == ("127.0.0.1", "127.0.0.1")


async def test_the_lines_are_listed(autojump_clock: MockClock) -> None:
    olm = FakeOlm()
    olm.models.queue_rows = [QueueRow("a:latest", "ready", 4, 4, 1, 7, 2, 1.23456, 0.5)]
    async with open_memory_server(olm) as server:
        reply = await server.connect().get("/api/queue")

    row = {"model": "a:latest", "state": "ready", "slots": 4, "running": 4, "paused": 1}
    rest = {"waiting": 7, "clients": 2, "longest_wait_s": 1.235, "mean_turn_s": 0.5}
    assert reply.json == {"models": [row | rest], "running": 4, "waiting": 7}


def test_a_client_is_a_name_an_address_or_a_network() -> None:
    assert queue_client("key:ann") == "key:ann"
    assert queue_client("192.0.2.7") == "192.0.2.7"
    assert queue_client("2001:db8:1:2:a::1") == queue_client("2001:db8:1:2:ffff::")
    assert queue_client("2001:db8:1:2::1") != queue_client("2001:db8:1:3::1")
    assert queue_client("fe80::1%eth0") == "fe80::/64"
