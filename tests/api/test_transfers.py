"""`/api/pull` and `/api/push`: what the jobs are asked for, and how they are told."""

from __future__ import annotations

import json

import pytest

from kit.fake_olm import FakeOlm
from kit.memory_http import MemoryClient
from olm.actors.jobs_client import Progress, PullRequest, PushRequest
from olm.errors import ModelNotFound


@pytest.mark.parametrize(
    ("body", "model", "insecure", "limit_rate"),
    [
        ({"model": "a/b"}, "a/b", False, 0),
        ({"name": "a/b", "insecure": True}, "a/b", True, 0),
        ({"model": "a/b", "name": "c", "insecure": None}, "a/b", False, 0),
        (
            {"model": "a/b", "limit_rate": 5000, "username": "x", "password": "y"},
            "a/b",
            False,
            5000,
        ),
    ],
)
async def test_requests_become_jobs(
    client: MemoryClient,
    olm: FakeOlm,
    body: dict[str, object],
    model: str,
    insecure: bool,
    limit_rate: int,
) -> None:
    await client.post("/api/pull", body)
    await client.post("/api/push", body)

    assert olm.jobs.pulled == [PullRequest(model, insecure, limit_rate)]
    assert olm.jobs.pushed == [PushRequest(model, insecure, limit_rate)]


async def test_a_push_is_told_line_by_line_or_at_its_end(
    client: MemoryClient, olm: FakeOlm
) -> None:
    olm.jobs.script = [
        Progress("retrieving manifest"),
        Progress("pushing 0123456789ab", "sha256:0123456789ab", 10, 4),
        Progress("success"),
    ]

    streamed = await client.post("/api/push", {"model": "tiny"})
    whole = await client.post("/api/push", {"model": "tiny", "stream": False})

    assert [json.loads(line) for line in streamed.body.splitlines()] == [
        {"status": "retrieving manifest"},
        {
            "status": "pushing 0123456789ab",
            "digest": "sha256:0123456789ab",
            "total": 10,
            "completed": 4,
        },
        {"status": "success"},
    ]
    assert json.loads(whole.body) == {"status": "success"}


async def test_an_error_behind_the_first_line_comes_in_band(
    client: MemoryClient, olm: FakeOlm
) -> None:
    olm.jobs.script = [Progress("retrieving manifest"), ModelNotFound("model 'x' not found")]

    streamed = await client.post("/api/push", {"model": "x"})
    whole = await client.post("/api/push", {"model": "x", "stream": False})

    assert streamed.status == 200
    assert json.loads(streamed.body.splitlines()[-1])["error"] == "model 'x' not found"
    assert json.loads(whole.body) == {"error": "model 'x' not found"}


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("/api/push", {}, "model is required"),
        ("/api/pull", {}, "invalid model name"),
        ("/api/push", {"model": "tiny", "limit_rate": -1}, "limit_rate is a number of bytes a sec"),
        ("/api/pull", {"model": "tiny", "limit_rate": -1}, "limit_rate is a number of bytes a sec"),
    ],
)
async def test_bad_requests_start_no_job(
    client: MemoryClient, olm: FakeOlm, path: str, body: dict[str, object], error: str
) -> None:
    answer = await client.post(path, body)

    assert answer.status == 400
    assert json.loads(answer.body)["error"].startswith(error)
    assert olm.jobs.pushed == olm.jobs.pulled == []
