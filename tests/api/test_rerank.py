"""`/v1/rerank` and `/api/rerank`: the order of documents, the form of Jina and Cohere, and refusals."""

from __future__ import annotations

import pytest

from kit.fake_olm import FakeOlm
from kit.memory_http import MemoryClient
from olm.actors.client import RerankRequest
from olm.errors import NotSupported

DOCUMENTS = ["dog", {"text": "cat cat"}, "cat", "bird"]
BODY = {"model": "tiny", "query": "cat", "documents": DOCUMENTS}


@pytest.mark.parametrize("path", ["/v1/rerank", "/api/rerank"])
async def test_answer(client: MemoryClient, path: str) -> None:
    reply = await client.post(path, BODY)

    answer = reply.json
    assert str(answer.pop("id")).startswith("rerank-")
    assert answer == {
        "model": "tiny",
        "results": [
            {"index": 1, "relevance_score": 0.2},
            {"index": 2, "relevance_score": 0.1},
            {"index": 0, "relevance_score": 0},
            {"index": 3, "relevance_score": 0},
        ],
        "usage": {"prompt_tokens": 32, "total_tokens": 32},
        "meta": {"tokens": {"input_tokens": 32}},
    }


async def test_best_documents_with_their_text(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.score = lambda query, text: -len(text) / 3
    fields = {"top_n": 2, "return_documents": True, "truncate": False, "keep_alive": 0}
    reply = await client.post("/v1/rerank", {**BODY, **fields})

    (asked,) = olm.models.requests
    assert asked == RerankRequest(
        model="tiny",
        query="cat",
        documents=["dog", "cat cat", "cat", "bird"],
        truncate=False,
        keep_alive_s=0.0,
    )
    assert reply.json["results"] == [
        {"index": 0, "relevance_score": -1, "document": {"text": "dog"}},
        {"index": 2, "relevance_score": -1, "document": {"text": "cat"}},
    ]


async def test_more_than_there_are(client: MemoryClient) -> None:
    reply = await client.post("/v1/rerank", {**BODY, "top_n": 99})

    assert len(reply.json["results"]) == 4  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"query": ""}, "query is required"),
        ({"documents": []}, "documents is required"),
        ({"documents": None}, "documents is required"),
        (
            {"documents": ["a", 3]},
            'documents[1] must be a string or an object with a "text"',
        ),
        ({"documents": [{"t": "a"}]}, 'documents[0] must be a string or an object with a "text"'),
        ({"top_n": 0}, "top_n must be at least 1"),
        ({"model": None}, "model is required"),
    ],
)
async def test_refusals(
    client: MemoryClient, olm: FakeOlm, fields: dict[str, object], message: str
) -> None:
    openai = await client.post("/v1/rerank", {**BODY, **fields})
    native = await client.post("/api/rerank", {**BODY, **fields})

    assert (openai.status, native.status) == (400, 400)
    assert openai.json["error"]["message"] == message  # type: ignore[index]
    assert native.error == message
    assert olm.models.requests == []


async def test_models_that_cannot(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.enter_error = NotSupported("tiny does not support reranking")
    refused = await client.post("/v1/rerank", BODY)
    olm.models.enter_error = None
    olm.models.score = lambda query, text: float("nan")
    damaged = await client.post("/v1/rerank", BODY)

    assert refused.status == 400
    assert damaged.status == 500
