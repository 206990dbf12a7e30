"""A turn's feed: events in order whatever the consumer's pace, and a slow consumer pauses its own sequence only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from olm.actors.runtime import (
    Actor,
    ChildSpec,
    Stream,
    StreamMessage,
    StreamSink,
    open_supervisor,
    streams,
)
from olm.chat.types import Done, Piece, TurnEvent
from olm.errors import OlmError
from olm.native.feeds import Feed


class Ask(StreamMessage[TurnEvent], frozen=True):
    """Open a feed."""


@attrs.define
class Engine:
    """Notes what it is told."""

    feed: Feed | None = None
    paused: list[bool] = attrs.field(factory=list)


class Producer(Actor):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @streams(Ask)
    async def ask(self, _: Ask, out: StreamSink[TurnEvent]) -> None:
        self._engine.feed = Feed(out, self._engine.paused.append)
        await self._engine.feed.run()


@asynccontextmanager
async def open_feed() -> AsyncIterator[tuple[Engine, Feed, Stream[TurnEvent]]]:
    engine = Engine()
    async with open_supervisor() as root:
        producer = await root.start_child(ChildSpec("producer", partial(Producer, engine)))
        async with producer.stream(Ask()) as events:
            await wait_all_tasks_blocked()
            assert engine.feed is not None
            yield engine, engine.feed, events


async def test_events_go_straight_through() -> None:
    async with open_feed() as (engine, feed, events):
        feed.push(Piece("a"))
        feed.push(Done("stop"))

        assert [event async for event in events] == [Piece("a"), Done("stop")]
        assert engine.paused == []


async def test_a_slow_consumer_pauses_and_resumes_its_sequence() -> None:
    async with open_feed() as (engine, feed, events):
        for index in range(Ask.window + 3):
            feed.push(Piece(str(index)))
        await wait_all_tasks_blocked()
        assert engine.paused == [True]

        seen = [await events.__anext__() for _ in range(Ask.window + 3)]
        await wait_all_tasks_blocked()
        assert engine.paused == [True, False]
        feed.push(Done("stop"))

        assert [event async for event in events] == [Done("stop")]
        assert seen == [Piece(str(index)) for index in range(Ask.window + 3)]


async def test_an_error_comes_after_what_waits() -> None:
    async with open_feed() as (_, feed, events):
        for _index in range(Ask.window + 1):
            feed.push(Piece("x"))
        feed.fail(OlmError("decode failed"))

        seen = [await events.__anext__() for _ in range(Ask.window + 1)]
        with pytest.raises(OlmError, match="decode failed"):
            await events.__anext__()
        assert seen == [Piece("x")] * (Ask.window + 1)


async def test_pushing_after_the_consumer_left_does_nothing() -> None:
    async with open_feed() as (engine, feed, events):
        events.close()
        feed.push(Piece("x"))
        await wait_all_tasks_blocked()

        assert engine.paused == []


@given(st.lists(st.integers(0, 100), max_size=12))
def test_order_holds_for_any_pace(bursts: list[int]) -> None:
    async def main() -> list[TurnEvent]:
        async with open_feed() as (_, feed, events):
            seen: list[TurnEvent] = []
            n_sent = 0
            for burst in bursts:
                for _ in range(burst):
                    feed.push(Piece(str(n_sent)))
                    n_sent += 1
                seen += events.drain()
                await trio.lowlevel.checkpoint()
            feed.push(Done("stop"))
            seen += [event async for event in events]
        return seen

    seen = trio.run(main, clock=MockClock(autojump_threshold=0))

    assert seen == [*(Piece(str(n)) for n in range(sum(bursts))), Done("stop")]
