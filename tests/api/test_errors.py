"""The same errors in every API's own form: before an answer, instead of a whole one, and in the middle of a stream."""

from __future__ import annotations

import json
from typing import Final

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kit.fake_olm import FakeOlm, Pause, Step
from kit.memory_http import MemoryClient, MemoryServer, Reply
from olm.chat.types import Piece
from olm.errors import (
    Busy,
    ContextTooLong,
    InvalidRequest,
    ModelNotFound,
    NotSupported,
    OlmError,
    RunnerCrashed,
    ShuttingDown,
)

JSON: Final = "application/json; charset=utf-8"
MESSAGES: Final = [{"role": "user", "content": "Hi"}]

BODIES: Final[dict[str, dict[str, object]]] = {
    "/api/generate": {"model": "tiny", "prompt": "Hi"},
    "/api/chat": {"model": "tiny", "messages": MESSAGES},
    "/v1/chat/completions": {"model": "tiny", "messages": MESSAGES},
    "/v1/completions": {"model": "tiny", "prompt": "Hi"},
    "/v1/responses": {"model": "tiny", "input": "Hi"},
    "/v1/messages": {"model": "tiny", "messages": MESSAGES, "max_tokens": 9},
}
"""Requests of all routes that stream."""
OTHERS: Final[dict[str, dict[str, object]]] = {
    "/api/embed": {"model": "tiny", "input": "Hi"},
    "/api/rerank": {"model": "tiny", "query": "Hi", "documents": ["a"]},
    "/v1/embeddings": {"model": "tiny", "input": "Hi"},
    "/v1/rerank": {"model": "tiny", "query": "Hi", "documents": ["a"]},
    "/v1/messages/count_tokens": {"model": "tiny", "messages": MESSAGES},
    "/v1/responses/input_tokens": {"model": "tiny", "input": "Hi"},
}


@attrs.frozen
class Case:
    """An error, and what the APIs make of it. The Responses API has codes of its own inside a stream."""

    error: OlmError
    status: int
    openai: str
    code: str | None
    anthropic: str
    in_response: str
    prefix: str = ""
    param: str | None = None


CASES: Final = (
    Case(
        InvalidRequest("bad value"),
        400,
        "invalid_request_error",
        None,
        "invalid_request_error",
        "invalid_prompt",
    ),
    Case(
        NotSupported("tiny does not support tools"),
        400,
        "invalid_request_error",
        None,
        "invalid_request_error",
        "invalid_prompt",
    ),
    Case(
        ContextTooLong("the input is longer than the context"),
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "invalid_request_error",
        "context_length_exceeded",
        prefix="prompt is too long: ",
    ),
    Case(
        ModelNotFound("model 'tiny' not found"),
        404,
        "not_found_error",
        "model_not_found",
        "not_found_error",
        "server_error",
        param="model",
    ),
    Case(
        Busy("server busy", retry_after_s=7),
        503,
        "api_error",
        None,
        "overloaded_error",
        "server_is_overloaded",
    ),
    Case(
        ShuttingDown("going down"),
        503,
        "api_error",
        None,
        "overloaded_error",
        "server_is_overloaded",
    ),
    Case(RunnerCrashed("it died"), 500, "api_error", None, "api_error", "server_error"),
)


def told(path: str, case: Case, request_id: str) -> dict[str, object]:
    """The error's document in the form of the path's API."""
    message = case.error.message
    if path.startswith("/v1/messages"):
        error = {"type": case.anthropic, "message": case.prefix + message}
        return {"type": "error", "error": error, "request_id": request_id}
    if path.startswith("/v1/"):
        detail = {"message": message, "type": case.openai, "param": case.param, "code": case.code}
        return {"error": detail}
    return {"error": message}


def last_words(path: str, reply: Reply) -> dict[str, object]:
    """The last thing that a stream says."""
    if path.startswith("/api/"):
        return reply.lines[-1]
    assert reply.text.endswith("\n\n")
    frame = reply.text.rstrip("\n").rpartition("\n\n")[2]
    kind, _, data = frame.rpartition("data: ")
    value = json.loads(data)
    assert isinstance(value, dict)
    if path in ("/v1/messages", "/v1/responses"):
        assert kind == f"event: {value['type']}\n"
    return value


@pytest.mark.parametrize("case", CASES, ids=lambda case: type(case.error).__name__)
@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_before_the_answer_has_its_status(
    client: MemoryClient, olm: FakeOlm, path: str, case: Case, stream: bool
) -> None:
    olm.models.enter_error = case.error

    reply = await client.post(path, {**BODIES[path], "stream": stream})

    assert (reply.status, reply.headers["content-type"]) == (case.status, JSON)
    assert reply.json == told(path, case, reply.headers["x-request-id"])
    is_busy = isinstance(case.error, Busy)
    wait = "7" if case.error.details else "1"
    assert reply.headers.get("retry-after") == (wait if is_busy else None)


