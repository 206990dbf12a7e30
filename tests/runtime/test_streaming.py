"""Streams within one process: items, windows, ends, and who cancels whom."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from olm.actors.runtime import (
    Actor,
    ActorStopped,
    Stream,
    StreamClosed,
    StreamMessage,
    StreamSink,
    streams,
)
from olm.actors.runtime.testing import open_actor
from olm.errors import ModelNotFound
from runtime.runtime_actors import Bug, Count, Doze, Finish, Forever, Get, Log, Tally


async def _collect(items: Stream[int], into: list[int]) -> None:
    async for item in items:
        into.append(item)  # noqa: PERF401 # kept when the stream ends with an error


async def test_a_stream_gives_every_item_in_order_and_ends(autojump_clock: MockClock) -> None:
    async with open_actor(Tally) as tally, tally.stream(Count(200)) as items:
        assert [item async for item in items] == list(range(200))


async def test_an_expected_error_comes_after_the_items_before_it(autojump_clock: MockClock) -> None:
    got: list[int] = []
    async with open_actor(Tally) as tally:
        async with tally.stream(Count(3, fail="refuse")) as items:
            with pytest.raises(ModelNotFound, match="no more"):
                await _collect(items, got)
        assert await tally.ask(Get("x")) == 0
    assert got == [0, 1, 2]


async def test_a_bug_in_a_stream_crashes_the_actor(autojump_clock: MockClock) -> None:
    async with open_actor(Tally) as tally:
        async with tally.stream(Count(3, fail="oops")) as items:
            with pytest.raises(ActorStopped, match="ValueError: oops"):
                await _collect(items, [])
        await tally.stopped()


async def test_the_window_bounds_the_producer(autojump_clock: MockClock) -> None:
    class Narrow(Count, frozen=True):
        window = 3

    sent = []

    class Producer(Actor):
        @streams(Narrow)
        async def on_narrow(self, msg: Narrow, out: StreamSink[int]) -> None:
            for number in range(msg.until):
                await out.send(number)
                sent.append(number)

    async with open_actor(Producer) as producer, producer.stream(Narrow(10)) as items:
        await wait_all_tasks_blocked()
        assert sent == [0, 1, 2]
        assert await anext(items) == 0
        await wait_all_tasks_blocked()
        assert sent == [0, 1, 2, 3]
        assert items.drain() == [1, 2, 3]
        await wait_all_tasks_blocked()
        assert sent == [0, 1, 2, 3, 4, 5, 6]
        assert items.drain() == [4, 5, 6]
        assert [item async for item in items] == [7, 8, 9]
        assert items.drain() == []


async def test_leaving_the_block_cancels_the_producer(autojump_clock: MockClock) -> None:
    async with open_actor(Tally) as tally:
        async with tally.stream(Forever()) as items:
            assert await anext(items) == 0
        await wait_all_tasks_blocked()
        assert await tally.ask(Log()) == ["begun", "ended"]
        with pytest.raises(trio.ClosedResourceError):
            await anext(items)


async def test_leaving_before_the_actor_got_to_it_means_it_never_runs(
    autojump_clock: MockClock,
) -> None:
    async with open_actor(Tally) as tally, trio.open_nursery() as nursery:
        nursery.start_soon(tally.ask, Doze(0.01))
        await wait_all_tasks_blocked()
        async with tally.stream(Forever()):
            assert tally.n_waiting == 1
        assert tally.n_waiting == 0
        assert await tally.ask(Log()) == []


async def test_leaving_before_the_producer_task_ran_means_it_never_runs(
    autojump_clock: MockClock,
) -> None:
    async with open_actor(Tally) as tally:
        stream = tally.stream(Forever())
        async with stream:
            while tally.n_waiting:
                await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        assert await tally.ask(Log()) in ([], ["begun", "ended"])


async def test_a_crash_ends_every_open_stream_after_its_items(autojump_clock: MockClock) -> None:
    async with open_actor(Tally) as tally, tally.stream(Forever()) as items:
        await wait_all_tasks_blocked()
        with pytest.raises(ActorStopped):
            await tally.ask(Bug())
        got: list[int] = []
        with pytest.raises(ActorStopped, match="ValueError: bug"):
            await _collect(items, got)
        assert got == list(range(64))


async def test_an_actor_that_stops_ends_its_streams(autojump_clock: MockClock) -> None:
    async with open_actor(Tally) as tally, tally.stream(Forever()) as items:
        await wait_all_tasks_blocked()
        await tally.ask(Finish())
        items.drain()
        with pytest.raises(ActorStopped, match="finished"):
            await _collect(items, [])


async def test_queued_streams_fail_when_the_actor_goes_down(autojump_clock: MockClock) -> None:
    async with open_actor(Tally) as tally, trio.open_nursery() as nursery:
        nursery.start_soon(tally.ask, Doze(0.01))
        await wait_all_tasks_blocked()
        tally.tell(Finish())
        async with tally.stream(Count(1)) as items:
            with pytest.raises(ActorStopped):
                await anext(items)


async def test_a_stream_to_a_full_mailbox_waits_its_turn(autojump_clock: MockClock) -> None:
    async with open_actor(Tally) as tally, trio.open_nursery() as nursery:
        nursery.start_soon(tally.ask, Doze(0.01))
        await wait_all_tasks_blocked()
        for _ in range(4):
            nursery.start_soon(tally.ask, Get("x"))
        await wait_all_tasks_blocked()
        async with tally.stream(Count(2)) as items:
            assert tally.n_waiting == 5
            assert [item async for item in items] == [0, 1]


async def test_a_stream_is_opened_once(autojump_clock: MockClock) -> None:
    async with open_actor(Tally) as tally:
        stream = tally.stream(Count(1))
        async with stream:
            pass
        stream.close()
        with pytest.raises(RuntimeError, match="opened once"):
            await stream.__aenter__()


class Feed(StreamMessage[str], frozen=True):
    window = 2


class Feeder(Actor):
    """Hands its sink to others."""

    def __init__(self) -> None:
        self.sinks: list[StreamSink[str]] = []

    @streams(Feed)
    async def on_feed(self, msg: Feed, out: StreamSink[str]) -> None:
        self.sinks.append(out)
        await trio.sleep_forever()


async def test_send_nowait_refuses_a_full_window_and_a_closed_stream(
    autojump_clock: MockClock,
) -> None:
    feeder = Feeder()
    async with open_actor(lambda: feeder) as address:
        async with address.stream(Feed()) as items:
            await wait_all_tasks_blocked()
            (sink,) = feeder.sinks
            sink.send_nowait("a")
            sink.send_nowait("b")
            with pytest.raises(trio.WouldBlock):
                sink.send_nowait("c")
            assert not sink.closed
            assert items.drain() == ["a", "b"]
        assert sink.closed
        with pytest.raises(StreamClosed):
            sink.send_nowait("d")
        with pytest.raises(StreamClosed):
            await sink.send("d")


async def test_a_sender_outside_the_handler_that_waits_for_room_learns_of_the_end(
    autojump_clock: MockClock,
) -> None:
    feeder = Feeder()
    errors: list[Exception] = []

    async def send_three() -> None:
        try:
            for text in "abc":
                await feeder.sinks[0].send(text)
        except StreamClosed as exc:
            errors.append(exc)

    async with open_actor(lambda: feeder) as address, trio.open_nursery() as nursery:
        async with address.stream(Feed()):
            await wait_all_tasks_blocked()
            nursery.start_soon(send_three)
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
    assert len(errors) == 1


async def test_a_consumer_waiting_when_another_task_closes_is_told(
    autojump_clock: MockClock,
) -> None:
    async with open_actor(Feeder) as address, address.stream(Feed()) as items:

        async def wait_for_item() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await anext(items)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_item)
            await wait_all_tasks_blocked()
            items.close()
