"""`/api/export` and `/api/import` over HTTP: what is streamed, what is asked of the jobs, how a broken stream ends."""

from __future__ import annotations

import json

from kit.fake_olm import FakeOlm
from kit.live_http import open_live_server
from olm.actors.jobs_client import ExportRequest, Progress
from olm.errors import DiskFull, StoreError


def post(path: str, body: bytes, content_type: str = "application/json", *extra: str) -> bytes:
    head = [
        f"POST {path} HTTP/1.1",
        "Host: localhost:11434",
        "Connection: close",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        *extra,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def test_without_a_path_the_answer_is_the_archive() -> None:
    async with open_live_server() as server:
        reply = await server.exchange(post("/api/export", b'{"model":"tiny","compress":true}'))

    assert reply.startswith(b"HTTP/1.1 200")
    assert b"content-type: application/zstd" in reply
    assert reply.endswith(b"7\r\narchive\r\n0\r\n\r\n")
    assert server.olm.jobs.exports == [ExportRequest(models=["tiny"], compress=True)]


async def test_an_error_in_the_middle_breaks_the_connection_off() -> None:
    olm = FakeOlm()
    olm.jobs.archive = [b"half", StoreError("the disk is gone")]
    async with open_live_server(olm) as server:
        reply = await server.exchange(post("/api/export", b'{"models":["tiny"]}'))

    assert reply.startswith(b"HTTP/1.1 200")
    assert reply.endswith(b"4\r\nhalf\r\n")


async def test_an_error_at_the_beginning_is_an_answer() -> None:
    olm = FakeOlm()
    olm.jobs.archive = [StoreError("the disk is gone")]
    async with open_live_server(olm) as server:
        reply = await server.exchange(post("/api/export", b'{"models":["tiny"]}'))

    assert reply.startswith(b"HTTP/1.1 500")
    assert reply.endswith(b'{"error":"the disk is gone"}')


async def test_progress_is_lines_or_the_last_one() -> None:
    olm = FakeOlm()
    olm.jobs.script = [Progress("exporting ab", "sha256:ab", 2, 1), Progress("success")]
    body = {"models": ["tiny"], "path": "/tmp/x.tar"}
    async with open_live_server(olm) as server:
        lines = await server.exchange(post("/api/export", json.dumps(body).encode()))
        last = await server.exchange(
            post("/api/export", json.dumps({**body, "stream": False}).encode())
        )

    assert b'{"status":"exporting ab","digest":"sha256:ab","total":2,"completed":1}\n' in lines
    assert last.endswith(b'\r\n\r\n{"status":"success"}')


async def test_a_body_is_imported_whatever_its_size() -> None:
    data = bytes(3 << 20)
    async with open_live_server() as server:
        reply = await server.exchange(post("/api/import?name=mine%3A1", data, "application/x-tar"))

    assert reply.startswith(b"HTTP/1.1 200")
    assert reply.endswith(b'{"status":"success"}')
    assert server.olm.jobs.received == data
    assert server.olm.jobs.imports[0].name == "mine:1"


async def test_a_refused_body_is_answered() -> None:
    olm = FakeOlm()
    olm.jobs.script = [DiskFull("cannot import blob x: 2 GB are needed, 1 GB are free")]
    async with open_live_server(olm) as server:
        reply = await server.exchange(post("/api/import", b"data", "application/octet-stream"))

    assert reply.startswith(b"HTTP/1.1 507")
    assert b"2 GB are needed" in reply


async def test_a_proxied_client_names_no_path() -> None:
    async with open_live_server() as server:
        reply = await server.exchange(
            post("/api/import", b'{"path":"/x"}', "application/json", "X-Forwarded-For: 10.0.0.1")
        )

    assert reply.startswith(b"HTTP/1.1 403")
    assert server.olm.jobs.imports == []
