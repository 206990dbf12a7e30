"""The official `openai` Python client, unchanged, drives responses and embeddings."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pydantic
import pytest
import zstandard
from openai.types.responses import ResponseCompletedEvent, ResponseIncompleteEvent

from kit.daemon import Daemon

SHORT: Any = {
    "max_output_tokens": 8,
    "temperature": 0,
    "reasoning": {"effort": "none"},
    "extra_body": {"seed": 1},
}
TOOLS: Any = [
    {
        "type": "function",
        "name": "get_weather",
        "description": "Get the weather for a city.",
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string", "description": "The city"}},
            "required": ["location"],
            "additionalProperties": False,
        },
        "strict": True,
    }
]
WEATHER = "What is the weather in Paris?"


class Person(pydantic.BaseModel):
    """What an answer is parsed into."""

    name: str
    age: int


@pytest.fixture
def client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{base_url}/v1", api_key="none", timeout=60, max_retries=0
    ) as made:
        yield made


def test_whole(client: openai.OpenAI) -> None:
    response = client.responses.create(
        model="tiny", input="What is your name?", instructions="Be brief.", **SHORT
    )

    assert response.output_text
    assert response.status in ("completed", "incomplete")
    assert (response.instructions, response.error) == ("Be brief.", None)
    assert response.usage is not None
    assert response.usage.input_tokens > 0
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert response.usage.output_tokens_details.reasoning_tokens == 0


def test_streamed(client: openai.OpenAI) -> None:
    events = list(
        client.responses.create(model="tiny", input="What is your name?", stream=True, **SHORT)
    )

    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    last = events[-1]
    assert isinstance(last, ResponseCompletedEvent | ResponseIncompleteEvent)
    texts = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(texts) > 1
    assert "".join(texts) == last.response.output_text


def test_the_helper_for_streams_puts_the_same_together(client: openai.OpenAI) -> None:
    with client.responses.stream(
        model="tiny", input="What is your name?", temperature=0, max_output_tokens=200
    ) as stream:
        events = list(stream)
    snapshots = [event.snapshot for event in events if event.type == "response.output_text.delta"]
    final = stream.get_final_response()

    assert final.status == "completed"
    assert snapshots[-1] == final.output_text
    assert [item.type for item in final.output] == ["reasoning", "message"]
    thinking = final.output[0]
    assert thinking.type == "reasoning"
    assert thinking.summary[0].text
    assert final.usage is not None
    assert final.usage.output_tokens_details.reasoning_tokens > 0


@pytest.mark.daemon
@pytest.mark.native
def test_an_answer_that_was_cut_off_says_so(daemon: Daemon) -> None:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client:
        response = client.responses.create(
            model="tiny", input="Tell me a long story.", **{**SHORT, "max_output_tokens": 2}
        )

    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage is not None
    assert response.usage.output_tokens == 2


def test_parse(client: openai.OpenAI) -> None:
    response = client.responses.parse(
        model="tiny",
        input="Tom is 3 years old.",
        text_format=Person,
        temperature=0,
        max_output_tokens=100,
    )

    assert isinstance(response.output_parsed, Person)


@pytest.mark.parametrize("continued", [True, False], ids=["continued", "resent"])
def test_tool_round_trip(client: openai.OpenAI, continued: bool) -> None:
    first = client.responses.create(
        model="tiny", input=WEATHER, tools=TOOLS, tool_choice="required", temperature=0
    )
    (call,) = [item for item in first.output if item.type == "function_call"]
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "22 degrees"}
    if continued:
        more: Any = {"input": [result], "previous_response_id": first.id}
    else:
        sent = [item.model_dump(exclude_none=True) for item in first.output]
        more = {"input": [{"role": "user", "content": WEATHER}, *sent, result]}
    second = client.responses.create(model="tiny", tools=TOOLS, **more, **SHORT)

    assert call.name == "get_weather"
    assert isinstance(json.loads(call.arguments)["location"], str)
    assert second.output_text
    assert second.previous_response_id == (first.id if continued else None)


def test_calls_are_streamed(client: openai.OpenAI) -> None:
    with client.responses.stream(
        model="tiny", input=WEATHER, tools=TOOLS, tool_choice="required", temperature=0
    ) as stream:
        events = list(stream)
    final = stream.get_final_response()

    (call,) = [item for item in final.output if item.type == "function_call"]
    parts = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    assert "".join(parts) == call.arguments
    assert len(parts) > 1
    assert call.status == "completed"


def test_responses_are_kept(client: openai.OpenAI) -> None:
    made = client.responses.create(model="tiny", input="Hello", metadata={"a": "b"}, **SHORT)
    read = client.responses.retrieve(made.id)
    items = list(client.responses.input_items.list(made.id))
    client.responses.delete(made.id)

    assert read == made
    assert [item.type for item in items] == ["message"]
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="tiny", input="x", previous_response_id=made.id)
    assert caught.value.code == "previous_response_not_found"
    assert caught.value.param == "previous_response_id"


def test_items_come_in_pages(client: openai.OpenAI) -> None:
    turns: Any = [{"role": "user", "content": f"{i}"} for i in range(7)]
    made = client.responses.create(model="tiny", input=turns, **SHORT)
    items = list(client.responses.input_items.list(made.id, limit=3, order="asc"))

    texts = [item.content[0].text for item in items if item.type == "message"]  # type: ignore[union-attr]
    assert texts == [f"{i}" for i in range(7)]


def test_input_tokens(client: openai.OpenAI) -> None:
    short = client.responses.input_tokens.count(model="tiny", input="Hello")
    long = client.responses.input_tokens.count(model="tiny", input="Hello " * 50)

    assert 0 < short.input_tokens < long.input_tokens


def test_async(base_url: str) -> None:
    async def run() -> str:
        async with openai.AsyncOpenAI(base_url=f"{base_url}/v1", api_key="none") as client:
            stream = await client.responses.create(
                model="tiny", input="Hello", stream=True, **SHORT
            )
            texts = [e.delta async for e in stream if e.type == "response.output_text.delta"]
        return "".join(texts)

    assert asyncio.run(run())


def test_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="'nope' not found"):
        client.responses.create(model="nope", input="x")
    with pytest.raises(openai.NotFoundError, match="'nope' not found"):
        list(client.responses.create(model="nope", input="x", stream=True))
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="tiny", input="x", tools=[{"type": "code_interpreter"}])  # type: ignore[list-item]
    assert caught.value.param == "tools"


def test_zstd_bodies(base_url: str) -> None:
    """As Codex sends them."""
    body = zstandard.compress(
        json.dumps({"model": "tiny", "input": "Hello", "max_output_tokens": 4}).encode()
    )
    headers = {"content-type": "application/json", "content-encoding": "zstd"}
    with httpx.Client(timeout=60) as http:
        reply = http.post(f"{base_url}/v1/responses", content=body, headers=headers)

    assert reply.status_code == 200, reply.text
    assert reply.json()["object"] == "response"


# --- embeddings -------------------------------------------------------------------------------------------------------


def test_embeddings(client: openai.OpenAI) -> None:
    one = client.embeddings.create(model="tiny", input="why is the sky blue?")
    many = client.embeddings.create(model="tiny", input=["a", "b"], encoding_format="float")

    assert [row.index for row in many.data] == [0, 1]
    assert len({len(row.embedding) for row in [*one.data, *many.data]}) == 1
    assert one.usage.prompt_tokens == one.usage.total_tokens > 0


def test_both_forms_of_vectors_agree(client: openai.OpenAI) -> None:
    plain = client.embeddings.create(model="tiny", input="a", encoding_format="float")
    packed: Any = client.embeddings.create(model="tiny", input="a", encoding_format="base64")

    data = base64.b64decode(packed.data[0].embedding)
    numbers = struct.unpack(f"<{len(data) // 4}f", data)
    assert plain.data[0].embedding == pytest.approx(numbers, rel=1e-6, abs=1e-9)


def test_tokens_are_embedded(client: openai.OpenAI) -> None:
    made = client.embeddings.create(model="tiny", input=[[5, 6, 7], [8]])

    assert len(made.data) == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"input": []}, "invalid input"), ({"input": "x", "encoding_format": "int8"}, "int8")],
)
def test_embeddings_that_are_refused(
    client: openai.OpenAI, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=message):
        client.embeddings.create(model="tiny", **fields)


def test_audio_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="does not support audio"):
        client.audio.transcriptions.create(model="tiny", file=("a.wav", b"RIFF"))
