"""Readers that stop: they hold back only themselves, lend their slot out, and lose their turn in the end. Virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kit.models_bench import Bench, open_bench
from olm.actors.client import ChatRequest
from olm.actors.models import RunningTurn
from olm.actors.pace import SlowReader
from olm.actors.queue import QueueRow
from olm.chat.types import ChatMessage, Done, TurnEvent

N_TOKENS = 200
"""More than the buffers between a worker and a reader take."""


def ask(model: str = "a", client: str = "") -> ChatRequest:
    messages = (ChatMessage(role="user", content="hello"),)
    return ChatRequest(model=model, messages=messages, client=client)


async def answer(bench: Bench, request: ChatRequest) -> list[TurnEvent]:
    async with bench.models.chat(request) as turn:
        return [event async for event in turn]


async def answered_at(bench: Bench, request: ChatRequest, times: list[float]) -> None:
    await answer(bench, request)
    times.append(trio.current_time())


async def row(bench: Bench) -> QueueRow:
    [found] = await bench.models.queue()
    return found


@asynccontextmanager
async def open_slow(bench: Bench) -> AsyncIterator[RunningTurn]:
    """A turn whose reader has read one event, and then nothing."""
    async with bench.models.chat(ask()) as turn:
        await turn.__anext__()
        yield turn


async def test_a_reader_that_stops_lends_its_slot_and_misses_nothing(
    autojump_clock: MockClock,
) -> None:
    times: list[float] = []
    async with (
        open_bench(n_parallel=1, n_turn_tokens=N_TOKENS, step_s=0.01) as bench,
        open_slow(bench) as turn,
        trio.open_nursery() as nursery,
    ):
        started_s = trio.current_time()
        nursery.start_soon(answered_at, bench, ask(), times)
        await trio.sleep(59)
        assert ((await row(bench)).n_waiting, (await row(bench)).n_paused) == (1, 0)
        await trio.sleep(2)
        assert ((await row(bench)).n_running, (await row(bench)).n_paused) == (2, 1)
        await trio.sleep(20)
        rest = [event async for event in turn]

        assert times == [pytest.approx(started_s + 60 + N_TOKENS * 0.01, abs=0.1)]
        assert len(rest) == N_TOKENS
        assert isinstance(rest[-1], Done)


async def test_a_reader_that_comes_back_counts_again(autojump_clock: MockClock) -> None:
    async with (
        open_bench(n_parallel=1, n_turn_tokens=10 * N_TOKENS, step_s=0.01) as bench,
        open_slow(bench) as turn,
    ):
        await trio.sleep(65)
        assert (await row(bench)).n_paused == 1

        for _ in range(N_TOKENS):
            await turn.__anext__()

        assert ((await row(bench)).n_running, (await row(bench)).n_paused) == (1, 0)
        await trio.sleep(70)
        assert (await row(bench)).n_paused == 1


async def test_a_reader_that_stays_away_loses_its_turn_and_is_told(
    autojump_clock: MockClock,
) -> None:
    async with (
        open_bench(n_parallel=1, n_turn_tokens=N_TOKENS, reader_timeout_s=100.0) as bench,
        open_slow(bench) as turn,
    ):
        await trio.sleep(170)
        assert bench.fake.n_running == 0
        assert ((await row(bench)).n_running, (await row(bench)).n_paused) == (0, 0)

        with pytest.raises(SlowReader, match="the answer was given up because nobody read it"):
            async for _ in turn:
                pass


async def test_a_turn_that_is_over_gives_its_slot_back_for_good(autojump_clock: MockClock) -> None:
    async with (
        open_bench(n_parallel=1, n_turn_tokens=5, keep_alive_s=300.0) as bench,
        open_slow(bench) as turn,
    ):
        await trio.sleep(62)
        assert (await row(bench)).n_running == 0
        await trio.sleep(400)
        assert await bench.models.ps() == (), "the model need not stay for what has been said"

        assert len([event async for event in turn]) == 5


async def test_a_slow_model_is_no_slow_reader(autojump_clock: MockClock) -> None:
    async with open_bench(n_parallel=1, n_turn_tokens=5, step_s=1000.0) as bench:
        events = await answer(bench, ask())

    assert isinstance(events[-1], Done)


async def test_a_reader_that_keeps_reading_slowly_keeps_its_slot(autojump_clock: MockClock) -> None:
    async with (
        open_bench(n_parallel=1, n_turn_tokens=N_TOKENS, step_s=0.01) as bench,
        open_slow(bench) as turn,
    ):
        async for _ in turn:
            await trio.sleep(50)
            assert (await row(bench)).n_paused == 0


async def test_another_model_does_not_wait_for_a_reader_that_is_away(
    autojump_clock: MockClock,
) -> None:
    async with (
        open_bench(max_loaded=1, n_turn_tokens=N_TOKENS, step_s=0.01) as bench,
        open_slow(bench) as turn,
    ):
        started_s = trio.current_time()
        await answer(bench, ask("b"))
        assert trio.current_time() - started_s < 70

        with pytest.raises(SlowReader, match="another model needs the room"):
            await turn.__anext__()


async def test_a_thousand_waiting_that_vanish_leave_nothing(autojump_clock: MockClock) -> None:
    async with (
        open_bench(n_parallel=1, max_queue=1000, n_turn_tokens=3, step_s=100.0) as bench,
        open_slow(bench) as turn,
    ):
        async with trio.open_nursery() as nursery:
            for index in range(1000):
                nursery.start_soon(answer, bench, ask(client=f"c{index % 50}"))
            await wait_all_tasks_blocked()
            assert (await row(bench)).n_waiting == 1000
            nursery.cancel_scope.cancel("all clients leave at once")
        await wait_all_tasks_blocked()

        found = await row(bench)
        assert (found.n_waiting, found.n_running, bench.fake.n_running) == (0, 1, 1)
        assert len([event async for event in turn]) == 3


async def test_who_asks_in_turn_is_answered_in_turn(autojump_clock: MockClock) -> None:
    order: list[str] = []
    async with (
        open_bench(n_parallel=1, max_queue=20, step_s=1.0) as bench,
        trio.open_nursery() as nursery,
    ):

        async def one(client: str) -> None:
            async with bench.models.chat(ask(client=client)) as turn:
                order.append(f"{client}{turn.queue_position}")
                async for _ in turn:
                    pass

        nursery.start_soon(one, "x")
        await trio.sleep(2)
        for client in "aaaabbc":
            nursery.start_soon(one, client)
            await wait_all_tasks_blocked()

    assert order == ["x1", "a1", "b2", "c3", "a2", "b4", "a3", "a4"]
