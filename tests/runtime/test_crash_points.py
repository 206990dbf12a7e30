"""A crash at each point of a life, under each strategy: everybody is answered, the actor is back."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from olm.actors.runtime import (
    ActorStopped,
    Address,
    ChildSpec,
    Crashed,
    handles,
    open_supervisor,
)
from olm.actors.runtime.testing import Callers, CrashPoint, CrashPoints, InjectedCrash, open_actor
from runtime.runtime_actors import (
    Bug,
    Count,
    Doze,
    Get,
    Tally,
    Wait,
)
from runtime.runtime_diary import POLICY, STRATEGIES, Diary, Noted, crash


class Stopper(Tally):
    @handles(Wait)
    async def on_wait_and_finish(self, msg: Wait) -> str:
        self.finish()
        return "finishing"


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("point", ["make", "start", "handle", "reply", "stream", "stop"])
async def test_after_a_crash_anywhere_everybody_is_answered_and_the_actor_is_back(
    autojump_clock: MockClock, strategy: str, point: CrashPoint
) -> None:
    points = CrashPoints()
    callers = Callers()
    async with open_supervisor("root", strategy, POLICY) as root, trio.open_nursery() as nursery:  # type: ignore[arg-type]
        address = await root.start_child(ChildSpec("a", points.wrap(Stopper)))
        sibling = await root.start_child(ChildSpec("b", Tally))
        points.arm(point)
        if point == "stream":
            async with address.stream(Count(3)) as items:
                with pytest.raises(ActorStopped):
                    await anext(items)
        else:
            messages = [Get("x"), Doze(1), Get("y")]
            if point in ("make", "start"):
                messages = [Bug(), *messages]
            elif point == "stop":
                messages = [Wait(), *messages]
            for message in messages:
                nursery.start_soon(callers.ask, address, message)
                await wait_all_tasks_blocked()
        await trio.sleep(10)
        callers.assert_one_outcome()
        assert len(callers.outcomes) == callers.n_asked
        assert await address.ask(Get("x")) == 0
        assert await sibling.ask(Get("x")) == 0
        assert points.n_passed[point] >= (2 if point in ("make", "start") else 1)


@pytest.mark.parametrize("how", ["handler", "nursery"])
async def test_callers_learn_of_a_crash_before_a_slow_stop(
    autojump_clock: MockClock, how: str
) -> None:
    class Slow(Noted):
        async def start(self) -> None:
            self.nursery.start_soon(self._crash_later)

        async def _crash_later(self) -> None:
            try:
                await trio.sleep(1 if how == "nursery" else 100)
                raise ValueError("background")
            except trio.Cancelled:
                with trio.CancelScope(shield=True):
                    await trio.sleep(2)  # a task that is slow to go does not delay the news
                raise

    told_s: list[float] = []

    async def wait(address: Address) -> None:
        with pytest.raises(ActorStopped, match="ValueError"):
            await address.ask(Wait())
        told_s.append(trio.current_time())

    async with open_actor(lambda: Slow(Diary(), "a", stop_s=4)) as address:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, address)
            await wait_all_tasks_blocked()
            if how == "handler":
                await trio.sleep(1)
                await crash(address)
        assert told_s == [1.0]
        await address.stopped()
        assert trio.current_time() == (7 if how == "handler" else 5)


async def test_a_second_crash_in_stop_keeps_the_first_as_the_cause(
    autojump_clock: MockClock,
) -> None:
    points = CrashPoints()
    async with open_actor(points.wrap(Tally)) as address:
        points.arm("stop")
        await crash(address)
        exit_ = await address.stopped()
    assert isinstance(exit_, Crashed)
    assert isinstance(exit_.exc, ValueError)


async def test_a_crash_in_an_orderly_stop_is_the_exit(autojump_clock: MockClock) -> None:
    points = CrashPoints()
    async with open_supervisor() as root:
        await root.start_child(ChildSpec("a", points.wrap(Tally)))
        points.arm("stop")
        exit_ = await root.stop_child("a")
    assert isinstance(exit_, Crashed)
    assert isinstance(exit_.exc, InjectedCrash)


async def test_system_exit_in_a_handler_is_not_caught_but_callers_are_answered(
    autojump_clock: MockClock,
) -> None:
    class Exiting(Tally):
        def on_get(self, msg: Get) -> int:
            raise SystemExit(3)

    callers = Callers()

    async def run() -> None:
        async with trio.open_nursery() as nursery, open_supervisor() as root:
            address = await root.start_child(ChildSpec("a", Exiting))
            nursery.start_soon(callers.ask, address, Get("x"))
            await trio.sleep_forever()

    with pytest.RaisesGroup(SystemExit, flatten_subgroups=True):
        await run()
    callers.assert_one_outcome()
