"""Scheduler, runners and client together, over fake workers and in virtual time."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kit.models_bench import Bench, open_bench
from olm.actors.client import ChatRequest, EmbedRequest, GenerateRequest
from olm.chat.types import ChatMessage, Done, Piece, TurnEvent
from olm.errors import Busy, LoadFailed, ModelNotFound, OlmError, RunnerCrashed, ShuttingDown


def ask(model: str = "a", **fields: object) -> ChatRequest:
    messages = (ChatMessage(role="user", content="hello"),)
    return ChatRequest(model=model, messages=messages, **fields)  # type: ignore[arg-type]  # by name


async def answer(bench: Bench, request: ChatRequest) -> list[TurnEvent]:
    async with bench.models.chat(request) as turn:
        return [event async for event in turn]


async def test_a_chat_loads_the_model_and_streams(autojump_clock: MockClock) -> None:
    async with open_bench(load_s=2.0) as bench:
        async with bench.models.chat(ask()) as turn:
            events = [event async for event in turn]

        assert turn.load_ns == pytest.approx(2e9)
        assert "".join(e.content for e in events if isinstance(e, Piece)) == "w0 w1 w2 w3 w4 "
        assert isinstance(events[-1], Done)
        [row] = await bench.models.ps()
        assert (row.name, row.n_ctx) == ("a", 4096)
        assert row.expires_s == pytest.approx(300)


async def test_waiting_requests_share_one_load_and_the_slots(autojump_clock: MockClock) -> None:
    ends: list[float] = []
    async with open_bench(n_parallel=2, load_s=1.0, step_s=1.0) as bench:

        async def one() -> None:
            await answer(bench, ask())
            ends.append(trio.current_time())

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(one)

        assert bench.fake.n_loads == 1
        assert [end - start for end in ends] == pytest.approx([6.0, 6.0, 11.0, 11.0])


async def test_a_second_turn_does_not_load_again(autojump_clock: MockClock) -> None:
    async with open_bench() as bench:
        await answer(bench, ask())
        async with bench.models.chat(ask()) as turn:
            pass

        assert bench.fake.n_loads == 1
        assert turn.load_ns == 0


async def test_leaving_a_turn_frees_its_slot_at_once(autojump_clock: MockClock) -> None:
    async with open_bench(n_parallel=1, step_s=1000.0) as bench:
        async with bench.models.chat(ask()):
            await wait_all_tasks_blocked()
            assert bench.fake.n_running == 1
        async with bench.models.chat(ask()) as turn:
            await wait_all_tasks_blocked()
            assert bench.fake.n_running == 1

        assert turn.load_ns == 0


async def test_leaving_while_loading_cancels_the_load(autojump_clock: MockClock) -> None:
    async with open_bench(load_s=100.0) as bench:
        with trio.move_on_after(5):
            await answer(bench, ask())
        await wait_all_tasks_blocked()

        assert bench.fake.n_live == 0
        assert bench.worker_names() == []
        bench.fake.load_s = 1.0
        assert await answer(bench, ask())


async def test_a_failed_load_is_everybodys_answer(autojump_clock: MockClock) -> None:
    errors: list[OlmError] = []
    async with open_bench(load_error="unknown model architecture: 'x'") as bench:

        async def one() -> None:
            with pytest.raises(LoadFailed) as caught:
                await answer(bench, ask())
            errors.append(caught.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            nursery.start_soon(one)
        bench.fake.load_error = ""

        assert [str(error) for error in errors] == ["unknown model architecture: 'x'"] * 2
        assert errors[0] is not errors[1]
        assert await answer(bench, ask())


async def test_a_load_without_progress_is_given_up(autojump_clock: MockClock) -> None:
    async with open_bench(load_s=100.0, load_stops_at=0.5, load_timeout_s=30.0) as bench:
        start = trio.current_time()
        with pytest.raises(LoadFailed, match=r"progress 0\.50"):
            await answer(bench, ask())

        assert trio.current_time() - start == pytest.approx(80.0)
        await wait_all_tasks_blocked()
        assert bench.fake.n_live == 0


@pytest.mark.parametrize(
    ("keep_alive_s", "idle_s", "stays"),
    [(None, 299, True), (None, 301, False), (0.0, 0.01, False), (math.inf, 1e6, True)],
)
async def test_keep_alive_counts_from_the_last_turn(
    autojump_clock: MockClock, keep_alive_s: float | None, idle_s: float, *, stays: bool
) -> None:
    async with open_bench() as bench:
        await answer(bench, ask(keep_alive_s=keep_alive_s))

        await trio.sleep(idle_s)

        assert bool(await bench.models.ps()) is stays
        assert bench.fake.n_live == int(stays)


async def test_loading_without_a_prompt_and_unloading(autojump_clock: MockClock) -> None:
    async with open_bench(load_s=3.0) as bench:
        load_ns = await bench.models.load("a", options={}, keep_alive_s=math.inf)
        assert load_ns == pytest.approx(3e9)
        assert bench.fake.n_live == 1

        await bench.models.unload("a")
        await wait_all_tasks_blocked()

        assert bench.fake.n_live == 0
        await bench.models.unload("b")


async def test_the_least_recently_used_model_makes_room(autojump_clock: MockClock) -> None:
    async with open_bench(max_loaded=2) as bench:
        for name in "abac":
            await answer(bench, ask(name))

        assert {row.name for row in await bench.models.ps()} == {"a", "c"}
        assert bench.fake.n_live == 2


async def test_a_full_queue_says_so_and_forgets_who_left(autojump_clock: MockClock) -> None:
    async with (
        open_bench(n_parallel=1, max_queue=1, step_s=100.0) as bench,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(answer, bench, ask())
        await trio.sleep(5)
        nursery.start_soon(_impatient, 10.0, bench)
        await wait_all_tasks_blocked()
        with pytest.raises(Busy, match=r"server busy, please try again\.  maximum pending") as busy:
            await answer(bench, ask())
        assert busy.value.details["retry_after_s"] == pytest.approx(5, abs=5)

        await trio.sleep(10)
        # The impatient one left, so there is a place to wait in.
        with trio.move_on_after(5) as patience:
            await answer(bench, ask())
        nursery.cancel_scope.cancel()

        assert patience.cancelled_caught


async def _impatient(seconds: float, bench: Bench) -> None:
    with trio.move_on_after(seconds):
        await answer(bench, ask())


async def test_a_crash_ends_the_turn_in_ollamas_words_and_the_next_gets_a_new_worker(
    autojump_clock: MockClock,
) -> None:
    async with open_bench(step_s=1.0) as bench:
        async with bench.models.chat(ask()) as turn, bench.models.chat(ask("b")) as other:
            await turn.__anext__()
            bench.crash("a")
            with pytest.raises(RunnerCrashed, match="model runner has unexpectedly stopped"):
                [_ async for _ in turn]
            events = [event async for event in other]

        assert isinstance(events[-1], Done)
        assert await answer(bench, ask())
        assert bench.fake.n_loads == 3


async def test_draining_lets_running_turns_end(autojump_clock: MockClock) -> None:
    async with open_bench(n_parallel=1, step_s=1.0) as bench:
        done: list[str] = []

        async def run() -> None:
            events = await answer(bench, ask())
            assert isinstance(events[-1], Done)
            done.append("turn")

        async def drain() -> None:
            await bench.models.drain()
            done.append("drained")

        async def wait() -> None:
            with pytest.raises(ShuttingDown):
                await answer(bench, ask())
            done.append("refused")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.sleep(2)
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            nursery.start_soon(drain)

        assert done[0] == "refused"
        assert sorted(done[1:]) == ["drained", "turn"]
        with pytest.raises(ShuttingDown):
            await answer(bench, ask())


async def test_options_that_differ_reload_and_others_do_not(autojump_clock: MockClock) -> None:
    async with open_bench() as bench:
        await answer(bench, ask(options={"num_ctx": 64, "temperature": 0.5}))
        await answer(bench, ask(options={"temperature": 0.9}))
        assert bench.fake.n_loads == 1

        await answer(bench, ask(options={"num_ctx": 128}))

        assert bench.fake.n_loads == 2
        assert [row.n_ctx for row in await bench.models.ps()] == [128]


async def test_an_unknown_model_costs_nothing(autojump_clock: MockClock) -> None:
    async with open_bench() as bench:
        with pytest.raises(ModelNotFound, match="model 'zzz' not found"):
            await answer(bench, ask("zzz"))

        assert bench.fake.n_loads == 0


async def test_context_tokens_stand_before_the_rendered_prompt(autojump_clock: MockClock) -> None:
    async with open_bench() as bench:
        request = GenerateRequest(model="a", prompt="x", context=[1, 2, 3])
        async with bench.models.generate(request) as turn:
            events = [event async for event in turn]

        assert isinstance(events[-1], Done)
        assert events[-1].context == (1, 2, 3, *b"user: x\n")


async def test_embeddings_come_back_as_rows(autojump_clock: MockClock) -> None:
    async with open_bench() as bench:
        result = await bench.models.embed(EmbedRequest(model="a", inputs=["ab", "c"]))

        assert result.vectors == [[1.0], [1.0]]
        assert result.n_tokens == 3
        assert (await bench.models.embed(EmbedRequest(model="a", inputs=[]))).vectors == ()
