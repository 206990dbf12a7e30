"""The official `openai` Python client, unchanged, drives chat, completions and models."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pydantic
import pytest

from kit.daemon import Daemon

MESSAGES: Any = [{"role": "user", "content": "What is your name?"}]
WEATHER: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
SHORT: Any = {"max_tokens": 8, "temperature": 0, "seed": 1, "reasoning_effort": "none"}
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather for a city.",
            "parameters": {
                "type": "object",
                "properties": {"location": {"type": "string", "description": "The city"}},
                "required": ["location"],
                "additionalProperties": False,
            },
            "strict": True,
        },
    }
]


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


# --- models -----------------------------------------------------------------------------------------------------------


def test_models_are_listed_and_retrieved(client: openai.OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    one = client.models.retrieve("tiny")
    with_slash = client.models.retrieve("library/tiny:latest")

    assert listed["tiny:latest"].owned_by == "library"
    assert (one.id, one.object, one.created) == ("tiny", "model", listed["tiny:latest"].created)
    assert with_slash.id == "library/tiny:latest"


# --- chat -------------------------------------------------------------------------------------------------------------


def test_chat_whole(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="tiny", messages=MESSAGES, **SHORT)

    (choice,) = answer.choices
    assert (answer.object, answer.model) == ("chat.completion", "tiny")
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.completion_tokens > 0
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens is not None


def test_chat_streamed(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="tiny",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
            **SHORT,
        )
    )

    *said, end, usage = chunks
    assert said[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in said)
    assert end.choices[0].finish_reason in ("stop", "length")
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.completion_tokens > 0
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1


def test_several_choices_are_streamed_at_once(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="tiny", messages=MESSAGES, n=3, stream=True, **{**SHORT, "temperature": 1}
        )
    )

    said = {0: "", 1: "", 2: ""}
    for chunk in chunks:
        said[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert all(said.values())
    assert sum(chunk.choices[0].finish_reason is not None for chunk in chunks) == 3


def test_thinking_is_told_apart(client: openai.OpenAI) -> None:
    asked: Any = [{"role": "user", "content": "Who are you?"}]
    answer = client.chat.completions.create(
        model="tiny", messages=asked, reasoning_effort="medium", temperature=0
    )

    message = answer.choices[0].message
    assert message.content
    assert (message.model_extra or {})["reasoning"]


@pytest.mark.daemon
@pytest.mark.native
def test_logprobs_of_every_token(daemon: Daemon) -> None:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client:
        chatted = client.chat.completions.create(
            model="tiny", messages=MESSAGES, logprobs=True, top_logprobs=2, **SHORT
        )
        completed = client.completions.create(
            model="tiny", prompt="Hello", logprobs=2, max_tokens=4, extra_body={"raw": True}
        )

    logprobs, legacy = chatted.choices[0].logprobs, completed.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert all(entry.logprob <= 0 and len(entry.top_logprobs) == 2 for entry in logprobs.content)
    assert chatted.usage is not None
    assert len(logprobs.content) == chatted.usage.completion_tokens
    assert legacy is not None
    assert legacy.tokens is not None
    assert legacy.text_offset is not None
    text = completed.choices[0].text
    offsets = zip(legacy.tokens, legacy.text_offset, strict=True)
    assert all(text[at:].startswith(token) for token, at in offsets)


# --- tools ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [True, False])
def test_a_tool_is_called_and_its_result_used(client: openai.OpenAI, streamed: bool) -> None:
    """The client's own accumulator puts the streamed parts of a call together."""
    asked: Any = {"model": "tiny", "tools": TOOLS, "temperature": 0, "reasoning_effort": "none"}
    messages = list(WEATHER)
    if streamed:
        with client.chat.completions.stream(messages=messages, **asked) as stream:
            kinds = [event.type for event in stream]
            completion: Any = stream.get_final_completion()
        assert "tool_calls.function.arguments.delta" in kinds
        assert "tool_calls.function.arguments.done" in kinds
    else:
        completion = client.chat.completions.create(messages=messages, **asked)
    (choice,) = completion.choices
    (call,) = choice.message.tool_calls or ()
    messages += [
        choice.message,
        {"role": "tool", "tool_call_id": call.id, "content": "22 degrees and sunny"},
    ]
    told = client.chat.completions.create(messages=messages, **asked)

    assert choice.finish_reason == "tool_calls"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"location": "Paris"}
    assert "22 degrees" in (told.choices[0].message.content or "")
    assert told.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("choice", "n_calls"),
    [
        ("none", 0),
        ("required", 1),
        ({"type": "function", "function": {"name": "get_weather"}}, 1),
    ],
)
def test_tool_choice_is_enforced(client: openai.OpenAI, choice: Any, n_calls: int) -> None:
    answer = client.chat.completions.create(
        model="tiny",
        messages=WEATHER,
        tools=TOOLS,
        tool_choice=choice,
        parallel_tool_calls=False,
        temperature=0,
        reasoning_effort="none",
        max_tokens=100,
    )

    assert len(answer.choices[0].message.tool_calls or ()) == n_calls


