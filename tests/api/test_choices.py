"""Several turns behind one answer: bounded, ended together, and never cut off in the middle of a write."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
import trio
import trio.testing

from kit.fake_olm import FakeOlm, Step, Until
from olm.actors.client import ChatRequest, GenerateRequest, Turn
from olm.api.choices import MAX_AT_ONCE, choice_lines, collect
from olm.api.gate import Buffer, Call, Gate
from olm.chat.types import ChatMessage, Done, Piece, TurnEvent
from olm.errors import RunnerCrashed


class Plain:
    """A form that writes contents as they are."""

    def line(self, event: TurnEvent, *, load_ns: int, total_ns: Callable[[], int]) -> bytes:
        return event.content.encode() if isinstance(event, Piece) else b""


def new_call() -> Call:
    return Call(
        id="r",
        method="POST",
        path="/v1/chat/completions",
        client="local",
        started_s=trio.current_time(),
        buffer=Buffer(Gate()),
        chunk_writer=lambda: None,
    )


def asked(n: int) -> list[ChatRequest]:
    """Requests that differ in their seeds, which count from 0."""
    messages = [ChatMessage("user", "Hi")]
    return [ChatRequest(model="tiny", messages=messages, options={"seed": i}) for i in range(n)]


def by_seed(*scripts: list[Step]) -> Callable[[ChatRequest | GenerateRequest], list[Step]]:
    def respond(request: ChatRequest | GenerateRequest) -> list[Step]:
        seed = request.options["seed"]
        assert isinstance(seed, int)
        return scripts[seed]

    return respond


def one_fails(olm: FakeOlm, failing: trio.Event) -> list[AbstractAsyncContextManager[Turn]]:
    """Two turns: one says `a` and then nothing, the other fails on the event."""
    olm.models.respond = by_seed(
        [Piece("a"), Until(trio.Event())], [Until(failing), RunnerCrashed("the worker died")]
    )
    return [olm.models.chat(request) for request in asked(2)]


async def test_no_more_than_so_many_run_at_once(olm: FakeOlm) -> None:
    go_on = trio.Event()
    olm.models.script = [Until(go_on), Piece("a"), Done("stop")]
    turns = [olm.models.chat(request) for request in asked(MAX_AT_ONCE + 4)]
    lines = choice_lines(turns, [Plain()] * len(turns), new_call())

    async def release() -> None:
        await trio.testing.wait_all_tasks_blocked()
        running.append(olm.models.n_running)
        go_on.set()

    running: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(release)
        async with lines as batches:
            said = b"".join([batch async for batch in batches])

    assert running == [MAX_AT_ONCE]
    assert said == b"a" * (MAX_AT_ONCE + 4)


async def test_collecting_is_bounded_too_and_keeps_the_order(olm: FakeOlm) -> None:
    go_on = trio.Event()
    n = MAX_AT_ONCE + 4
    olm.models.respond = by_seed(*([Until(go_on), Piece(str(i)), Done("stop")] for i in range(n)))
    found: list[list[TurnEvent]] = []

    async def run() -> None:
        found.extend(await collect([olm.models.chat(request) for request in asked(n)]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        n_running = olm.models.n_running
        go_on.set()

    assert n_running == MAX_AT_ONCE
    assert found == [[Piece(str(i)), Done("stop")] for i in range(n)]


async def test_an_error_waits_for_the_write_that_is_going_on(olm: FakeOlm) -> None:
    """A chunk that was cut off would spoil the error's frame after it."""
    failing = trio.Event()
    turns = one_fails(olm, failing)
    written: list[bytes] = []

    async def read() -> None:
        async with choice_lines(turns, [Plain()] * 2, new_call()) as batches:
            async for batch in batches:
                failing.set()
                await trio.testing.wait_all_tasks_blocked()
                written.append(batch)

    with pytest.RaisesGroup(RunnerCrashed, flatten_subgroups=True):
        await read()

    assert written == [b"a"]
    assert olm.models.n_running == 0


async def test_what_came_before_an_error_is_written_first(olm: FakeOlm) -> None:
    failing = trio.Event()
    turns = one_fails(olm, failing)
    written: list[bytes] = []

    async def read() -> None:
        async with choice_lines(turns, [Plain()] * 2, new_call()) as batches:
            await trio.testing.wait_all_tasks_blocked()
            failing.set()
            await trio.testing.wait_all_tasks_blocked()
            written.extend([await anext(batches)])
            await anext(batches)

    with pytest.RaisesGroup(RunnerCrashed, flatten_subgroups=True):
        await read()

    assert written == [b"a"]


async def test_leaving_early_ends_all_turns(olm: FakeOlm) -> None:
    olm.models.script = [Piece("a"), Until(trio.Event())]
    turns = [olm.models.chat(request) for request in asked(3)]

    with trio.fail_after(5):
        async with choice_lines(turns, [Plain()] * 3, new_call()) as batches:
            async for _ in batches:
                break

    assert olm.models.n_running == 0
