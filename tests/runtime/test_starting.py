"""Starting and stopping children: order, bounds, failures, cancellation."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from olm.actors.runtime import (
    Actor,
    ActorStopped,
    ChildSpec,
    Normal,
    Shutdown,
    Supervisor,
    SupervisorSpec,
    open_supervisor,
)
from olm.actors.runtime.testing import Callers, CrashPoints, InjectedCrash
from olm.errors import ActorError, ModelNotFound
from runtime.runtime_actors import (
    Doze,
    Get,
    Tally,
)
from runtime.runtime_diary import POLICY, Diary


async def test_children_stop_in_reverse_order_each_gone_before_the_next(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()
    async with open_supervisor() as root:
        for name in "abc":
            await root.start_child(diary.spec(name, stop_s=1))
        assert diary.take() == ["+a", "+b", "+c"]
        before_s = trio.current_time()
    assert diary.take() == ["-c", "-b", "-a"]
    assert trio.current_time() - before_s == pytest.approx(3)


async def test_cancellation_from_outside_becomes_an_orderly_stop(autojump_clock: MockClock) -> None:
    diary = Diary()
    with trio.move_on_after(5):
        async with open_supervisor() as root:
            await root.start_child(
                SupervisorSpec(
                    "below", children=[diary.spec("a", stop_s=1), diary.spec("b", stop_s=1)]
                )
            )
            await root.start_child(diary.spec("c", stop_s=1))
            await trio.sleep_forever()
    assert diary.take() == ["+a", "+b", "+c", "-c", "-b", "-a"]


async def test_start_child_returns_when_start_is_done(autojump_clock: MockClock) -> None:
    diary = Diary()
    async with open_supervisor() as root:
        address = await root.start_child(diary.spec("a", start_s=3))
        assert trio.current_time() == 3
        assert address.is_running
        assert address.name == "root/a"


@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
async def test_a_failing_first_start_raises_at_the_starter_and_is_not_retried(
    autojump_clock: MockClock, restart: str
) -> None:
    points = CrashPoints()
    points.arm("start")
    async with open_supervisor(policy=POLICY) as root:
        spec = ChildSpec("a", points.wrap(Tally), restart)  # type: ignore[arg-type]
        with pytest.raises(InjectedCrash):
            await root.start_child(spec)
        assert root.tree().children == ()
        assert points.n_passed["start"] == 1
        assert points.n_passed["stop"] == 0
        assert await (await root.start_child(spec)).ask(Get("x")) == 0


async def test_an_expected_error_in_the_first_start_arrives_as_it_is(
    autojump_clock: MockClock,
) -> None:
    class Refusing(Actor):
        async def start(self) -> None:
            raise ModelNotFound("no such model")

    async with open_supervisor() as root:
        with pytest.raises(ModelNotFound):
            await root.start_child(ChildSpec("a", Refusing))


async def test_a_factory_that_fails_raises_at_the_starter(autojump_clock: MockClock) -> None:
    points = CrashPoints()
    points.arm("make")
    async with open_supervisor() as root:
        with pytest.raises(InjectedCrash):
            await root.start_child(ChildSpec("a", points.wrap(Tally)))


async def test_a_crash_in_the_nursery_during_start_raises_at_the_starter(
    autojump_clock: MockClock,
) -> None:
    class Hasty(Actor):
        async def start(self) -> None:
            self.nursery.start_soon(self._crash)
            await trio.sleep_forever()

        async def _crash(self) -> None:
            raise KeyError("early")

    async with open_supervisor() as root:
        with pytest.raises(KeyError):
            await root.start_child(ChildSpec("a", Hasty))


async def test_a_cancelled_start_leaves_no_child(autojump_clock: MockClock) -> None:
    diary = Diary()
    async with open_supervisor() as root:
        with trio.move_on_after(1) as scope:
            await root.start_child(diary.spec("a", start_s=100))
        assert scope.cancelled_caught
        assert trio.current_time() == 1
        assert root.tree().children == ()
    assert diary.take() == []


async def test_a_child_that_finishes_in_its_start_has_been_started(
    autojump_clock: MockClock,
) -> None:
    class Brief(Tally):
        async def start(self) -> None:
            self.finish()

    async with open_supervisor() as root:
        address = await root.start_child(ChildSpec("a", Brief, "temporary"))
        assert await address.stopped() == Normal()


async def test_names_are_unique_and_free_again_after_the_stop(autojump_clock: MockClock) -> None:
    async with open_supervisor() as root:
        await root.start_child(ChildSpec("a", Tally))
        with pytest.raises(ActorError, match="already has a child named 'a'"):
            await root.start_child(ChildSpec("a", Tally))
        assert await root.stop_child("a", "enough") == Shutdown("enough")
        assert await root.stop_child("a") is None
        await root.start_child(ChildSpec("a", Tally))


async def test_a_stopped_child_is_not_restarted_and_says_why(autojump_clock: MockClock) -> None:
    async with open_supervisor() as root:
        address = await root.start_child(ChildSpec("a", Tally))
        await root.stop_child("a", reason="unloaded")
        assert await address.stopped() == Shutdown("unloaded")
        with pytest.raises(ActorStopped, match="was stopped: unloaded"):
            await address.ask(Get("x"))
        with pytest.raises(ActorStopped):
            await address.ask(Get("x"), wait_for_restart=True)


async def test_stop_child_waits_for_the_message_in_progress_and_fails_the_queue(
    autojump_clock: MockClock,
) -> None:
    callers = Callers()
    async with open_supervisor() as root, trio.open_nursery() as nursery:
        address = await root.start_child(ChildSpec("a", Tally))
        nursery.start_soon(callers.ask, address, Doze(2))
        await wait_all_tasks_blocked()
        nursery.start_soon(callers.ask, address, Get("x"))
        await wait_all_tasks_blocked()
        await root.stop_child("a", "enough")
        assert trio.current_time() == 2
    callers.assert_one_outcome()
    assert callers.outcomes[0] == "awake"
    assert isinstance(callers.outcomes[1], ActorStopped)


async def test_a_message_that_takes_too_long_is_cancelled_and_stop_still_runs(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()
    callers = Callers()
    async with open_supervisor() as root, trio.open_nursery() as nursery:
        address = await root.start_child(diary.spec("a", stop_s=1))
        nursery.start_soon(callers.ask, address, Doze(100))
        await wait_all_tasks_blocked()
        exit_ = await root.stop_child("a", "enough")
    assert trio.current_time() == 6  # 5 s for the message, 1 s for stop()
    assert exit_ == Shutdown("enough")
    assert diary.take() == ["+a", "-a"]
    assert isinstance(callers.outcomes[0], ActorStopped)


async def test_stop_is_bounded(autojump_clock: MockClock) -> None:
    diary = Diary()
    async with open_supervisor() as root:
        await root.start_child(diary.spec("a", stop_s=100))
    assert trio.current_time() == 5
    assert diary.take() == ["+a"]


async def test_a_start_in_progress_is_cancelled_when_the_stop_takes_too_long(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()
    started: list[BaseException] = []

    async def start(root: Supervisor) -> None:
        try:
            await root.start_child(diary.spec("a", start_s=100))
        except ActorStopped as exc:
            started.append(exc)

    async with trio.open_nursery() as nursery, open_supervisor() as root:
        nursery.start_soon(start, root)
        await wait_all_tasks_blocked()
        await root.stop_child("a")
    assert trio.current_time() == 5
    assert len(started) == 1


async def test_the_nursery_still_works_during_stop_and_is_cancelled_after_it(
    autojump_clock: MockClock,
) -> None:
    log: list[str] = []

    class Draining(Actor):
        async def start(self) -> None:
            self.event = trio.Event()
            self.nursery.start_soon(self._serve)

        async def stop(self) -> None:
            self.event.set()
            await trio.sleep(1)
            log.append("stopped")

        async def _serve(self) -> None:
            await self.event.wait()
            log.append("drained")
            try:
                await trio.sleep_forever()
            finally:
                log.append("cancelled")

    async with open_supervisor() as root:
        await root.start_child(ChildSpec("a", Draining))
        await wait_all_tasks_blocked()
    assert log == ["drained", "stopped", "cancelled"]


async def test_a_stopping_supervisor_takes_no_children(autojump_clock: MockClock) -> None:
    errors: list[Exception] = []

    class Late(Tally):
        async def stop(self) -> None:
            try:
                await root.start_child(ChildSpec("b", Tally))
            except ActorStopped as exc:
                errors.append(exc)

    async with open_supervisor() as root:
        await root.start_child(ChildSpec("a", Late))
    assert len(errors) == 1
    with pytest.raises(ActorStopped):
        await root.start_child(ChildSpec("c", Tally))
    assert await root.stop_child("a") is None
    assert not root.is_running


async def test_leaving_a_stop_child_does_not_interrupt_the_stop(autojump_clock: MockClock) -> None:
    diary = Diary()
    async with open_supervisor() as root:
        await root.start_child(diary.spec("a", stop_s=2))
        with trio.move_on_after(1):
            await root.stop_child("a")
        await trio.sleep(1.5)
        assert diary.take() == ["+a", "-a"]
        assert root.tree().children == ()


async def test_two_may_stop_the_same_child(autojump_clock: MockClock) -> None:
    diary = Diary()
    async with open_supervisor() as root, trio.open_nursery() as nursery:
        await root.start_child(diary.spec("a", stop_s=2))
        nursery.start_soon(root.stop_child, "a")
        nursery.start_soon(root.stop_child, "a")
    assert diary.take() == ["+a", "-a"]


async def test_temporary_children_of_one_for_one_are_asked_to_stop_together(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()
    async with open_supervisor() as root:
        for name in "abc":
            await root.start_child(diary.spec(name, "temporary", stop_s=3))
    assert trio.current_time() == 3


async def test_what_the_block_raises_comes_out_in_a_group_after_the_stop(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()
    with pytest.RaisesGroup(ValueError):
        async with open_supervisor() as root:
            await root.start_child(diary.spec("a"))
            raise ValueError("mine")
    assert diary.take() == ["+a", "-a"]


async def test_children_of_open_supervisor_are_up_before_the_block(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()
    async with open_supervisor(children=[diary.spec("a"), diary.spec("b")]) as root:
        assert diary.take() == ["+a", "+b"]
        assert root.address("b").is_running


async def test_a_tree_that_cannot_start_stops_what_it_started(autojump_clock: MockClock) -> None:
    diary = Diary()
    with pytest.RaisesGroup(ValueError):
        async with open_supervisor(children=[diary.spec("a"), diary.spec("b", fail=True)]):
            raise AssertionError("not reached")
    assert diary.take() == ["+a", "-a"]


async def test_cancelling_a_tree_that_is_starting_stops_what_it_started(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()
    with trio.move_on_after(1):
        async with open_supervisor(children=[diary.spec("a"), diary.spec("b", start_s=100)]):
            raise AssertionError("not reached")
    assert diary.take() == ["+a", "-a"]
    assert trio.current_time() == 1


async def test_a_tree_cancelled_before_it_began_ends(autojump_clock: MockClock) -> None:
    diary = Diary()
    for _ in range(20):  # which of two tasks runs first is up to chance
        with trio.CancelScope() as scope:
            scope.cancel()
            async with open_supervisor(children=[diary.spec("a")]):
                raise AssertionError("not reached")
        assert scope.cancelled_caught
    assert diary.take() == []


async def test_stop_has_its_own_bound_after_a_slow_message(autojump_clock: MockClock) -> None:
    diary = Diary()
    async with open_supervisor() as root, trio.open_nursery() as nursery:
        address = await root.start_child(diary.spec("a", stop_s=4))
        nursery.start_soon(address.ask, Doze(3))
        await wait_all_tasks_blocked()
        await root.stop_child("a")
    assert trio.current_time() == 7
    assert diary.take() == ["+a", "-a"]