@pytest.mark.parametrize("case", CASES, ids=lambda case: type(case.error).__name__)
@pytest.mark.parametrize("path", BODIES)
async def test_an_error_in_a_stream_is_its_last_word(
    client: MemoryClient, olm: FakeOlm, path: str, case: Case, autojump_clock: MockClock
) -> None:
    olm.models.script = [Piece(content="a"), Pause(1), case.error]

    reply = await client.post(path, {**BODIES[path], "stream": True})

    assert reply.status == 200
    last = last_words(path, reply)
    if path == "/v1/responses":
        response = last["response"]
        assert isinstance(response, dict)
        assert (last["type"], response["status"]) == ("response.failed", "failed")
        assert response["error"] == {"code": case.in_response, "message": case.error.message}
    else:
        assert last == told(path, case, reply.headers["x-request-id"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: type(case.error).__name__)
@pytest.mark.parametrize("path", BODIES)
async def test_an_error_instead_of_the_end_of_a_whole_answer_has_its_status(
    client: MemoryClient, olm: FakeOlm, path: str, case: Case
) -> None:
    olm.models.script = [Piece(content="a"), case.error]

    reply = await client.post(path, {**BODIES[path], "stream": False})

    assert reply.status == case.status
    assert reply.json == told(path, case, reply.headers["x-request-id"])


@pytest.mark.parametrize("path", [*BODIES, *OTHERS])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"model":', "unexpected EOF"),
        (b"{]", "invalid character ']' looking for beginning of object key string"),
        (b'{"model":5}', "json: cannot unmarshal number into Go struct field "),
        (b'[{"model":"tiny"}]', "json: cannot unmarshal array into Go value of type "),
    ],
    ids=["cut", "malformed", "type", "array"],
)
async def test_a_bad_body_is_told_in_the_form_of_the_api(
    client: MemoryClient, path: str, body: bytes, message: str
) -> None:
    reply = await client.post(path, body)

    assert (reply.status, reply.headers["content-type"]) == (400, JSON)
    error = _detail(path, reply)
    assert str(error.pop("message")).startswith(message)
    if path.startswith("/v1/messages"):
        assert error == {"type": "invalid_request_error"}
    elif path.startswith("/v1/"):
        assert error == {"type": "invalid_request_error", "param": None, "code": None}


@pytest.mark.parametrize("path", [*BODIES, *OTHERS])
async def test_an_unknown_model_is_told_in_the_form_of_the_api(
    client: MemoryClient, path: str
) -> None:
    reply = await client.post(path, {**BODIES, **OTHERS}[path] | {"model": "nope"})

    assert reply.status == 404
    error = _detail(path, reply)
    assert "nope" in str(error.pop("message"))
    if path.startswith("/v1/messages"):
        assert error == {"type": "not_found_error"}
    elif path.startswith("/v1/"):
        assert error == {"type": "not_found_error", "param": "model", "code": "model_not_found"}


def _detail(path: str, reply: Reply) -> dict[str, object]:
    document = reply.json
    if not path.startswith("/v1/"):
        assert set(document) == {"error"}
        return {"message": document["error"]}
    assert set(document) == (
        {"type", "error", "request_id"} if path.startswith("/v1/messages") else {"error"}
    )
    error = document["error"]
    assert isinstance(error, dict)
    return error


@pytest.mark.parametrize("path", [*BODIES, *OTHERS])
async def test_a_server_that_drains_refuses_in_the_form_of_the_api(
    server: MemoryServer, path: str
) -> None:
    client = server.connect()
    server.api.gate.drain()

    reply = await client.post(path, {**BODIES, **OTHERS}[path])

    assert (reply.status, reply.headers["content-type"]) == (503, JSON)
    assert reply.headers["retry-after"] == "1"
    error = _detail(path, reply)
    assert error.pop("message") == "server is shutting down, please try again later"
    kind = {"type": "overloaded_error"} if path.startswith("/v1/messages") else None
    openai = {"type": "api_error", "param": None, "code": None}
    assert error == (kind or (openai if path.startswith("/v1/") else {}))


@pytest.mark.parametrize("path", BODIES)
async def test_a_server_that_ends_tells_its_streams(
    server: MemoryServer, olm: FakeOlm, path: str
) -> None:
    script: list[Step] = [Piece(content="a"), Pause(3600)]
    olm.models.script = script
    client = server.connect()
    replies: list[Reply] = []

    async def ask() -> None:
        replies.append(await client.post(path, {**BODIES[path], "stream": True}))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        server.api.gate.abort("test")

    (reply,) = replies
    assert reply.status == 200
    text = json.dumps(last_words(path, reply))
    assert "server is shutting down, please try again later" in text
    assert "[DONE]" not in reply.text
