"""`/api/store/check` over HTTP: lines, the list without a stream, errors in their place."""

from __future__ import annotations

from kit.fake_olm import FakeOlm
from kit.memory_http import MemoryClient
from olm.actors.jobs_client import CheckRequest, Finding, Progress
from olm.errors import StoreError

FOUND = Finding("damaged", "sha256:ab", "is cut", ("m:latest",), 7, is_repaired=True)
OBJECT = {
    "kind": "damaged",
    "what": "sha256:ab",
    "detail": "is cut",
    "models": ["m:latest"],
    "size": 7,
    "repaired": True,
}


async def test_progress_and_findings_are_lines(client: MemoryClient, olm: FakeOlm) -> None:
    olm.jobs.found = [Progress("verifying 2 blobs", "", 9, 4), FOUND, Progress("success")]

    reply = await client.post("/api/store/check", {"repair": True, "quick": None})

    assert reply.lines == [
        {"status": "verifying 2 blobs", "total": 9, "completed": 4},
        {"status": "found damaged sha256:ab", "finding": OBJECT},
        {"status": "success"},
    ]
    assert olm.jobs.checks == [CheckRequest(repair=True)]


async def test_without_a_stream_findings_are_a_list(client: MemoryClient, olm: FakeOlm) -> None:
    olm.jobs.found = [Progress("reading manifests"), FOUND, Progress("success")]

    reply = await client.post("/api/store/check", {"stream": False, "quick": True})

    assert reply.json == {"status": "success", "findings": [OBJECT]}
    assert olm.jobs.checks == [CheckRequest(quick=True)]


async def test_errors_are_an_answer_first_and_a_line_later(
    client: MemoryClient, olm: FakeOlm
) -> None:
    olm.jobs.found = [StoreError("the disk is gone")]
    first = await client.post("/api/store/check", {})
    olm.jobs.found = [FOUND, StoreError("the disk is gone")]
    later = await client.post("/api/store/check", {})

    assert (first.status, first.error) == (500, "the disk is gone")
    assert later.status == 200
    assert later.lines[-1] == {"error": "the disk is gone"}
