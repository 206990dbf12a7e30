"""`/v1/messages`: whole answers and streams to the byte, signs of life, and errors in the middle of a stream."""

from __future__ import annotations

import json

import h11
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kit.fake_olm import FakeOlm, Pause, Step, answer, called
from kit.memory_http import MemoryClient, MemoryServer, Reply
from olm.chat.types import CallArguments, CallEnd, CallStart, Done, Piece
from olm.errors import Busy, ContextTooLong, LoadFailed, RunnerCrashed

BODY = {"model": "tiny", "max_tokens": 64, "messages": [{"role": "user", "content": "Hello"}]}
STREAM = {**BODY, "stream": True}
DONE = Done("stop", n_prompt=11, n_cached=4, n_generated=7)
USAGE = (
    '"usage":{"input_tokens":7,"cache_creation_input_tokens":0,'
    '"cache_read_input_tokens":4,"output_tokens":7}'
)
PING = 'event: ping\ndata: {"type":"ping"}\n\n'


def events(reply: Reply) -> list[tuple[str, dict[str, object]]]:
    """The server-sent events of an answer; each has one `event` and one `data` line, and both name its type."""
    found = []
    for text in reply.text.removesuffix("\n\n").split("\n\n"):
        event, data = text.split("\n")
        value = json.loads(data.removeprefix("data: "))
        assert event == f"event: {value['type']}"
        found.append((value["type"], value))
    return found


def message_start(reply: Reply) -> str:
    """What a stream has to begin with, given the id it chose."""
    message_id = reply.text.partition('"id":"')[2].partition('"')[0]
    assert message_id.startswith("msg_")
    assert len(message_id) == 28
    return (
        'event: message_start\ndata: {"type":"message_start","message":{"id":"' + message_id + '",'
        '"type":"message","role":"assistant","model":"tiny","content":[],"stop_reason":null,'
        '"stop_sequence":null,"usage":{"input_tokens":1,"cache_creation_input_tokens":0,'
        '"cache_read_input_tokens":0,"output_tokens":0}}}\n\n' + PING
    )


# --- whole ----------------------------------------------------------------------------------------------------------


