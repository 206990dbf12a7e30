"""Where the clients under test find a server: one over a fake in this process, and a real daemon."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kit.fake_olm import FakeOlm, Step, answer, called
from kit.live_http import served_in_thread
from olm.actors.client import ChatRequest, GenerateRequest
from olm.chat.types import Piece


@pytest.fixture(
    scope="module",
    params=["fake", pytest.param("daemon", marks=[pytest.mark.daemon, pytest.mark.native])],
)
def base_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a server that has the model `tiny`."""
    if request.param == "fake":
        fake = FakeOlm("tiny")
        fake.models.respond = _respond
        with served_in_thread(fake) as url:
            yield url
    else:
        yield request.getfixturevalue("daemon").url


def _respond(request: ChatRequest | GenerateRequest) -> list[Step]:
    """Answer in the forms in which the built-in model answers these tests."""
    thoughts: list[Step] = [Piece(thinking="Let me "), Piece(thinking="see.")]
    if request.think is False:
        thoughts = []
    if request.constraint is not None:
        return [*thoughts, *answer('{"name": ', '"Tom", "age": 3}')]
    if not isinstance(request, ChatRequest):
        return [*thoughts, *answer("Hi", " there")]
    if request.messages[-1].role == "tool":
        return [*thoughts, *answer("The weather in Paris is ", request.messages[-1].content, ".")]
    if request.tools_json and request.tool_choice.mode != "none":
        return [*thoughts, *called("get_weather", '{"location": "Paris"}'), *answer()]
    return [*thoughts, *answer("Hi", " there")]
