"""`/health`, `/ready` and `/api/props`; request ids on whatever is answered."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from kit.fake_olm import DETAILS, FakeOlm, Until, answer
from kit.memory_http import MemoryClient, MemoryServer
from olm.actors.client import LoadedModel
from olm.actors.stats import RunnerStats, SchedulerStats
from olm.errors import ActorStopped, RunnerCrashed
from olm.native.wire import Loaded

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("path", ["/health", "/v1/health"])
async def test_health_is_llama_servers(client: MemoryClient, path: str) -> None:
    good = await client.get(path)
    head = await client.request("HEAD", path)
    other = await client.post(path, {})

    assert (good.status, good.body) == (200, b'{"status":"ok"}')
    assert good.headers["content-type"] == "application/json; charset=utf-8"
    assert (head.status, head.body) == (200, b"")
    assert other.status == 405


async def test_a_draining_daemon_is_neither_healthy_nor_ready(
    server: MemoryServer, olm: FakeOlm
) -> None:
    gate = trio.Event()
    olm.models.script = [*answer("a")[:1], Until(gate), *answer("b")]
    running = server.connect()
    await running.send("POST", "/api/chat", CHAT)
    await running.next_event()

    server.api.gate.drain()
    replies = [await server.connect().get(path) for path in ("/health", "/ready")]
    gate.set()

    assert [reply.status for reply in replies] == [503, 503]
    assert all(reply.headers["retry-after"] for reply in replies)


async def test_ready_asks_store_and_scheduler(
    server: MemoryServer, olm: FakeOlm, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    client = server.connect()

    async def stopped() -> None:
        raise ActorStopped("it crashed")

    async def hangs(_digest: str) -> bool:
        await trio.sleep_forever()

    ready = await client.get("/ready")
    monkeypatch.setattr(olm.models, "ps", stopped)
    one = await client.get("/ready")
    monkeypatch.setattr(olm.store, "has_blob", hangs)
    began = trio.current_time()
    none = await client.get("/ready")

    assert (ready.status, ready.json) == (200, {"status": "ok", "silent": []})
    assert (one.status, one.json) == (503, {"status": "unavailable", "silent": ["scheduler"]})
    assert (none.status, none.json["silent"]) == (503, ["store", "scheduler"])
    assert trio.current_time() - began == pytest.approx(2.0)


async def test_props_tell_defaults_and_loaded_models(client: MemoryClient, olm: FakeOlm) -> None:
    row = LoadedModel("tiny:latest", "d" * 64, DETAILS, 5_000, 2_000, 2048, 300.0)
    info = Loaded(2048, 4096, 3, template_caps=("tools",), cpu_variant="haswell")
    worker: object = None
    olm.stats = SchedulerStats({}, [RunnerStats(row, info, 2, worker)], {})  # type: ignore[arg-type]  # not asked here

    props = (await client.get("/api/props")).json

    assert props["total_slots"] == 3
    assert props["models"] == [
        {
            "name": "tiny:latest",
            "digest": "d" * 64,
            "n_ctx": 2048,
            "n_ctx_train": 4096,
            "total_slots": 3,
            "slots_busy": 2,
            "size": 5000,
            "size_vram": 2000,
            "embedding": False,
            "chat_template_caps": {"tools": True, "thinking": False},
            "cpu_variant": "haswell",
        }
    ]
    defaults, generation = props["defaults"], props["default_generation_settings"]
    assert isinstance(defaults, dict)
    assert isinstance(generation, dict)
    assert (defaults["num_ctx"], defaults["keep_alive_s"]) == (4096, 300.0)
    assert (generation["temperature"], generation["top_k"]) == (0.8, 40)


async def test_props_without_a_scheduler_are_an_error(client: MemoryClient, olm: FakeOlm) -> None:
    olm.stats = ActorStopped("it crashed")

    reply = await client.get("/api/props")

    assert reply.status >= 500
    assert reply.error


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/chat", CHAT),
        ("POST", "/api/chat", {**CHAT, "model": "nobody"}),
        ("POST", "/v1/chat/completions", {**CHAT, "stream": True}),
        ("POST", "/v1/messages", {**CHAT, "max_tokens": 5, "stream": True}),
        ("POST", "/v1/messages", b"{"),
        ("POST", "/api/blobs/nothing", b"x"),
        ("GET", "/metrics", None),
        ("GET", "/health", None),
        ("GET", "/nope", None),
        ("PUT", "/api/chat", None),
    ],
)
async def test_every_answer_has_the_id_it_was_given(
    client: MemoryClient, method: str, path: str, body: object
) -> None:
    reply = await client.request(method, path, body, {"X-Request-Id": "r-7"})

    assert reply.headers["x-request-id"] == "r-7"


async def test_a_stream_that_breaks_has_its_id_too(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.script = [*answer("a")[:1], RunnerCrashed("gone")]

    reply = await client.request("POST", "/api/chat", CHAT, {"X-Request-Id": "r-8"})

    assert (reply.status, reply.headers["x-request-id"]) == (200, "r-8")
    assert reply.lines[-1] == {"error": "gone"}
