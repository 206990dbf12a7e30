"""`/api/imatrix` over HTTP: lines with the file in them, the file alone, and what a failure looks like."""

from __future__ import annotations

import base64
import hashlib
import json

from kit.fake_olm import FakeOlm
from kit.live_http import open_live_server
from kit.memory_http import MemoryClient
from olm.actors.jobs_client import ImatrixRequest, Progress
from olm.errors import InvalidRequest, StoreError


async def test_progress_is_followed_by_the_file(client: MemoryClient, olm: FakeOlm) -> None:
    olm.jobs.matrix = [
        Progress("computing imatrix", total=1024, completed=512),
        b"a ",
        b"matrix",
        Progress("success"),
    ]
    body = {"model": "tiny", "text": "Hi", "dataset": "hi.txt", "ctx": 64, "chunks": 3}

    reply = await client.post("/api/imatrix", {**body, "num_gpu": None, "parse_special": True})

    assert reply.lines == [
        {"status": "computing imatrix", "total": 1024, "completed": 512},
        {"status": "writing imatrix", "data": base64.b64encode(b"a ").decode()},
        {"status": "writing imatrix", "data": base64.b64encode(b"matrix").decode()},
        {
            "status": "success",
            "total": 8,
            "digest": "sha256:" + hashlib.sha256(b"a matrix").hexdigest(),
        },
    ]
    assert olm.jobs.measured == [
        ImatrixRequest(
            model="tiny", text="Hi", dataset="hi.txt", n_ctx=64, n_chunks=3, parse_special=True
        )
    ]


async def test_without_a_stream_the_answer_is_the_file(client: MemoryClient) -> None:
    reply = await client.post("/api/imatrix", {"model": "tiny", "text": "Hi", "stream": False})

    assert reply.body == b"a matrix"
    assert reply.headers["content-type"] == "application/octet-stream"


async def test_a_failure_before_the_file_is_an_answer(client: MemoryClient, olm: FakeOlm) -> None:
    olm.jobs.matrix = [
        Progress("loading model"),
        InvalidRequest("the text is too short"),
    ]

    reply = await client.post("/api/imatrix", {"model": "tiny", "text": "Hi", "stream": False})
    lines = await client.post("/api/imatrix", {"model": "tiny", "text": "Hi"})

    assert (reply.status, reply.json) == (400, {"error": "the text is too short"})
    assert lines.lines[-1] == {"error": "the text is too short"}


async def test_a_failure_in_the_file_breaks_the_connection_off() -> None:
    olm = FakeOlm()
    olm.jobs.matrix = [b"half", StoreError("the disk is gone")]
    body = json.dumps({"model": "tiny", "text": "Hi", "stream": False}).encode()
    head = f"POST /api/imatrix HTTP/1.1\r\nHost: localhost:11434\r\nContent-Length: {len(body)}\r\n"
    async with open_live_server(olm) as server:
        reply = await server.exchange(head.encode() + b"Connection: close\r\n\r\n" + body)

    assert reply.startswith(b"HTTP/1.1 200")
    assert reply.endswith(b"4\r\nhalf\r\n")


async def test_a_model_must_be_named(client: MemoryClient, olm: FakeOlm) -> None:
    reply = await client.post("/api/imatrix", {"text": "Hi"})

    assert (reply.status, reply.json) == (400, {"error": "model is required"})
    assert olm.jobs.measured == []
