"""The official `ollama` Python client, unchanged, drives every endpoint that olm has."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import ollama
import pytest

MESSAGES = [{"role": "user", "content": "What is your name?"}]
SHORT = {"num_predict": 8, "temperature": 0, "seed": 1}
LONG = {"num_predict": 200, "temperature": 0}


@pytest.fixture
def client(base_url: str) -> Iterator[ollama.Client]:
    with ollama.Client(host=base_url, timeout=60) as made:
        yield made


def test_list_and_show(client: ollama.Client) -> None:
    (tiny,) = [model for model in client.list().models if model.model == "tiny:latest"]
    shown = client.show("tiny")

    assert tiny.digest is not None
    assert len(tiny.digest) == 64
    assert tiny.modified_at is not None
    assert tiny.modified_at.tzinfo is not None
    assert tiny.details is not None
    assert tiny.details.format == "gguf"
    assert shown.capabilities is not None
    assert "completion" in shown.capabilities
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.template
    assert shown.details is not None
    assert shown.details.family == tiny.details.family


def test_chat_whole(client: ollama.Client) -> None:
    answer = client.chat("tiny", MESSAGES, think=False, options=SHORT)

    assert answer.message.role == "assistant"
    assert answer.message.content
    assert answer.done
    assert answer.done_reason in ("stop", "length")
    assert answer.total_duration
    assert answer.prompt_eval_count
    assert answer.eval_count


def test_chat_streamed(client: ollama.Client) -> None:
    parts = list(client.chat("tiny", MESSAGES, think=False, options=SHORT, stream=True))

    assert len(parts) > 1
    assert "".join(part.message.content or "" for part in parts)
    assert [bool(part.done) for part in parts] == [False] * (len(parts) - 1) + [True]


def get_weather(location: str) -> str:
    """Get the weather for a city.

    Args:
        location: The city
    """
    return f"22 degrees and sunny in {location}"


def test_a_tool_is_called_and_its_result_used(client: ollama.Client) -> None:
    """The client makes the tool of a Python function, and its answers go back as they came."""
    messages: list[object] = [{"role": "user", "content": "What is the weather in Paris?"}]

    asked = client.chat("tiny", messages, tools=[get_weather], think=False, options=LONG)  # type: ignore[arg-type]
    (call,) = asked.message.tool_calls or ()
    result = get_weather(**call.function.arguments)
    messages += [asked.message, {"role": "tool", "tool_name": "get_weather", "content": result}]
    told = client.chat("tiny", messages, tools=[get_weather], think=False, options=LONG)  # type: ignore[arg-type]

    assert call.function.name == "get_weather"
    assert call.function.arguments == {"location": "Paris"}
    assert not asked.message.content
    assert "22 degrees" in (told.message.content or "")


def test_a_streamed_tool_call_comes_whole(client: ollama.Client) -> None:
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]

    parts = list(client.chat("tiny", messages, tools=[get_weather], stream=True, options=LONG))

    (call,) = [call for part in parts for call in part.message.tool_calls or ()]
    assert call.function.arguments == {"location": "Paris"}
    assert parts[-1].done
    assert parts[-1].done_reason == "stop"


@pytest.mark.parametrize("stream", [True, False])
def test_thinking_is_apart_from_the_answer(client: ollama.Client, stream: bool) -> None:
    messages = [{"role": "user", "content": "Who are you?"}]

    def ask(think: bool) -> tuple[str, str]:
        answer = client.chat("tiny", messages, think=think, stream=stream, options=LONG)  # type: ignore[call-overload]
        parts = list(answer) if stream else [answer]
        return (
            "".join(part.message.thinking or "" for part in parts),
            "".join(part.message.content or "" for part in parts),
        )

    (thought, said), (unthought, said_at_once) = ask(think=True), ask(think=False)

    assert thought
    assert said
    assert unthought == ""
    assert said_at_once
    generated = client.generate("tiny", "Who are you?", think=True, options=LONG)
    assert generated.thinking
    assert generated.response


def test_an_answer_follows_a_schema(client: ollama.Client) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    messages = [{"role": "user", "content": "Describe a person as JSON."}]
    answer = client.chat("tiny", messages, format=schema, think=False, options=LONG)

    found = json.loads(answer.message.content or "")
    assert sorted(found) == ["age", "name"]
    assert isinstance(found["age"], int)


def test_a_stream_left_early_frees_the_client(client: ollama.Client) -> None:
    stream = client.chat("tiny", MESSAGES, stream=True)
    first = next(stream)
    stream.close()  # type: ignore[attr-defined]  # a generator in fact

    again = client.chat("tiny", MESSAGES, options=SHORT)

    assert first.model == again.model == "tiny"


def test_generate_whole_and_streamed(client: ollama.Client) -> None:
    whole = client.generate("tiny", "Hello", think=False, options=SHORT)
    parts = list(client.generate("tiny", "Hello", think=False, options=SHORT, stream=True))

    assert whole.response
    assert "".join(part.response for part in parts)
    assert parts[-1].done_reason in ("stop", "length")


def test_empty_requests_load_and_unload(client: ollama.Client) -> None:
    loaded = client.generate("tiny", keep_alive="5m")
    names = [model.model for model in client.ps().models]
    unloaded = client.chat("tiny", keep_alive=0)

    assert loaded.done_reason == "load"
    assert "tiny:latest" in names
    assert unloaded.done_reason == "unload"


def test_ps_tells_size_and_end(client: ollama.Client) -> None:
    client.generate("tiny", keep_alive="5m")

    (row,) = [model for model in client.ps().models if model.model == "tiny:latest"]

    assert row.size
    assert row.expires_at is not None
    assert row.expires_at.tzinfo is not None
    assert row.context_length


def test_embed_one_and_many(client: ollama.Client) -> None:
    one = client.embed("tiny", "why is the sky blue?")
    many = client.embed("tiny", ["a", "b", "c"])

    assert len(one.embeddings) == 1
    assert len(many.embeddings) == 3
    assert len({len(row) for row in [*one.embeddings, *many.embeddings]}) == 1
    assert one.prompt_eval_count


def test_old_embeddings(client: ollama.Client) -> None:
    assert len(client.embeddings("tiny", "a").embedding) > 1


def test_copy_and_delete(client: ollama.Client) -> None:
    copied = client.copy("tiny", "copied-by-client")
    names = [model.model for model in client.list().models]
    deleted = client.delete("copied-by-client")

    assert copied.status == deleted.status == "success"
    assert "copied-by-client:latest" in names
    assert "copied-by-client:latest" not in [model.model for model in client.list().models]


def test_create_from_a_model(client: ollama.Client) -> None:
    steps = list(
        client.create("made-by-client", from_="tiny", system="You are a pirate.", stream=True)
    )
    try:
        assert steps[-1].status == "success"
        assert client.show("made-by-client").modelfile
    finally:
        client.delete("made-by-client")


def test_create_from_an_uploaded_file(client: ollama.Client, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(resources.files("olm.data.tiny").joinpath("tiny-q8_0.gguf").read_bytes())

    digest = client.create_blob(path)
    done = client.create("uploaded-by-client", files={"model.gguf": digest})
    try:
        assert done.status == "success"
        assert "uploaded-by-client:latest" in [model.model for model in client.list().models]
    finally:
        client.delete("uploaded-by-client")


@pytest.mark.parametrize(
    ("status", "message", "call"),
    [
        (404, "model 'nope' not found", lambda c: c.chat("nope", MESSAGES)),
        (404, "model 'nope' not found", lambda c: list(c.chat("nope", MESSAGES, stream=True))),
        (404, "model 'nope' not found", lambda c: c.generate("nope", "x")),
        (404, 'model "nope" not found, try pulling it first', lambda c: c.embed("nope", "x")),
        (404, 'model "nope" not found', lambda c: c.copy("nope", "x")),
        (404, "model 'nope' not found", lambda c: c.delete("nope")),
        (400, 'name "../x" is invalid', lambda c: c.delete("../x")),
        (400, "invalid model name", lambda c: list(c.push("a b", stream=True))),
    ],
    ids=["chat", "stream", "generate", "embed", "copy", "delete", "bad name", "push"],
)
def test_errors_are_the_clients_own(
    client: ollama.Client, status: int, message: str, call: object
) -> None:
    assert callable(call)

    with pytest.raises(ollama.ResponseError) as caught:
        call(client)

    assert (caught.value.status_code, caught.value.error) == (status, message)


async def test_the_asynchronous_client_too(base_url: str) -> None:
    client = ollama.AsyncClient(host=base_url, timeout=60)
    async with contextlib.aclosing(client._client):
        parts = [
            part async for part in await client.chat("tiny", MESSAGES, options=SHORT, stream=True)
        ]
        models = await client.list()

    assert parts[-1].done
    assert models.models
