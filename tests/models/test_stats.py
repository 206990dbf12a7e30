"""What the scheduler counts and tells, over fake workers and in virtual time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kit.models_bench import Bench, open_bench
from olm.actors.client import ChatRequest
from olm.actors.stats import Snapshot, read_snapshot
from olm.chat.types import ChatMessage
from olm.errors import LoadFailed, RunnerCrashed


def ask(model: str) -> ChatRequest:
    return ChatRequest(model=model, messages=(ChatMessage(role="user", content="hello"),))


async def answer(bench: Bench, model: str, *, crash: bool = False) -> None:
    async with bench.models.chat(ask(model)) as turn:
        if crash:
            bench.crash(model)
        async for _ in turn:
            pass


async def snapshot(bench: Bench) -> Snapshot:
    return await read_snapshot(bench.models.scheduler)


async def test_a_snapshot_knows_who_runs_who_waits_and_what_is_loaded(
    autojump_clock: MockClock,
) -> None:
    async with open_bench(n_parallel=1, load_s=2.0) as bench, trio.open_nursery() as nursery:
        async with bench.models.chat(ask("a")):
            nursery.start_soon(answer, bench, "a")
            await wait_all_tasks_blocked()
            found = await snapshot(bench)

        [runner] = found.scheduler.runners
        assert (runner.model.name, runner.n_active, runner.info.n_parallel) == ("a", 1, 1)
        assert found.scheduler.n_waiting == {"a": 1}
        assert found.engines["a"].n_running == 1
        assert found.scheduler.counts["a"].n_loads == 1
        assert found.scheduler.counts["a"].load_s == pytest.approx(2.0)


async def test_models_let_go_are_counted_by_reason(autojump_clock: MockClock) -> None:
    async with open_bench(max_loaded=1, keep_alive_s=60.0) as bench:
        await answer(bench, "a")
        await answer(bench, "b")
        await trio.sleep(100)

        counts = (await snapshot(bench)).scheduler.counts
        assert counts["a"].n_stops == {"another model needs the room": 1}
        assert counts["b"].n_stops == {"its keep-alive is over": 1}
        assert (counts["a"].n_crashes, counts["b"].n_crashes) == (0, 0)


async def test_crashes_and_failed_loads_are_counted(autojump_clock: MockClock) -> None:
    async with open_bench() as bench:
        with pytest.raises(RunnerCrashed):
            await answer(bench, "a", crash=True)
        bench.fake.load_error = "no room"
        with pytest.raises(LoadFailed):
            await answer(bench, "b")

        counts = (await snapshot(bench)).scheduler.counts
        assert (counts["a"].n_crashes, counts["a"].n_loads, counts["a"].n_stops) == (1, 1, {})
        assert (counts["b"].n_failures, counts["b"].n_loads) == (1, 0)


async def test_a_load_that_nobody_waits_for_any_more_is_no_eviction(
    autojump_clock: MockClock,
) -> None:
    async with open_bench(load_s=10.0) as bench:
        with trio.move_on_after(1):
            await answer(bench, "a")
        await trio.sleep(20)

        counts = (await snapshot(bench)).scheduler.counts["a"]
        assert (counts.n_loads, counts.n_failures, counts.n_stops) == (0, 0, {})
