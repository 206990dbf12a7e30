"""`/metrics`: what it says is what was done."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import trio
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock, wait_all_tasks_blocked

from kit.fake_olm import DETAILS, FakeOlm, Pause, answer, called
from kit.memory_http import MemoryClient, MemoryServer
from olm.actors.client import LoadedModel
from olm.actors.jobs_client import Progress
from olm.actors.stats import ModelCounts, RunnerStats, SchedulerStats
from olm.api.gate import Usage
from olm.api.metrics import MAX_MODELS, Histogram, Metrics, ModelMeter
from olm.api.metrics_models import MeteredTurn
from olm.chat.types import CallArguments, Done, Piece, TurnEvent
from olm.errors import ActorStopped, RunnerCrashed
from olm.native.wire import Loaded, WorkerStats

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


class Page:
    """A scrape, by name and labels."""

    def __init__(self, families: list[Metric]) -> None:
        self.families = {family.name: family for family in families}
        self.values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.values.get((name, frozenset(labels.items())))


async def scrape(client: MemoryClient) -> Page:
    reply = await client.get("/metrics")
    assert reply.status == 200, reply.text
    return Page(list(text_string_to_metric_families(reply.text)))


async def test_turns_are_counted_whatever_their_form(client: MemoryClient) -> None:
    await client.post("/api/chat", CHAT)
    await client.post("/api/chat", {**CHAT, "stream": False})
    await client.post("/api/generate", {"model": "TINY:latest", "prompt": "x"})

    page = await scrape(client)
    tiny = {"model": "tiny:latest"}
    assert page("olm_turns_total", **tiny, end="stop") == 3
    assert page("olm_prompt_tokens_total", **tiny) == 33
    assert page("olm_generation_tokens_total", **tiny) == 6
    assert page("olm_prompt_seconds_total", **tiny) == pytest.approx(0.06)
    assert page("olm_generation_seconds_total", **tiny) == pytest.approx(0.054)
    assert page("olm_time_to_first_token_seconds_count", **tiny) == 3
    assert page("olm_request_queue_time_seconds_count", **tiny) == 3
    assert page("olm_request_queue_time_seconds_sum", **tiny) == pytest.approx(3 * 0.041234567)


async def test_requests_are_counted_by_route_method_and_status(client: MemoryClient) -> None:
    await client.post("/api/chat", CHAT)
    await client.post("/api/chat", b"{")
    await client.get("/api/version")
    await client.get("/v1/models/some/name")
    await client.get("/nope/1")
    await client.get("/nope/2")
    await client.request("HEAD", "/api/blobs/sha256:" + "0" * 64)
    await client.post("/api/blobs/sha256:" + "0" * 64, b"x")

    page = await scrape(client)
    name = "olm_http_requests_total"
    assert page(name, route="/api/chat", method="POST", status="200") == 1
    assert page(name, route="/api/chat", method="POST", status="400") == 1
    assert page(name, route="/api/version", method="GET", status="200") == 1
    assert page(name, route="/v1/models/{model}", method="GET", status="404") == 1
    assert page(name, route="other", method="GET", status="404") == 2
    assert page(name, route="/api/blobs/{digest}", method="HEAD", status="404") == 1
    assert page(name, route="/api/blobs/{digest}", method="POST", status="400") == 1
    assert page("olm_http_request_seconds_count", route="/api/chat") == 2
    assert page("olm_http_requests_in_flight") == 1  # the scrape itself


async def test_jobs_are_counted_with_what_they_moved(client: MemoryClient, olm: FakeOlm) -> None:
    olm.jobs.script = [
        Progress("pulling manifest"),
        Progress("pulling a", "a", 10, 10),
        Progress("pulling b", "b", 20, 5),
        Progress("pulling b", "b", 20, 20),
        Progress("success"),
    ]
    await client.post("/api/pull", {"model": "x"})
    olm.jobs.script = [Progress("pulling a", "a", 10, 4), RunnerCrashed("broke off")]
    await client.post("/api/pull", {"model": "x"})

    page = await scrape(client)
    assert page("olm_jobs_total", kind="pull", end="success") == 1
    assert page("olm_jobs_total", kind="pull", end="error") == 1
    assert page("olm_transfer_bytes_total", kind="pull") == 34


async def test_a_client_that_leaves_before_its_answer_is_499(
    server: MemoryServer, olm: FakeOlm, autojump_clock: MockClock
) -> None:
    olm.models.script = [Pause(1000)]
    gone = server.connect()

    await gone.send("POST", "/api/chat", CHAT)
    await wait_all_tasks_blocked()
    await gone.aclose()
    await trio.sleep(1)

    page = await scrape(server.connect())
    assert page("olm_http_requests_total", route="/api/chat", method="POST", status="499") == 1


async def test_times_are_those_between_events(
    server: MemoryServer, olm: FakeOlm, autojump_clock: MockClock
) -> None:
    script = answer("a", "b", "c")
    olm.models.script = [Pause(2), script[0], Pause(0.03), script[1], Pause(0.03), *script[2:]]
    client = server.connect()

    await client.post("/api/chat", CHAT)

    page = await scrape(client)
    tiny = {"model": "tiny:latest"}
    first, between = "olm_time_to_first_token_seconds", "olm_inter_token_latency_seconds"
    assert page(f"{first}_sum", **tiny) == pytest.approx(2)
    assert page(f"{first}_bucket", **tiny, le="2.5") == 1
    assert page(f"{first}_bucket", **tiny, le="1.0") == 0
    assert page(f"{between}_count", **tiny) == 2
    assert page(f"{between}_sum", **tiny) == pytest.approx(0.06)
    assert page(f"{between}_bucket", **tiny, le="0.02") == 0
    assert page(f"{between}_bucket", **tiny, le="0.05") == 2
    assert page(f"{between}_bucket", **tiny, le="+Inf") == 2


class _Waiting:
    """A turn whose events come in batches: the first of a batch is waited for, the rest drained."""

    load_ns = 0
    queue_position = 0

    def __init__(self, *batches: list[TurnEvent]) -> None:
        self._batches = list(batches)
        self._rest: list[TurnEvent] = []

    def __aiter__(self) -> _Waiting:
        return self

    async def __anext__(self) -> TurnEvent:
        await trio.sleep(0.4)
        first, *self._rest = self._batches.pop(0)
        return first

    def drain(self) -> list[TurnEvent]:
        rest, self._rest = self._rest, []
        return rest


async def test_events_that_come_together_share_their_gap(autojump_clock: MockClock) -> None:
    meter, usage = ModelMeter("m"), Usage("m")
    batches: list[list[TurnEvent]] = [
        [Piece("a"), Piece("b")],
        [Piece("c"), CallArguments(0, "{}"), Piece("d"), Piece("e")],
        [Piece("f"), Done("stop", n_generated=7)],
    ]
    turn = MeteredTurn(_Waiting(*batches), meter, usage, trio.current_time())

    for _ in batches:
        await turn.__anext__()
        turn.drain()

    assert (meter.first.total, usage.first_s) == (pytest.approx(0.4), pytest.approx(0.4))
    assert meter.between.total == pytest.approx(0.8)
    assert sum(meter.between.counts) == 5  # four at 0.1 s, one at 0.4 s; b came with the first
    assert meter.between.counts[meter.between.bounds.index(0.1)] == 4
    assert meter.turns == {"stop": 1}


async def test_the_ends_of_turns_are_told_apart(
    server: MemoryServer, olm: FakeOlm, autojump_clock: MockClock
) -> None:
    client, gone = server.connect(), server.connect()

    olm.models.script = [Piece("a"), RunnerCrashed("gone")]
    await client.post("/api/chat", CHAT)
    olm.models.script = answer("a", reason="length")
    await client.post("/api/chat", CHAT)
    olm.models.script = [Piece("a"), Pause(1000), *answer("b")]
    await gone.send("POST", "/api/chat", CHAT)
    await gone.next_event()
    await gone.aclose()
    await wait_all_tasks_blocked()

    page = await scrape(client)
    ends = {end: page("olm_turns_total", model="tiny:latest", end=end) for end in ENDS}
    assert ends == {"stop": None, "length": 1, "error": 1, "cancelled": 1}


ENDS = ("stop", "length", "error", "cancelled")


async def test_calls_embeddings_and_cached_tokens(client: MemoryClient, olm: FakeOlm) -> None:
    done = Done("stop", n_prompt=10, n_cached=7, n_generated=3, malformed=True)
    olm.models.script = [*called("f"), *called("g", index=1), done]
    await client.post("/api/chat", CHAT)
    await client.post("/api/embed", {"model": "tiny", "input": ["a", "b", "c"]})

    page = await scrape(client)
    tiny = {"model": "tiny:latest"}
    assert page("olm_tool_calls_total", **tiny) == 2
    assert page("olm_malformed_tool_calls_total", **tiny) == 1
    assert page("olm_prompt_tokens_cached_total", **tiny) == 7
    assert page("olm_embeddings_total", **tiny) == 3
    assert page("olm_prompt_tokens_total", **tiny) == 10 + 24


async def test_names_that_are_not_stored_make_no_rows(client: MemoryClient) -> None:
    for name in ("other", "../x", "", "a" * 90):
        await client.post("/api/chat", {**CHAT, "model": name})

    page = await scrape(client)
    assert {dict(labels).get("model") for _, labels in page.values} == {None}


def test_rows_by_model_are_bounded() -> None:
    metrics = Metrics()

    for index in range(MAX_MODELS + 100):
        metrics.model(f"m{index}").n_prompt += 1

    assert len(metrics.models) == MAX_MODELS + 1
    assert metrics.models["other"].n_prompt == 100


def test_a_copy_does_not_change() -> None:
    metrics = Metrics()
    metrics.model("m").between.observe(0.5, 2)
    copied = metrics.copy()

    metrics.model("m").between.observe(0.5)
    metrics.model("m").turns["stop"] += 1

    assert copied.models["m:latest"].between == _observed(0.5, 2)
    assert copied.models["m:latest"].turns == {}


def _observed(value: float, n: int) -> Histogram:
    histogram = Histogram(ModelMeter("m").between.bounds)
    histogram.observe(value, n)
    return histogram


def _stats() -> SchedulerStats:
    row = LoadedModel("Tiny:latest", "d" * 64, DETAILS, 5_000, 2_000, 2048, 300.0)
    counts = ModelCounts(n_loads=3, load_s=1.5, n_failures=1, n_crashes=2)
    counts.n_stops.update(["its keep-alive is over", "another model needs the room", "a whim"])
    worker: object = None
    runner = RunnerStats(row, Loaded(2048, 2048, 4), 3, worker)  # type: ignore[arg-type]  # not asked here
    return SchedulerStats({"Tiny:latest": 5}, [runner], {"Tiny:latest": counts})


async def test_actors_and_engines_are_told(client: MemoryClient, olm: FakeOlm) -> None:
    olm.stats = _stats()
    olm.engines["Tiny:latest"] = WorkerStats(2, 1, 77, 1000, 200, 300)
    await client.post("/api/chat", CHAT)

    page = await scrape(client)
    tiny = {"model": "Tiny:latest"}
    expected = {
        "requests_running": 3,
        "requests_waiting": 5,
        "model_slots": 4,
        "model_loaded_bytes": 5000,
        "model_vram_bytes": 2000,
        "model_context_tokens": 2048,
        "model_load_seconds_count": 3,
        "model_load_seconds_sum": 1.5,
        "model_load_failures_total": 1,
        "worker_crashes_total": 2,
        "engine_sequences_running": 2,
        "engine_sequences_waiting": 1,
        "engine_kv_cells_used": 77,
        "engine_steps_total": 1000,
        "engine_prompt_tokens_total": 200,
        "engine_generated_tokens_total": 300,
        "prompt_tokens_total": 11,  # under the stored spelling, like the rest
    }
    assert {name: page(f"olm_{name}", **tiny) for name in expected} == expected
    evictions = {r: page("olm_model_evictions_total", **tiny, reason=r) for r in REASONS}
    assert evictions == {"idle": 1, "room": 1, "options": None, "other": 1}


REASONS = ("idle", "room", "options", "other")


async def test_a_scheduler_that_is_down_costs_only_its_own_numbers(
    client: MemoryClient, olm: FakeOlm
) -> None:
    olm.stats = ActorStopped("it crashed")
    await client.post("/api/chat", CHAT)

    page = await scrape(client)
    assert page("olm_prompt_tokens_total", model="tiny:latest") == 11
    assert "olm_requests_waiting" not in page.families


async def test_openmetrics_is_spoken_to_who_asks_for_it(client: MemoryClient, olm: FakeOlm) -> None:
    olm.stats = _stats()
    await client.post("/api/chat", CHAT)

    reply = await client.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")

    assert reply.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    page = Page(list(open_families(reply.text)))
    assert page("olm_turns_total", model="tiny:latest", end="stop") is None  # stored as Tiny
    assert page("olm_turns_total", model="Tiny:latest", end="stop") == 1


async def test_every_family_is_in_the_handbook_and_the_other_way_round(
    client: MemoryClient, olm: FakeOlm
) -> None:
    text = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    documented = {
        line.split("`")[1].partition("{")[0]
        for line in text.splitlines()
        if line.startswith("| `olm_")
    }

    page = await scrape(client)
    assert documented == {
        sample
        for name, family in page.families.items()
        if name.startswith("olm_")
        for sample in [name + {"counter": "_total"}.get(family.type, "")]
    }


async def test_the_access_log_tells_what_a_turn_took(
    server: MemoryServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "olm.access")
    client = server.connect()

    await client.request("POST", "/api/chat", CHAT, {"X-Request-Id": "r7"})
    await client.get("/health")
    await client.get("/metrics")
    await wait_all_tasks_blocked()

    [line] = [record.getMessage() for record in caplog.records if record.name == "olm.access"]
    assert " model=tiny:latest queue_ms=41.2 first_ms=" in line
    assert " prompt_tokens=11 cached_tokens=0 tokens=2 client=127.0.0.1 id=r7" in line


async def test_usage_adds_up_over_several_turns(autojump_clock: MockClock) -> None:
    """A request may ask for several answers at once; its log line tells them together."""
    usage, meter = Usage("m"), ModelMeter("m")
    for wait_s in (0.0, 0.2):
        turn = MeteredTurn(_Waiting([Piece("a"), Done("stop", 5, 3, 2)]), meter, usage, -wait_s)
        await turn.__anext__()
        turn.drain()

    assert attrs.evolve(usage, first_s=None) == Usage("m", 0.0, None, 10, 6, 4)
