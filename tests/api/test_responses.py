"""`/v1/responses` over HTTP: whole and streamed answers, continuing, reading and forgetting them, errors in its form."""

from __future__ import annotations

import json

import pytest
from trio.testing import MockClock

from kit.fake_olm import FakeOlm, Pause, Step, answer, called
from kit.memory_http import MemoryClient, Reply
from olm.actors.client import ChatRequest
from olm.api.heartbeat import BEAT_S
from olm.chat.types import ChatMessage, Done, Piece, ToolCall
from olm.errors import Busy, ContextTooLong, RunnerCrashed

TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}


async def post(client: MemoryClient, **fields: object) -> Reply:
    return await client.post("/v1/responses", {"model": "tiny", "input": "Hello", **fields})


def events_of(reply: Reply) -> list[dict[str, object]]:
    """The events of a stream; each names its type twice, and they are numbered from 0."""
    assert reply.status == 200, reply.text
    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.headers["cache-control"] == "no-cache"
    found = []
    for frame in reply.text.split("\n\n"):
        if not frame or frame.startswith(":"):
            continue
        head, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert head == f"event: {event['type']}"
        found.append(event)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def kinds(events: list[dict[str, object]]) -> list[str]:
    return [str(event["type"]).removeprefix("response.") for event in events]


def asked(olm: FakeOlm) -> ChatRequest:
    """What the models were asked last."""
    request = olm.models.requests[-1]
    assert isinstance(request, ChatRequest)
    return request


# --- answers ----------------------------------------------------------------------------------------------------------


async def test_whole_answer(client: MemoryClient) -> None:
    reply = await post(client, metadata={"a": "b"}, user="me", max_output_tokens=9)

    whole = reply.json
    (message,) = whole.pop("output")  # type: ignore[attr-defined]
    assert str(whole.pop("id")).startswith("resp_")
    assert str(message.pop("id")).startswith("msg_")
    assert isinstance(whole.pop("created_at"), int)
    assert isinstance(whole.pop("completed_at"), int)
    assert message == {
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "Hi there", "annotations": [], "logprobs": []}],
    }
    assert whole == {
        "object": "response",
        "status": "completed",
        "incomplete_details": None,
        "model": "tiny",
        "previous_response_id": None,
        "instructions": None,
        "error": None,
        "tools": [],
        "tool_choice": "auto",
        "truncation": "auto",
        "parallel_tool_calls": True,
        "text": {"format": {"type": "text"}},
        "top_p": None,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "top_logprobs": 0,
        "temperature": None,
        "reasoning": {"effort": None, "summary": None},
        "usage": {
            "input_tokens": 11,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 13,
        },
        "max_output_tokens": 9,
        "max_tool_calls": None,
        "store": True,
        "background": False,
        "service_tier": "default",
        "metadata": {"a": "b"},
        "safety_identifier": None,
        "prompt_cache_key": None,
        "user": "me",
    }


THINKING_AND_CALLING: list[Step] = [
    Piece(thinking="Let "),
    Piece(thinking="me."),
    Piece(content="I "),
    Piece(content="call."),
    *called("f", '{"a": 1}'),
    Done("stop", n_prompt=11, n_cached=4, n_generated=20),
]


