"""Tokens, texts and rendered prompts over HTTP, in llama-server's form; the fake's tokens are code points."""

from __future__ import annotations

import pytest

from kit.fake_olm import FakeOlm
from kit.memory_http import MemoryClient
from olm.actors.client import ChatRequest, RenderedPrompt

TOKENIZE = ("/tokenize", "/api/tokenize")
DETOKENIZE = ("/detokenize", "/api/detokenize")


@pytest.mark.parametrize("path", TOKENIZE)
async def test_text_becomes_tokens(client: MemoryClient, path: str) -> None:
    reply = await client.post(path, {"model": "tiny", "content": "Hé"})

    assert reply.text == '{"tokens":[72,233]}'


async def test_special_tokens_come_when_asked_for(client: MemoryClient, olm: FakeOlm) -> None:
    body = {"model": "tiny", "content": "a", "add_special": True, "parse_special": False}

    reply = await client.post("/tokenize", body)
    await client.post("/tokenize", {"model": "tiny", "content": "a"})

    assert reply.text == '{"tokens":[1,97]}'
    assert olm.models.requests == [
        ("tokenize", "tiny", "a", True, False),
        ("tokenize", "tiny", "a", False, True),
    ]


async def test_texts_and_tokens_may_be_mixed(client: MemoryClient) -> None:
    mixed = ["a", 7, "b"]

    asked = {"model": "tiny", "content": mixed, "add_special": True}
    first_is_a_token = {"model": "tiny", "content": mixed[1:], "add_special": True}

    # Only what stands first gets special tokens, and only if it is a text.
    assert (await client.post("/tokenize", asked)).text == '{"tokens":[1,97,7,98]}'
    assert (await client.post("/tokenize", first_is_a_token)).text == '{"tokens":[7,98]}'


async def test_pieces_are_texts_or_bytes(client: MemoryClient) -> None:
    body = {"model": "tiny", "content": "aé€", "with_pieces": True}

    reply = await client.post("/tokenize", body)

    assert reply.json == {
        "tokens": [
            {"id": 97, "piece": "a"},
            {"id": 233, "piece": [233]},
            {"id": 8364, "piece": "€"},
        ]
    }


@pytest.mark.parametrize("path", DETOKENIZE)
async def test_tokens_become_text(client: MemoryClient, path: str) -> None:
    reply = await client.post(path, {"model": "tiny", "tokens": [72, 233, 60]})

    assert reply.json == {"content": "Hé<"}


@pytest.mark.parametrize("path", ["/apply-template", "/api/apply-template"])
async def test_a_chat_becomes_a_prompt(client: MemoryClient, olm: FakeOlm, path: str) -> None:
    olm.models.rendered = RenderedPrompt("<|user|>Hi<|assistant|>")
    tool = {"type": "function", "function": {"name": "f"}}
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "tools": [tool]}

    reply = await client.post(path, body)

    assert reply.json == {"prompt": "<|user|>Hi<|assistant|>"}
    [(_, request)] = olm.models.requests  # type: ignore[misc]  # a pair of "render" and the request
    assert isinstance(request, ChatRequest)
    assert request.messages[0].content == "Hi"
    assert '"f"' in request.tools_json
    assert not request.truncate, "llama-server writes all of it"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {"content": "a"}),
        ("/detokenize", {"tokens": [97]}),
        ("/apply-template", {"messages": [{"role": "user", "content": "a"}]}),
    ],
)
async def test_the_only_loaded_model_need_not_be_named(
    client: MemoryClient, olm: FakeOlm, path: str, body: dict[str, object]
) -> None:
    one = await client.post(path, body)
    olm.store.add("other")
    two = await client.post(path, body)
    olm.store.models.clear()
    none = await client.post(path, body)

    assert one.status == 200
    assert (two.status, none.status) == (400, 400)
    assert two.error.startswith("model is required: 2 are loaded: tiny")
    assert none.error == "model is required: none is loaded"


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/tokenize", {}, 400, "content is required"),
        ("/tokenize", {"content": {}}, 400, "content must be a string, or a list of strings and tokens"),
        (
            "/tokenize",
            {"content": ["a", True]},
            400,
            "content must be a string, or a list of strings and tokens: content[1] is neither",
        ),
        ("/detokenize", {}, 400, "tokens is required"),
        ("/detokenize", {"tokens": ["a"]}, 400, "cannot unmarshal string"),
        ("/tokenize", {"content": "a", "model": "gone"}, 404, "model 'gone' not found"),
        ("/apply-template", {"messages": []}, 400, "messages"),
    ],
)  # fmt: skip
async def test_refusals(
    client: MemoryClient, path: str, body: dict[str, object], status: int, message: str
) -> None:
    reply = await client.post(path, {"model": "tiny", **body})

    assert reply.status == status
    assert message in reply.error