async def test_a_whole_answer_to_the_byte(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.script = [
        Piece(thinking="Let me "),
        Piece(thinking="see."),
        Piece(content="It is "),
        Piece(content="<b>"),
        *called("get_weather", '{"city": "Paris"}'),
        Piece(content="!"),
        DONE,
    ]

    reply = await client.request("POST", "/v1/messages", BODY, {"X-Request-Id": "r1"})

    message_id = str(reply.json["id"])
    assert message_id.startswith("msg_")
    assert reply.headers["request-id"] == reply.headers["x-request-id"] == "r1"
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    assert reply.text == (
        '{"id":"' + message_id + '","type":"message","role":"assistant","model":"tiny","content":['
        '{"type":"thinking","thinking":"Let me see.","signature":"olm"},'
        '{"type":"text","text":"It is \\u003cb\\u003e"},'
        '{"type":"tool_use","id":"call_00000000","name":"get_weather","input":{"city": "Paris"}},'
        '{"type":"text","text":"!"}],'
        '"stop_reason":"tool_use","stop_sequence":null,' + USAGE + "}"
    )


async def test_an_empty_answer_has_no_blocks(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.script = [DONE]

    assert (await client.post("/v1/messages", BODY)).json["content"] == []


BROKEN: list[Step] = [CallStart(1, "c", "f"), CallArguments(1, '{"a'), CallEnd(1, None)]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("script", "reason", "stop"),
    [
        ([Done("stop")], "end_turn", None),
        ([Done("length")], "max_tokens", None),
        ([Done("stop", stop="END")], "stop_sequence", "END"),
        ([Done("stop", stop="<|im_end|>")], "end_turn", None),
        ([*called("f"), Done("stop")], "tool_use", None),
        ([*called("f"), Done("length")], "tool_use", None),
        ([*called("f"), *BROKEN, Done("length")], "max_tokens", None),
        ([*BROKEN, Done("length")], "max_tokens", None),
        ([*BROKEN, Piece(content="f{a"), Done("stop")], "end_turn", None),
    ],
    ids=[
        "end",
        "length",
        "stop",
        "own stop",
        "call",
        "call, cut",
        "second cut",
        "cut",
        "malformed",
    ],
)
async def test_why_it_stopped(
    client: MemoryClient,
    olm: FakeOlm,
    script: list[Step],
    reason: str,
    stop: str | None,
    stream: bool,
) -> None:
    """A stop string of the Modelfile's is not one of the request's; a call cut off is none to be made."""
    olm.models.script = script

    reply = await client.post(
        "/v1/messages", {**BODY, "stream": stream, "stop_sequences": ["END", ""]}
    )

    if stream:
        (end,) = [value for kind, value in events(reply) if kind == "message_delta"]
        found = end["delta"]
    else:
        found = {key: reply.json[key] for key in ("stop_reason", "stop_sequence")}
    assert found == {"stop_reason": reason, "stop_sequence": stop}


# --- streams --------------------------------------------------------------------------------------------------------


async def test_a_stream_to_the_byte(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.script = [
        Piece(thinking="Hm"),
        Piece(thinking="…", content="It "),
        Piece(content='is "<b>"\n'),
        CallStart(0, "c0", "get_weather"),
        CallArguments(0, '{"ci'),
        CallArguments(0, 'ty":"P"}'),
        CallEnd(0, None),
        DONE,
    ]

    reply = await client.post("/v1/messages", STREAM)

    def event(kind: str, index: int, rest: str = "") -> str:
        return f'event: {kind}\ndata: {{"type":"{kind}","index":{index}{rest}}}\n\n'

    def begin(index: int, block: str) -> str:
        return event("content_block_start", index, f',"content_block":{{{block}}}')

    def delta(index: int, text: str) -> str:
        return event("content_block_delta", index, f',"delta":{{{text}}}')

    def end(index: int) -> str:
        return event("content_block_stop", index)

    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["request-id"] == reply.headers["x-request-id"]
    assert reply.text == "".join(
        [
            message_start(reply),
            begin(0, '"type":"thinking","thinking":"","signature":""'),
            delta(0, '"type":"thinking_delta","thinking":"Hm"'),
            delta(0, '"type":"thinking_delta","thinking":"…"'),
            delta(0, '"type":"signature_delta","signature":"olm"'),
            end(0),
            begin(1, '"type":"text","text":""'),
            delta(1, '"type":"text_delta","text":"It "'),
            delta(1, '"type":"text_delta","text":"is \\"\\u003cb\\u003e\\"\\n"'),
            end(1),
            begin(2, '"type":"tool_use","id":"c0","name":"get_weather","input":{}'),
            delta(2, '"type":"input_json_delta","partial_json":"{\\"ci"'),
            delta(2, '"type":"input_json_delta","partial_json":"ty\\":\\"P\\"}"'),
            end(2),
            'event: message_delta\ndata: {"type":"message_delta","delta":'
            '{"stop_reason":"end_turn","stop_sequence":null},' + USAGE + "}\n\n",
            'event: message_stop\ndata: {"type":"message_stop"}\n\n',
        ]
    )


async def test_arguments_that_come_at_the_end_are_told(client: MemoryClient, olm: FakeOlm) -> None:
    """Some parsers know the arguments only with the whole call; others have told them by then."""
    parts = called("f", '{"a":1}')
    olm.models.script = [*parts, parts[0], parts[-1], DONE]

    reply = await client.post("/v1/messages", STREAM)

    deltas = [value["delta"] for kind, value in events(reply) if kind == "content_block_delta"]
    assert deltas == [
        {"type": "input_json_delta", "partial_json": '{"a'},
        {"type": "input_json_delta", "partial_json": '":1}'},
        {"type": "input_json_delta", "partial_json": '{"a":1}'},
    ]


async def test_text_and_thinking_may_alternate(client: MemoryClient, olm: FakeOlm) -> None:
    """Ollama drops thinking behind text; here each change begins a block."""
    olm.models.script = [Piece(content="a"), Piece(thinking="b"), Piece(content="c"), DONE]

    reply = await client.post("/v1/messages", STREAM)

    begun = [value for kind, value in events(reply) if kind == "content_block_start"]
    assert [value["index"] for value in begun] == [0, 1, 2]
    ended = [value["index"] for kind, value in events(reply) if kind == "content_block_stop"]
    assert ended == [0, 1, 2]


async def test_the_beginning_has_a_guess_at_the_input(client: MemoryClient) -> None:
    reply = await client.post("/v1/messages", {**STREAM, "system": "x" * 400})

    _, start = events(reply)[0]
    assert start["message"]["usage"]["input_tokens"] == 101  # type: ignore[index]  # JSON


async def test_events_that_wait_share_a_write(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.script = answer(*"abcdefgh")

    reply = await client.post("/v1/messages", STREAM)

    assert len(events(reply)) == 14
    assert len(reply.chunks) < 8
    assert all(chunk.endswith(b"\n\n") for chunk in reply.chunks)


# --- signs of life --------------------------------------------------------------------------------------------------


async def arrivals(client: MemoryClient) -> list[tuple[str, int]]:
    """The types of events and the (virtual) seconds at which they came."""
    found = []
    while (event := await client.next_event()) is not None:
        if isinstance(event, h11.Data):
            lines = bytes(event.data).decode().splitlines()
            now = round(trio.current_time())
            found += [(line[7:], now) for line in lines if line.startswith("event: ")]
    return found


async def test_a_long_silence_is_broken_by_pings(
    client: MemoryClient, olm: FakeOlm, autojump_clock: MockClock
) -> None:
    olm.models.script = [Pause(12), *answer("a")[:1], Pause(7), DONE]

    await client.send("POST", "/v1/messages", STREAM)

    assert await arrivals(client) == [
        ("message_start", 5),
        ("ping", 5),
        ("ping", 10),
        ("content_block_start", 12),
        ("content_block_delta", 12),
        ("ping", 17),
        ("content_block_stop", 19),
        ("message_delta", 19),
        ("message_stop", 19),
    ]


async def test_a_short_wait_has_one_ping(
    client: MemoryClient, olm: FakeOlm, autojump_clock: MockClock
) -> None:
    olm.models.script = [Pause(4), *answer("a")]

    await client.send("POST", "/v1/messages", STREAM)

    assert (await arrivals(client))[:2] == [("message_start", 4), ("ping", 4)]


async def test_loading_is_waited_for_with_pings(
    client: MemoryClient, olm: FakeOlm, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is loaded before the turn begins."""

    async def load(model: str) -> None:
        await trio.sleep(11)

    monkeypatch.setattr(olm.models, "_check", load)

    await client.send("POST", "/v1/messages", STREAM)

    assert [kind for kind, _ in await arrivals(client)][:4] == [
        "message_start",
        "ping",
        "ping",
        "content_block_start",
    ]


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (ContextTooLong("too long"), 400, "invalid_request_error"),
        (Busy("busy", retry_after_s=3), 503, "overloaded_error"),
        (LoadFailed("broken"), 500, "api_error"),
    ],
    ids=["400", "503", "500"],
)
async def test_an_error_before_the_stream_has_its_status(
    client: MemoryClient, olm: FakeOlm, error: Exception, status: int, kind: str, stream: bool
) -> None:
    olm.models.enter_error = error

    reply = await client.post("/v1/messages", {**BODY, "stream": stream})

    assert (reply.status, reply.headers["content-type"]) == (
        status,
        "application/json; charset=utf-8",
    )
    message = "prompt is too long: too long" if status == 400 else str(error)
    assert reply.json == {
        "type": "error",
        "error": {"type": kind, "message": message},
        "request_id": reply.headers["request-id"],
    }
    assert reply.headers.get("retry-after") == ("3" if status == 503 else None)


async def test_an_error_in_the_stream_is_an_event(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.script = [Piece(content="a"), RunnerCrashed("gone")]

    reply = await client.request("POST", "/v1/messages", STREAM, {"X-Request-Id": "r1"})

    assert reply.status == 200
    assert reply.text.endswith(
        '"text":"a"}}\n\nevent: error\ndata: {"type":"error","error":'
        '{"type":"api_error","message":"gone"},"request_id":"r1"}\n\n'
    )


async def test_an_error_after_pings_is_an_event(
    client: MemoryClient, olm: FakeOlm, autojump_clock: MockClock
) -> None:
    olm.models.script = [Pause(6), RunnerCrashed("gone")]

    reply = await client.post("/v1/messages", STREAM)

    assert [kind for kind, _ in events(reply)] == ["message_start", "ping", "error"]


@pytest.mark.parametrize(
    ("script", "status", "message"),
    [
        ([Piece(content="a"), Done("cancelled")], 499, "request canceled"),
        ([Piece(content="a")], 500, "the answer ended without a final event"),
    ],
    ids=["cancelled", "unfinished"],
)
async def test_a_turn_without_a_good_end_is_an_error(
    client: MemoryClient, olm: FakeOlm, script: list[Step], status: int, message: str
) -> None:
    olm.models.script = script

    streamed = await client.post("/v1/messages", STREAM)
    whole = await client.post("/v1/messages", BODY)

    kind, value = events(streamed)[-1]
    assert (kind, value["error"]) == ("error", {"type": "api_error", "message": message})
    assert "content_block_delta" in [kind for kind, _ in events(streamed)]
    assert (whole.status, whole.json["error"]) == (status, value["error"])


async def test_a_client_that_leaves_ends_its_turn(
    server: MemoryServer, olm: FakeOlm, autojump_clock: MockClock
) -> None:
    for script in ([Pause(10_000)], [Piece(content="a"), Pause(10_000)]):
        olm.models.script = [*script, DONE]
        olm.models.all_ended = trio.Event()
        client = server.connect()
        await client.send("POST", "/v1/messages", STREAM)
        await trio.sleep(12)

        await client.aclose()
        with trio.fail_after(1):
            await olm.models.all_ended.wait()

    assert olm.models.n_left_early == 2
    await wait_all_tasks_blocked()
    assert server.api.gate.n_in_flight == 0


async def test_the_server_goes_on_after_clients_left_at_every_step(
    server: MemoryServer, olm: FakeOlm
) -> None:
    """The turn is held by a task of its own; no moment of leaving may leave it behind."""
    for n_steps in range(40):
        client = server.connect()
        await client.send("POST", "/v1/messages", STREAM)
        for _ in range(n_steps):
            await trio.lowlevel.checkpoint()
        await client.aclose()
        await wait_all_tasks_blocked()
        assert server.api.gate.n_in_flight == 0

    reply = await server.connect().post("/v1/messages", STREAM)

    assert events(reply)[-1][0] == "message_stop"
    assert olm.models.n_running == 0