async def test_streamed_answer_adds_up(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.script = THINKING_AND_CALLING
    events = events_of(await post(client, stream=True, tools=[TOOL]))

    assert kinds(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    last = events[-1]["response"]
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert isinstance(last, dict)
    assert last["output"] == done
    assert [item["type"] for item in last["output"]] == ["reasoning", "message", "function_call"]
    assert last["usage"]["input_tokens_details"] == {"cached_tokens": 4}
    assert last["usage"]["output_tokens_details"] == {"reasoning_tokens": 2}
    assert events[0]["response"]["status"] == "in_progress"  # type: ignore[index]
    assert events[0]["response"]["output"] == []  # type: ignore[index]


async def test_streamed_and_whole_say_the_same(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.script = THINKING_AND_CALLING
    whole = (await post(client, tools=[TOOL])).json
    streamed = events_of(await post(client, tools=[TOOL], stream=True))[-1]["response"]

    assert _without_ids(whole) == _without_ids(streamed)


def _without_ids(value: object) -> object:
    if isinstance(value, dict):
        dropped = ("id", "created_at", "completed_at")
        return {k: _without_ids(v) for k, v in value.items() if k not in dropped}
    return [_without_ids(entry) for entry in value] if isinstance(value, list) else value


async def test_parts_belong_to_their_items(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.script = THINKING_AND_CALLING
    events = events_of(await post(client, stream=True, tools=[TOOL]))

    ids = {e["output_index"]: e["item"]["id"] for e in events if "item" in e}  # type: ignore[index]
    for event in events:
        if "item_id" in event:
            assert event["item_id"] == ids[event["output_index"]]
    texts = {
        index: "".join(
            str(e["delta"]) for e in events if e.get("output_index") == index and "delta" in e
        )
        for index in ids
    }
    assert texts == {0: "Let me.", 1: "I call.", 2: '{"a": 1}'}


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_that_were_cut_off_say_so(
    client: MemoryClient, olm: FakeOlm, stream: bool
) -> None:
    olm.models.script = answer("Once upon", reason="length")
    reply = await post(client, stream=stream)

    last = events_of(reply)[-1] if stream else {"response": reply.json}
    whole = last["response"]
    assert isinstance(whole, dict)
    assert last.get("type") == ("response.incomplete" if stream else None)
    assert whole["status"] == "incomplete"
    assert whole["incomplete_details"] == {"reason": "max_output_tokens"}
    assert whole["completed_at"] is None
    assert whole["output"][0]["status"] == "incomplete"


async def test_text_after_a_call_is_told(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.script = [*called("f"), *answer("Done.")]
    output = (await post(client, tools=[TOOL])).json["output"]

    assert [item["type"] for item in output] == ["function_call", "message"]  # type: ignore[union-attr]


async def test_an_empty_answer_is_an_empty_message(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.script = answer()
    whole = (await post(client)).json
    events = events_of(await post(client, stream=True))

    assert whole["output"][0]["content"][0]["text"] == ""  # type: ignore[index]
    assert "content_part.added" in kinds(events)
    assert kinds(events)[-2:] == ["output_item.done", "completed"]


async def test_when_all_is_thinking_all_tokens_are(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.script = [Piece(thinking="Hm"), Done("length", n_generated=40)]
    whole = (await post(client)).json

    assert whole["usage"]["output_tokens_details"] == {"reasoning_tokens": 40}  # type: ignore[index]
    assert [item["type"] for item in whole["output"]] == ["reasoning"]  # type: ignore[union-attr]


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_errors_before_the_first_word_have_their_status(
    client: MemoryClient, olm: FakeOlm, stream: bool
) -> None:
    unknown = await post(client, model="nope", stream=stream)
    olm.models.enter_error = ContextTooLong("the input is too long")
    long = await post(client, stream=stream)
    olm.models.enter_error = Busy("server busy", retry_after_s=7)
    busy = await post(client, stream=stream)

    assert (unknown.status, long.status, busy.status) == (404, 400, 503)
    assert unknown.json["error"]["type"] == "not_found_error"  # type: ignore[index]
    assert long.json["error"]["code"] == "context_length_exceeded"  # type: ignore[index]
    assert busy.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RunnerCrashed("the model runner is gone"), "server_error"),
        (ContextTooLong("the context is full"), "context_length_exceeded"),
        (Busy("too many"), "server_is_overloaded"),
    ],
)
async def test_errors_in_the_middle_end_the_stream_as_failed(
    client: MemoryClient, olm: FakeOlm, error: Exception, code: str, autojump_clock: MockClock
) -> None:
    olm.models.script = [Piece(content="Hi"), Pause(1), error]
    events = events_of(await post(client, stream=True))

    last = events[-1]
    assert last["type"] == "response.failed"
    response = last["response"]
    assert isinstance(response, dict)
    assert response["status"] == "failed"
    assert response["error"] == {"code": code, "message": str(error)}
    assert response["output"][0]["status"] == "incomplete"
    assert response["output"][0]["content"][0]["text"] == "Hi"
    gone = await client.get(f"/v1/responses/{response['id']}")
    assert gone.status == 404


async def test_a_silent_stream_shows_life(
    client: MemoryClient, olm: FakeOlm, autojump_clock: MockClock
) -> None:
    olm.models.script = [Pause(BEAT_S * 2.5), *answer("Hi")]
    reply = await post(client, stream=True)

    assert reply.text.count(": waiting\n\n") == 1
    assert kinds(events_of(reply))[:2] == ["created", "in_progress"]


async def test_a_body_is_needed(client: MemoryClient) -> None:
    empty = await client.post("/v1/responses", b"")
    wrong = await client.post("/v1/responses", b'{"model":"tiny","temperature":"hot"}')

    assert empty.json["error"]["message"] == "EOF"  # type: ignore[index]
    assert wrong.json["error"]["message"] == (  # type: ignore[index]
        "json: cannot unmarshal string into Go struct field ResponsesRequest.temperature of type float64"
    )


# --- the store --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_is_continued(client: MemoryClient, olm: FakeOlm, stream: bool) -> None:
    olm.models.script = [Piece(thinking="Hm."), *called("f", '{"a": 1}'), *answer()]
    reply = await post(client, instructions="Be kind.", tools=[TOOL], stream=stream)
    first = events_of(reply)[-1]["response"] if stream else reply.json
    assert isinstance(first, dict)
    olm.models.script = answer("22 degrees.")
    result = {"type": "function_call_output", "call_id": "call_00000000", "output": "22"}
    second = (await post(client, previous_response_id=first["id"], input=[result])).json
    third = await post(client, previous_response_id=second["id"], input="Thanks")

    call = ToolCall("f", '{"a": 1}', "call_00000000")
    assert second["previous_response_id"] == first["id"]
    assert third.status == 200
    assert asked(olm).messages == [
        ChatMessage("user", "Hello"),
        ChatMessage("assistant", thinking="Hm.", tool_calls=(call,)),
        ChatMessage("tool", "22", tool_name="f", tool_call_id="call_00000000"),
        ChatMessage("assistant", "22 degrees."),
        ChatMessage("user", "Thanks"),
    ]


async def test_a_response_is_read_and_forgotten(client: MemoryClient) -> None:
    made = await post(client)
    path = f"/v1/responses/{made.json['id']}"
    read = await client.get(path)
    cancelled = await client.post(f"{path}/cancel", b"")
    deleted = await client.request("DELETE", path)
    gone = await client.get(path)
    again = await client.request("DELETE", path)

    assert read.body == made.body
    assert (cancelled.status, "synchronous" in cancelled.text) == (400, True)
    assert deleted.json == {"id": made.json["id"], "object": "response", "deleted": True}
    assert (gone.status, again.status) == (404, 404)
    assert gone.json["error"]["message"] == f"Response with id '{made.json['id']}' not found."  # type: ignore[index]


async def test_what_is_not_to_be_kept_is_not(client: MemoryClient) -> None:
    made = (await post(client, store=False)).json
    read = await client.get(f"/v1/responses/{made['id']}")
    continued = await post(client, previous_response_id=made["id"])

    assert made["store"] is False
    assert read.status == 404
    assert continued.status == 400
    assert continued.json["error"] == {
        "message": f"Previous response with id '{made['id']}' not found.",
        "type": "invalid_request_error",
        "param": "previous_response_id",
        "code": "previous_response_not_found",
    }


async def test_input_items_come_in_pages(client: MemoryClient) -> None:
    first = (await post(client, input="One")).json
    parts = [{"type": "input_text", "text": "Two"}]
    second = (
        await post(
            client,
            previous_response_id=first["id"],
            input=[{"role": "user", "content": parts, "id": "mine"}],
        )
    ).json
    path = f"/v1/responses/{second['id']}/input_items"
    whole = (await client.get(path)).json
    page = (await client.get(f"{path}?order=asc&limit=2")).json
    rest = (await client.get(f"{path}?order=asc&after={page['last_id']}")).json

    mine, hi, one = whole["data"]  # type: ignore[misc]
    assert mine == {
        "id": "mine",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": parts,
    }
    assert hi == first["output"][0]  # type: ignore[index]
    assert one["content"] == [{"type": "input_text", "text": "One"}]
    assert one["id"].startswith("msg_")
    assert (whole["first_id"], whole["last_id"], whole["has_more"]) == ("mine", one["id"], False)
    assert (page["data"], page["has_more"]) == ([one, hi], True)
    assert (rest["data"], rest["has_more"]) == ([mine], False)


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "order=up", "after=nope"])
async def test_pages_that_are_none(client: MemoryClient, query: str) -> None:
    made = (await post(client)).json
    reply = await client.get(f"/v1/responses/{made['id']}/input_items?{query}")

    assert reply.status == 400
    assert reply.json["error"]["param"] == query.split("=")[0]  # type: ignore[index]


async def test_items_are_referred_to(client: MemoryClient, olm: FakeOlm) -> None:
    made = (await post(client)).json
    reference = {"type": "item_reference", "id": made["output"][0]["id"]}  # type: ignore[index]
    known = await post(client, input=[reference, {"role": "user", "content": "Again"}])
    unknown = await post(client, input=[{"type": "item_reference", "id": "msg_1"}])

    assert known.status == 200
    assert asked(olm).messages == [
        ChatMessage("assistant", "Hi there"),
        ChatMessage("user", "Again"),
    ]
    assert unknown.json["error"]["message"] == "Item with id 'msg_1' not found."  # type: ignore[index]


async def test_tokens_of_an_input_are_counted(client: MemoryClient) -> None:
    body = {"model": "tiny", "input": "one two three", "instructions": "four"}
    reply = await client.post("/v1/responses/input_tokens", body)

    assert reply.json == {"object": "response.input_tokens", "input_tokens": 4}


async def test_a_kept_response_is_not_streamed_again(client: MemoryClient) -> None:
    made = (await post(client)).json
    reply = await client.get(f"/v1/responses/{made['id']}?stream=true")

    assert reply.status == 400
