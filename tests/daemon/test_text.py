"""Tokens, texts, prompts and scores from HTTP to the model and back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import gguf
import httpx2
import pytest

from kit.bert import write_bert
from kit.daemon import Daemon

pytestmark = [pytest.mark.daemon, pytest.mark.native]

TEXT = "Grüße, 世界 <|im_end|>"
CHAT = [{"role": "user", "content": "Why is the sky blue?"}]


def post(daemon: Daemon, path: str, body: Mapping[str, object]) -> dict[str, object]:
    reply = httpx2.post(daemon.url + path, json={"model": "tiny", **body}, timeout=60)
    assert reply.status_code == 200, reply.text
    return cast("dict[str, object]", reply.json())


def test_text_to_tokens_and_back(daemon: Daemon) -> None:
    tokens = cast("list[int]", post(daemon, "/api/tokenize", {"content": TEXT})["tokens"])
    plain = post(daemon, "/tokenize", {"content": TEXT, "parse_special": False})["tokens"]
    back = post(daemon, "/api/detokenize", {"tokens": tokens})

    assert back == {"content": TEXT}
    assert len(tokens) < len(cast("list[int]", plain))


def test_pieces_are_the_bytes_of_the_text(daemon: Daemon) -> None:
    found = post(daemon, "/tokenize", {"content": TEXT, "with_pieces": True})["tokens"]

    whole = b""
    for entry in cast("list[dict[str, str | list[int]]]", found):
        piece = entry["piece"]
        whole += piece.encode() if isinstance(piece, str) else bytes(piece)
    assert whole.decode() == TEXT


def test_a_rendered_chat_counts_as_many_tokens_as_its_turn(daemon: Daemon) -> None:
    prompt = post(daemon, "/apply-template", {"messages": CHAT})["prompt"]
    tokens = post(daemon, "/tokenize", {"content": prompt, "add_special": True})["tokens"]
    turn = {"messages": CHAT, "stream": False, "options": {"num_predict": 1}}

    assert "Why is the sky blue?" in str(prompt)
    assert len(cast("list[int]", tokens)) == post(daemon, "/api/chat", turn)["prompt_eval_count"]


def test_tokens_that_the_model_lacks_are_named(daemon: Daemon) -> None:
    body = {"model": "tiny", "tokens": [1, 1 << 80]}
    reply = httpx2.post(f"{daemon.url}/detokenize", json=body, timeout=60)
    other = httpx2.post(f"{daemon.url}/detokenize", json={**body, "tokens": [1, 9999]}, timeout=60)

    assert (reply.status_code, other.status_code) == (400, 400)
    assert "token 9999 at place 1 is not in the model's vocabulary" in other.text


def test_documents_are_ranked(daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "ranker.gguf"
    write_bert(path, pooling=gguf.PoolingType.RANK, head=True)
    data = path.read_bytes()
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    httpx2.post(f"{daemon.url}/api/blobs/{digest}", content=data, timeout=60)
    post(daemon, "/api/create", {"model": "ranker", "files": {"r.gguf": digest}, "stream": False})
    ask = {"query": "the cat", "documents": ["the sky is blue", "a cat sat", "blue blue the cat"]}

    found = post(daemon, "/v1/rerank", {"model": "ranker", **ask})
    unfit = httpx2.post(f"{daemon.url}/v1/rerank", json={"model": "tiny", **ask}, timeout=60)

    results = cast("list[dict[str, float]]", found["results"])
    scores = [row["relevance_score"] for row in results]
    assert sorted(row["index"] for row in results) == [0, 1, 2]
    assert scores == sorted(scores, reverse=True)
    # llama-server's scores of the same file: -0.41605 and -0.18154
    by_index = {row["index"]: row["relevance_score"] for row in results}
    assert (by_index[0], by_index[1]) == pytest.approx((-0.41605, -0.18154), abs=1e-3)
    assert unfit.status_code == 400
    assert "does not support reranking" in unfit.text
