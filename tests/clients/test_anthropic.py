"""The official `anthropic` Python client, unchanged: messages, the streaming helper, tools, thinking, counting, errors."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import cast

import anthropic
import pydantic
import pytest
from anthropic.types import MessageParam, TextBlock, ThinkingBlock, ToolParam, ToolUseBlock

from kit.fake_olm import FakeOlm
from kit.live_http import served_in_thread
from olm.chat.types import Done, Piece
from olm.errors import (
    Busy,
    ContextTooLong,
    LoadFailed,
    ModelNotFound,
    NotYetSupported,
    OlmError,
    RunnerCrashed,
)

HELLO: list[MessageParam] = [{"role": "user", "content": "What is your name?"}]
WEATHER: ToolParam = {
    "name": "get_weather",
    "description": "Get the weather for a city",
    "input_schema": {
        "type": "object",
        "properties": {"location": {"type": "string", "description": "The city"}},
        "required": ["location"],
    },
}
IN_PARIS: list[MessageParam] = [{"role": "user", "content": "What is the weather in Paris?"}]
GREEDY = {"temperature": 0}
"""The client has no argument for it any more; servers still take it."""


@contextlib.contextmanager
def client_of(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=60) as made:
        yield made


@pytest.fixture
def client(base_url: str) -> Iterator[anthropic.Anthropic]:
    with client_of(base_url) as made:
        yield made


def test_a_message(client: anthropic.Anthropic) -> None:
    message = client.messages.create(
        model="tiny", max_tokens=40, messages=HELLO, extra_body=GREEDY, system="Be brief."
    )

    (block,) = message.content
    assert isinstance(block, TextBlock)
    assert block.text
    assert (message.role, message.type, message.model) == ("assistant", "message", "tiny")
    assert message.stop_reason == "end_turn"
    assert message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0) > 0
    assert message.usage.output_tokens > 0
    assert message._request_id


def test_a_stream_and_the_message_it_adds_up_to(client: anthropic.Anthropic) -> None:
    with client.messages.stream(
        model="tiny", max_tokens=40, messages=HELLO, extra_body=GREEDY
    ) as stream:
        texts = list(stream.text_stream)
        message = stream.get_final_message()

    (block,) = message.content
    assert isinstance(block, TextBlock)
    assert len(texts) > 1
    assert "".join(texts) == block.text
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens >= len(texts)
    assert stream.request_id


def test_a_tool_is_called_and_its_result_used(client: anthropic.Anthropic) -> None:
    asked = client.messages.create(
        model="tiny", max_tokens=200, messages=IN_PARIS, tools=[WEATHER], extra_body=GREEDY
    )
    (call,) = [block for block in asked.content if isinstance(block, ToolUseBlock)]
    result: MessageParam = {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": call.id, "content": "22 degrees and sunny"}
        ],
    }
    answered: MessageParam = {"role": "assistant", "content": asked.content}
    told = client.messages.create(
        model="tiny",
        max_tokens=200,
        messages=[*IN_PARIS, answered, result],
        tools=[WEATHER],
        extra_body=GREEDY,
    )

    assert (asked.stop_reason, call.name) == ("tool_use", "get_weather")
    assert call.input == {"location": "Paris"}
    assert "22 degrees" in cast("TextBlock", told.content[-1]).text


def test_the_input_of_a_call_is_streamed(client: anthropic.Anthropic) -> None:
    with client.messages.stream(
        model="tiny", max_tokens=200, messages=IN_PARIS, tools=[WEATHER], extra_body=GREEDY
    ) as stream:
        parts = [event.partial_json for event in stream if event.type == "input_json"]
        message = stream.get_final_message()

    (call,) = [block for block in message.content if isinstance(block, ToolUseBlock)]
    assert len(parts) > 1
    assert json.loads("".join(parts)) == call.input == {"location": "Paris"}
    assert message.stop_reason == "tool_use"


def test_a_tool_may_be_forced(client: anthropic.Anthropic) -> None:
    message = client.messages.create(
        model="tiny",
        max_tokens=200,
        messages=HELLO,
        tools=[WEATHER],
        tool_choice={"type": "tool", "name": "get_weather"},
        extra_body=GREEDY,
    )

    assert [block.type for block in message.content] == ["tool_use"]


@pytest.mark.parametrize("stream", [True, False])
def test_thinking_is_a_block_of_its_own(client: anthropic.Anthropic, stream: bool) -> None:
    def ask(*messages: MessageParam) -> anthropic.types.Message:
        if stream:
            with client.messages.stream(
                model="tiny",
                max_tokens=200,
                messages=messages,
                thinking={"type": "enabled", "budget_tokens": 100},
                extra_body=GREEDY,
            ) as running:
                return running.get_final_message()
        return client.messages.create(
            model="tiny",
            max_tokens=200,
            messages=messages,
            thinking={"type": "enabled", "budget_tokens": 100},
            extra_body=GREEDY,
        )

    who: MessageParam = {"role": "user", "content": "Who are you?"}
    first = ask(who)
    second = ask(who, {"role": "assistant", "content": first.content}, *HELLO)

    thought, text = first.content
    assert isinstance(thought, ThinkingBlock)
    assert thought.thinking
    assert thought.signature
    assert isinstance(text, TextBlock)
    assert text.text
    assert second.content


class Person(pydantic.BaseModel):
    name: str
    age: int


def test_an_answer_is_parsed(client: anthropic.Anthropic) -> None:
    message = client.messages.parse(
        model="tiny",
        max_tokens=200,
        messages=[{"role": "user", "content": "Describe a person as JSON."}],
        output_format=Person,
        extra_body=GREEDY,
    )

    assert isinstance(message.parsed_output, Person)


def test_tokens_are_counted(client: anthropic.Anthropic) -> None:
    short = client.messages.count_tokens(model="tiny", messages=HELLO)
    long = client.messages.count_tokens(model="tiny", messages=HELLO, system="Be very brief.")

    assert 0 < short.input_tokens < long.input_tokens


@pytest.mark.daemon
@pytest.mark.native
def test_the_count_is_what_a_message_costs(daemon: object) -> None:
    with client_of(str(getattr(daemon, "url"))) as client:  # noqa: B009
        counted = client.messages.count_tokens(
            model="tiny", messages=IN_PARIS, tools=[WEATHER], system="Be brief."
        )
        usage = client.messages.create(
            model="tiny", max_tokens=1, messages=IN_PARIS, tools=[WEATHER], system="Be brief."
        ).usage

    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_models_are_listed(client: anthropic.Anthropic) -> None:
    assert any(model.id.startswith("tiny") for model in client.models.list())


@pytest.mark.parametrize("stream", [True, False])
def test_errors_of_the_request(client: anthropic.Anthropic, stream: bool) -> None:
    def ask(model: str, max_tokens: int) -> None:
        client.messages.create(model=model, max_tokens=max_tokens, messages=HELLO, stream=stream)

    with pytest.raises(anthropic.NotFoundError, match="model 'nope' not found") as missing:
        ask("nope", 10)
    with pytest.raises(anthropic.BadRequestError, match="must be positive"):
        ask("tiny", 0)

    assert missing.value.request_id
    assert cast("dict[str, object]", missing.value.body)["request_id"] == missing.value.request_id


@pytest.fixture(scope="module")
def failing() -> Iterator[tuple[FakeOlm, str]]:
    """A server whose models fail as a test says."""
    fake = FakeOlm("tiny")
    with served_in_thread(fake) as url:
        yield fake, url


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ContextTooLong("too long"), anthropic.BadRequestError),
        (OlmError("no key", status=401), anthropic.AuthenticationError),
        (OlmError("not yours", status=403), anthropic.PermissionDeniedError),
        (ModelNotFound("gone"), anthropic.NotFoundError),
        (OlmError("too large", status=413), anthropic.APIStatusError),
        (OlmError("slow down", status=429), anthropic.RateLimitError),
        (LoadFailed("broken"), anthropic.InternalServerError),
        (NotYetSupported("not yet"), anthropic.InternalServerError),
        (Busy("busy"), anthropic.InternalServerError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_each_error_is_the_clients_own(
    failing: tuple[FakeOlm, str], error: OlmError, kind: type[anthropic.APIStatusError]
) -> None:
    fake, url = failing
    fake.models.enter_error = error

    with client_of(url) as client, pytest.raises(kind) as caught:
        client.messages.create(model="tiny", max_tokens=9, messages=HELLO)

    assert caught.value.status_code == error.http_status
    assert str(error) in str(caught.value)


def test_an_error_in_a_stream_is_raised(failing: tuple[FakeOlm, str]) -> None:
    fake, url = failing
    fake.models.enter_error = None
    fake.models.script = [Piece(content="a"), RunnerCrashed("the worker died")]

    with client_of(url) as client:
        running = client.messages.stream(model="tiny", max_tokens=9, messages=HELLO)
        with running as stream, pytest.raises(anthropic.APIStatusError, match="the worker died"):
            stream.until_done()


def test_a_stop_sequence_is_named(failing: tuple[FakeOlm, str]) -> None:
    fake, url = failing
    fake.models.enter_error = None
    fake.models.script = [Piece(content="a"), Done("stop", stop="END")]

    with client_of(url) as client:
        message = client.messages.create(
            model="tiny", max_tokens=9, messages=HELLO, stop_sequences=["END"]
        )

    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")


@pytest.mark.daemon
@pytest.mark.native
def test_a_conversation_that_does_not_fit_is_refused(daemon: object) -> None:
    """Nothing is dropped in silence; the words are those on which Claude Code shortens it."""
    long: list[MessageParam] = [{"role": "user", "content": "word " * 3000}]

    with client_of(str(getattr(daemon, "url"))) as client:  # noqa: B009
        with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
            client.messages.create(model="tiny", max_tokens=9, messages=long)
        counted = client.messages.count_tokens(model="tiny", messages=long)

    assert counted.input_tokens > 2048


@pytest.mark.daemon
@pytest.mark.native
def test_a_stop_sequence_ends_the_answer(daemon: object) -> None:
    with client_of(str(getattr(daemon, "url"))) as client:  # noqa: B009
        message = client.messages.create(
            model="tiny",
            max_tokens=40,
            messages=HELLO,
            stop_sequences=["zzz", "tiny"],
            extra_body=GREEDY,
        )

    (block,) = message.content
    assert "tiny" not in cast("TextBlock", block).text
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "tiny")


async def test_the_asynchronous_client_too(base_url: str) -> None:
    async with (
        anthropic.AsyncAnthropic(base_url=base_url, api_key="none", timeout=60) as client,
        client.messages.stream(model="tiny", max_tokens=40, messages=HELLO) as stream,
    ):
        texts = [text async for text in stream.text_stream]

    assert texts