# --- form of the answer -----------------------------------------------------------------------------------------------


def test_an_answer_is_parsed_into_a_model(client: openai.OpenAI) -> None:
    asked: Any = [{"role": "user", "content": "Describe a person as JSON."}]
    answer = client.chat.completions.parse(
        model="tiny", messages=asked, response_format=Person, temperature=0, reasoning_effort="none"
    )

    person = answer.choices[0].message.parsed
    assert isinstance(person, Person)
    assert person.name


def test_any_json_object(client: openai.OpenAI) -> None:
    asked: Any = [{"role": "user", "content": "Describe a person as JSON."}]
    answer = client.chat.completions.create(
        model="tiny",
        messages=asked,
        response_format={"type": "json_object"},
        temperature=0,
        reasoning_effort="none",
    )

    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


# --- completions ------------------------------------------------------------------------------------------------------


def test_completions_whole_and_streamed(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "prompt": "Hello", "max_tokens": 8, "temperature": 0}
    asked["extra_body"] = {"think": False}
    whole = client.completions.create(**asked)
    chunks = list(
        client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )

    assert whole.choices[0].text
    assert whole.choices[0].finish_reason in ("stop", "length")
    *said, usage = chunks
    assert "".join(chunk.choices[0].text for chunk in said) == whole.choices[0].text
    assert said[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert usage.choices == []
    assert usage.usage is not None
    assert whole.usage is not None
    assert usage.usage.completion_tokens == whole.usage.completion_tokens


def test_several_prompts_several_answers_the_best_of_more(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="tiny",
        prompt=["Hello", "Good day"],
        n=2,
        best_of=3,
        echo=True,
        max_tokens=4,
        seed=1,
        extra_body={"think": False},
    )

    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert [choice.text.startswith("Hello") for choice in answer.choices] == [True] * 2 + [
        False
    ] * 2


# --- errors -----------------------------------------------------------------------------------------------------------

Failing = Callable[[openai.OpenAI], object]


@pytest.mark.parametrize(
    ("kind", "status", "message", "code", "param", "call"),
    [
        (
            openai.NotFoundError,
            404,
            "model 'nope' not found",
            "model_not_found",
            "model",
            lambda c: c.chat.completions.create(model="nope", messages=MESSAGES),
        ),
        (
            openai.NotFoundError,
            404,
            "model 'nope' not found",
            "model_not_found",
            "model",
            lambda c: list(c.chat.completions.create(model="nope", messages=MESSAGES, stream=True)),
        ),
        (
            openai.NotFoundError,
            404,
            "model 'nope' not found",
            "model_not_found",
            "model",
            lambda c: c.completions.create(model="nope", prompt="x"),
        ),
        (
            openai.NotFoundError,
            404,
            "model 'nope' not found",
            "model_not_found",
            "model",
            lambda c: c.models.retrieve("nope"),
        ),
        (
            openai.BadRequestError,
            400,
            "[] is too short - 'messages'",
            None,
            "messages",
            lambda c: c.chat.completions.create(model="tiny", messages=[]),
        ),
        (
            openai.BadRequestError,
            400,
            "n must be between 1 and 16",
            None,
            "n",
            lambda c: c.chat.completions.create(model="tiny", messages=MESSAGES, n=99),
        ),
    ],
    ids=["chat", "stream", "completions", "retrieve", "messages", "n"],
)
def test_errors_are_the_clients_own(
    client: openai.OpenAI,
    kind: type[openai.APIStatusError],
    status: int,
    message: str,
    code: str | None,
    param: str | None,
    call: Failing,
) -> None:
    with pytest.raises(kind) as caught:
        call(client)

    error = caught.value
    assert (error.status_code, error.code, error.param) == (status, code, param)
    assert isinstance(error.body, dict)
    assert error.body["message"] == message
    assert error.request_id


def test_an_unknown_token_is_a_bad_request(client: openai.OpenAI) -> None:
    """What only the model knows is told by the model, in the same form."""
    with pytest.raises(openai.BadRequestError, match="is not a token id"):
        client.chat.completions.create(model="tiny", messages=MESSAGES, logit_bias={"x": 1})


def test_a_stream_left_early_frees_the_client(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
    first = next(iter(stream))
    stream.close()

    again = client.chat.completions.create(model="tiny", messages=MESSAGES, **SHORT)

    assert first.model == again.model == "tiny"


def test_the_asynchronous_client_too(base_url: str) -> None:
    """On asyncio: the client leaves its generators to the loop when it has read `[DONE]`, of which trio warns."""

    async def ask() -> tuple[str, list[str]]:
        async with openai.AsyncOpenAI(base_url=f"{base_url}/v1", api_key="none") as client:
            chunks = await client.chat.completions.create(
                model="tiny", messages=MESSAGES, stream=True, **SHORT
            )
            said = [chunk.choices[0].delta.content or "" async for chunk in chunks]
            return "".join(said), [model.id async for model in client.models.list()]

    said, models = asyncio.run(ask())

    assert said
    assert "tiny:latest" in models
