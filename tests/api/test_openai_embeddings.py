"""`/v1/embeddings`: what may be embedded, in which form vectors come back, and what is refused in which words."""

from __future__ import annotations

import base64
import struct

import pytest

from kit.fake_olm import FakeOlm
from kit.memory_http import MemoryClient
from olm.actors.client import EmbedRequest
from olm.errors import ContextTooLong


async def embed(client: MemoryClient, olm: FakeOlm, **fields: object) -> EmbedRequest:
    """Send a request and return what the models were asked."""
    olm.models.requests.clear()
    reply = await client.post("/v1/embeddings", {"model": "tiny", "input": "a", **fields})
    assert reply.status == 200, reply.text
    (request,) = olm.models.requests
    assert isinstance(request, EmbedRequest)
    return request


async def test_answer(client: MemoryClient) -> None:
    reply = await client.post("/v1/embeddings", {"model": "tiny", "input": ["a", "b"]})

    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    assert reply.body == (
        b'{"object":"list","data":['
        b'{"object":"embedding","embedding":[0.01,-0.0017],"index":0},'
        b'{"object":"embedding","embedding":[0.01,-0.0017],"index":1}],'
        b'"model":"tiny","usage":{"prompt_tokens":16,"total_tokens":16}}'
    )


async def test_base64_is_little_endian_float32(client: MemoryClient) -> None:
    body = {"model": "tiny", "input": "a", "encoding_format": "base64"}
    reply = await client.post("/v1/embeddings", body)

    packed = base64.b64encode(struct.pack("<2f", 0.01, -0.0017)).decode()
    assert f'"embedding":"{packed}"' in reply.text


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("a", ("a",)),
        ("", ("",)),
        (["a", ""], ("a", "")),
        ([1, 2, 3], ((1, 2, 3),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
    ],
)
async def test_inputs(
    client: MemoryClient, olm: FakeOlm, given: object, inputs: tuple[object, ...]
) -> None:
    assert (await embed(client, olm, input=given)).inputs == inputs


async def test_fields(client: MemoryClient, olm: FakeOlm) -> None:
    plain = await embed(client, olm, user="u", dimensions=None, encoding_format=None)
    full = await embed(client, olm, dimensions=1, truncate=False, keep_alive="5m")

    assert (plain.dimensions, plain.truncate, plain.keep_alive_s) == (0, True, None)
    assert (full.dimensions, full.truncate, full.keep_alive_s) == (1, False, 300.0)


FORMS = "(must be a string, strings, tokens, or lists of tokens)"


@pytest.mark.parametrize(
    ("fields", "message", "param"),
    [
        ({"input": None}, "invalid input", "input"),
        ({"input": []}, "invalid input", "input"),
        ({"input": [[]]}, "invalid input", "input"),
        ({"input": 3}, f"invalid input: 3 {FORMS}", "input"),
        ({"input": ["a", 1]}, f'invalid input: ["a", 1] {FORMS}', "input"),
        ({"input": [1, "a"]}, f'invalid input: [1, "a"] {FORMS}', "input"),
        ({"input": [1, True]}, f"invalid input: [1, true] {FORMS}", "input"),
        ({"input": [1, -1]}, "input: -1 is not a token", "input"),
        ({"input": [[1], "a"]}, f'invalid input: "a" {FORMS}', "input"),
        ({"input": [1.5]}, f"invalid input: [1.5] {FORMS}", "input"),
        ({"dimensions": -1}, "dimensions must not be negative", "dimensions"),
        (
            {"encoding_format": "int8"},
            "Invalid value for 'encoding_format' = int8. Supported values: ['float', 'base64'].",
            "encoding_format",
        ),
        ({"model": ""}, "model is required", "model"),
        (
            {"dimensions": "2"},
            "json: cannot unmarshal string into Go struct field EmbeddingsRequest.dimensions of type int",
            None,
        ),
    ],
)
async def test_refusals(
    client: MemoryClient,
    olm: FakeOlm,
    fields: dict[str, object],
    message: str,
    param: str | None,
) -> None:
    reply = await client.post("/v1/embeddings", {"model": "tiny", "input": "a", **fields})

    assert reply.status == 400
    assert reply.json == {
        "error": {
            "message": message,
            "type": "invalid_request_error",
            "param": param,
            "code": None,
        }
    }
    assert olm.models.requests == []


async def test_errors_of_the_model(client: MemoryClient, olm: FakeOlm) -> None:
    unknown = await client.post("/v1/embeddings", {"model": "nope", "input": "a"})
    olm.models.enter_error = ContextTooLong("the input length exceeds the context length")
    too_long = await client.post("/v1/embeddings", {"model": "tiny", "input": "a"})
    olm.models.enter_error, olm.models.vector = None, (float("nan"), 1.0)
    damaged = [
        await client.post("/v1/embeddings", {"model": "tiny", "input": "a", "encoding_format": f})
        for f in ("float", "base64")
    ]

    assert (unknown.status, unknown.json["error"]["type"]) == (404, "not_found_error")  # type: ignore[index]
    assert too_long.status == 400
    assert [reply.status for reply in damaged] == [400, 400]
    assert all("NaN" in reply.text for reply in damaged)
