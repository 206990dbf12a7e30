"""Every public async function is a checkpoint, on the paths that succeed at once too."""

from __future__ import annotations

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from olm.actors.runtime import Actor, ActorStopped, ChildSpec, StreamSink, open_supervisor, streams
from olm.actors.runtime.testing import open_actor
from olm.errors import ActorError
from runtime.runtime_actors import Count, Finish, Forever, Get, Tally


async def test_ask_and_stopped() -> None:
    async with open_actor(Tally) as tally:
        with assert_checkpoints():
            await tally.ask(Get("x"))
        await tally.ask(Finish())
        await wait_all_tasks_blocked()
        with assert_checkpoints():
            await tally.stopped()
        with assert_checkpoints(), pytest.raises(ActorStopped):
            await tally.ask(Get("x"))


async def test_the_consumer_of_a_stream() -> None:
    async with open_actor(Tally) as tally:
        stream = tally.stream(Count(2))
        with assert_checkpoints():
            await stream.__aenter__()
        await wait_all_tasks_blocked()
        for _ in range(2):
            with assert_checkpoints():
                await anext(stream)
        with assert_checkpoints(), pytest.raises(StopAsyncIteration):
            await anext(stream)
        stream.close()


async def test_the_producer_of_a_stream() -> None:
    class Producer(Actor):
        @streams(Forever)
        async def on_forever(self, msg: Forever, out: StreamSink[int]) -> None:
            with assert_checkpoints():
                await out.send(1)

    async with open_actor(Producer) as producer, producer.stream(Forever()) as items:
        assert [item async for item in items] == [1]


async def test_starting_and_stopping_children() -> None:
    async with open_supervisor() as root:
        with assert_checkpoints():
            await root.start_child(ChildSpec("a", Tally))
        with assert_checkpoints(), pytest.raises(ActorError):
            await root.start_child(ChildSpec("a", Tally))
        with assert_checkpoints():
            await root.stop_child("a")
        with assert_checkpoints():
            await root.stop_child("a")
    with assert_checkpoints(), pytest.raises(ActorStopped):
        await root.start_child(ChildSpec("a", Tally))


async def test_a_cancelled_ask_is_not_sent() -> None:
    async with open_actor(Tally) as tally:
        with trio.CancelScope() as scope:
            scope.cancel()
            await tally.ask(Get("x"))
        assert scope.cancelled_caught
        assert tally.n_waiting == 0
