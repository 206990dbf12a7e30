"""Supervisors: start, restart by strategy, escalation, orderly stop; a crash at each point of a life."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from olm.actors.runtime import (
    Actor,
    ActorStopped,
    Address,
    ChildSpec,
    Crashed,
    Message,
    Normal,
    RestartPolicy,
    Shutdown,
    Supervisor,
    SupervisorSpec,
    TooManyRestarts,
    handles,
    open_supervisor,
)
from olm.actors.runtime.testing import Callers, CrashPoint, CrashPoints, InjectedCrash, open_actor
from olm.errors import ActorError, ModelNotFound
from runtime.runtime_actors import (
    Add,
    Bug,
    Count,
    Doze,
    Finish,
    Get,
    Tally,
    Wait,
)

POLICY = RestartPolicy(max_restarts=10, period_s=60)
STRATEGIES = ["one_for_one", "one_for_all", "rest_for_one"]


class Diary:
    """Who started and stopped when."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def take(self) -> list[str]:
        entries, self.entries = self.entries, []
        return entries

    def spec(self, name: str, restart: str = "permanent", **how: float) -> ChildSpec:
        return ChildSpec(name, lambda: Noted(self, name, **how), restart)  # type: ignore[arg-type]


class Noted(Tally):
    """Notes its starts and stops, and may be slow at both."""

    def __init__(
        self, diary: Diary, short: str, start_s: float = 0, stop_s: float = 0, fail: bool = False
    ) -> None:
        super().__init__()
        self.diary, self.short, self.start_s, self.stop_s = diary, short, start_s, stop_s
        self.fail = fail

    async def start(self) -> None:
        await trio.sleep(self.start_s)
        if self.fail:
            raise ValueError("cannot start")
        self.diary.entries.append(f"+{self.short}")

    async def stop(self) -> None:
        await trio.sleep(self.stop_s)
        self.diary.entries.append(f"-{self.short}")


async def crash(address: Address) -> None:
    """Crash an actor and see it down."""
    with pytest.raises(ActorStopped):
        await address.ask(Bug())


# -- starting and stopping -----------------------------------------------------------------------------------------------


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


# -- restarting ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("restart", "ending", "restarted"),
    [
        ("permanent", Bug(), True),
        ("permanent", Finish(), True),
        ("transient", Bug(), True),
        ("transient", Finish(), False),
        ("temporary", Bug(), False),
        ("temporary", Finish(), False),
    ],
)
async def test_who_is_restarted_after_what(
    autojump_clock: MockClock, restart: str, ending: Message[None], restarted: bool
) -> None:
    diary = Diary()
    async with open_supervisor(policy=POLICY) as root:
        address = await root.start_child(diary.spec("a", restart))
        address.tell(ending)
        await trio.sleep(1)
        assert diary.take() == (["+a", "-a", "+a"] if restarted else ["+a", "-a"])
        assert address.is_running is restarted
        assert len(root.tree().children) == restarted


async def test_a_restarted_child_has_fresh_state_and_the_same_address(
    autojump_clock: MockClock,
) -> None:
    async with open_supervisor(policy=POLICY) as root:
        address = await root.start_child(ChildSpec("a", Tally))
        assert await address.ask(Add(5)) == 5
        await crash(address)
        assert await address.ask(Get("x"), wait_for_restart=True) == 0
        assert root.address("a") is address


async def test_the_first_restart_is_at_once_and_the_next_ones_wait_longer_and_longer(
    autojump_clock: MockClock,
) -> None:
    policy = RestartPolicy(
        max_restarts=10, period_s=1000, backoff_s=1, backoff_max_s=3, jitter_frac=0, quiet_s=50
    )
    waits: list[float] = []
    async with open_supervisor(policy=policy) as root:
        address = await root.start_child(ChildSpec("a", Tally))
        for _ in range(5):
            await crash(address)
            before_s = trio.current_time()
            await address.ask(Get("x"), wait_for_restart=True)
            waits.append(trio.current_time() - before_s)
        assert waits == pytest.approx([0, 1, 2, 3, 3])
        await trio.sleep(60)
        await crash(address)
        before_s = trio.current_time()
        await address.ask(Get("x"), wait_for_restart=True)
        assert trio.current_time() == before_s


async def test_jitter_comes_from_the_given_source(autojump_clock: MockClock) -> None:
    async def second_wait_s(seed: int) -> float:
        policy = RestartPolicy(backoff_s=10, jitter_frac=0.5)
        async with open_supervisor(policy=policy, rng=random.Random(seed)) as root:
            address = await root.start_child(ChildSpec("a", Tally))
            await crash(address)
            with pytest.raises(ActorStopped):
                await address.ask(Bug(), wait_for_restart=True)
            before_s = trio.current_time()
            await address.ask(Get("x"), wait_for_restart=True)
            return trio.current_time() - before_s

    assert await second_wait_s(1) == await second_wait_s(1)
    assert await second_wait_s(1) != await second_wait_s(2)
    assert 5 <= await second_wait_s(3) <= 15


async def test_sends_while_down_fail_at_once_or_wait_by_choice(autojump_clock: MockClock) -> None:
    policy = RestartPolicy(backoff_s=10, jitter_frac=0)
    async with open_supervisor(policy=policy) as root, trio.open_nursery() as nursery:
        address = await root.start_child(ChildSpec("a", Tally))
        await crash(address)
        with pytest.raises(ActorStopped):
            await address.ask(Bug(), wait_for_restart=True)
        before_s = trio.current_time()
        with pytest.raises(ActorStopped, match="ValueError: bug"):
            await address.ask(Get("x"))
        with pytest.raises(ActorStopped):
            address.tell(Add())
        assert trio.current_time() == before_s
        await address.stopped()
        assert address.state.value == "down"
        with trio.move_on_after(1) as scope:
            await address.ask(Get("x"), wait_for_restart=True)
        assert scope.cancelled_caught
        callers = Callers()
        nursery.start_soon(callers.ask, address, Get("x"))
        assert await address.ask(Get("x"), wait_for_restart=True) == 0


async def test_whoever_waits_for_a_restart_learns_that_there_will_be_none(
    autojump_clock: MockClock,
) -> None:
    policy = RestartPolicy(backoff_s=10, jitter_frac=0)
    errors: list[Exception] = []

    async def wait(address: Address) -> None:
        try:
            await address.ask(Get("x"), wait_for_restart=True)
        except ActorStopped as exc:
            errors.append(exc)

    async with trio.open_nursery() as nursery, open_supervisor(policy=policy) as root:
        address = await root.start_child(ChildSpec("a", Tally))
        await crash(address)
        with pytest.raises(ActorStopped):
            await address.ask(Bug(), wait_for_restart=True)
        nursery.start_soon(wait, address)
        await wait_all_tasks_blocked()
        await root.stop_child("a")  # in the middle of its wait
        assert trio.current_time() < 1
    assert len(errors) == 1


async def test_a_failing_restart_counts_and_is_tried_again(autojump_clock: MockClock) -> None:
    points = CrashPoints()
    async with open_supervisor(policy=POLICY) as root:
        address = await root.start_child(ChildSpec("a", points.wrap(Tally)))
        points.arm("start", 2)
        points.arm("make", 1)
        await crash(address)
        assert await address.ask(Get("x"), wait_for_restart=True) == 0
        assert root.tree().children[0].n_restarts == 4


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_too_many_crashes_escalate_with_the_cause_chained(
    autojump_clock: MockClock, strategy: str
) -> None:
    diary = Diary()
    policy = RestartPolicy(max_restarts=2, period_s=60, backoff_s=0)

    async def run() -> None:
        async with open_supervisor("top", strategy, policy) as root:  # type: ignore[arg-type]
            await root.start_child(diary.spec("a"))
            address = await root.start_child(diary.spec("b"))
            for _ in range(3):
                with pytest.raises(ActorStopped):
                    await address.ask(Bug("again"), wait_for_restart=True)
            await trio.sleep_forever()

    with pytest.RaisesGroup(TooManyRestarts) as caught:
        await run()
    (error,) = caught.value.exceptions
    assert "child b crashed: ValueError: again; that was more than 2 in 60 s" in str(error)
    assert isinstance(error.__cause__, ValueError)
    assert diary.take()[-1] == "-a", "the others were stopped in order"
    assert trio.current_time() < 1


async def test_crashes_further_apart_than_the_period_do_not_escalate(
    autojump_clock: MockClock,
) -> None:
    async with open_supervisor(policy=RestartPolicy(max_restarts=1, period_s=10)) as root:
        address = await root.start_child(ChildSpec("a", Tally))
        for _ in range(5):
            await crash(address)
            await trio.sleep(11)
        assert address.is_running


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("one_for_one", ["-b", "+b"]),
        ("one_for_all", ["-b", "-c", "-a", "+a", "+b", "+c"]),
        ("rest_for_one", ["-b", "-c", "+b", "+c"]),
    ],
)
async def test_the_strategy_says_who_is_restarted_in_which_order(
    autojump_clock: MockClock, strategy: str, expected: list[str]
) -> None:
    diary = Diary()
    async with open_supervisor("root", strategy, POLICY) as root:  # type: ignore[arg-type]
        addresses = [await root.start_child(diary.spec(name)) for name in "abc"]
        diary.take()
        await crash(addresses[1])
        await trio.sleep(1)
        assert diary.take() == expected
        assert all(address.is_running for address in addresses)


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
async def test_temporary_siblings_are_stopped_with_the_group_and_not_restarted(
    autojump_clock: MockClock,
    strategy: str,
) -> None:
    diary = Diary()
    async with open_supervisor("root", strategy, POLICY) as root:  # type: ignore[arg-type]
        a = await root.start_child(diary.spec("a"))
        await root.start_child(diary.spec("t", "temporary"))
        b = await root.start_child(diary.spec("b", "transient"))
        diary.take()
        await crash(a)
        await trio.sleep(1)
        assert diary.take() == ["-a", "-b", "-t", "+a", "+b"]
        assert [child.name for child in root.tree().children] == ["a", "b"]
        diary.take()
        await crash(b)
        await trio.sleep(1)
        assert "+b" in diary.take()


async def test_a_temporary_crash_leaves_the_group_alone(autojump_clock: MockClock) -> None:
    diary = Diary()
    async with open_supervisor("root", "one_for_all", POLICY) as root:
        await root.start_child(diary.spec("a"))
        t = await root.start_child(diary.spec("t", "temporary"))
        await crash(t)
        await trio.sleep(1)
        assert diary.take() == ["+a", "+t", "-t"]


async def test_a_group_restart_that_fails_half_way_goes_on_from_there(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()
    points = CrashPoints()
    async with open_supervisor("root", "rest_for_one", POLICY) as root:
        a = await root.start_child(diary.spec("a"))
        await root.start_child(ChildSpec("b", points.wrap(Noted, lambda cls: cls(diary, "b"))))
        await root.start_child(diary.spec("c"))
        diary.take()
        points.arm("start")
        await crash(a)
        await trio.sleep(1)
        assert diary.take() == ["-a", "-c", "-b", "+a", "+b", "+c"]
        assert all(child.state == "running" for child in root.tree().children)


async def test_a_crash_during_the_wait_of_a_group_restart_widens_it(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()
    policy = RestartPolicy(max_restarts=10, backoff_s=10, jitter_frac=0)
    async with open_supervisor("root", "rest_for_one", policy) as root:
        a, b, c = [await root.start_child(diary.spec(name)) for name in "abc"]
        await crash(c)
        await c.ask(Get("x"), wait_for_restart=True)
        await crash(c)
        await trio.sleep(1)
        diary.take()
        await crash(a)  # while c waits for its second restart
        await trio.sleep(100)
        assert diary.take() == ["-a", "-b", "+a", "+b", "+c"]
        assert all(address.is_running for address in (a, b, c))


async def test_closing_during_the_wait_of_a_group_restart_is_quick(
    autojump_clock: MockClock,
) -> None:
    policy = RestartPolicy(max_restarts=10, backoff_s=1000)
    async with open_supervisor("root", "one_for_all", policy) as root:
        a = await root.start_child(ChildSpec("a", Tally))
        await root.start_child(ChildSpec("b", Tally))
        await crash(a)
        await a.ask(Get("x"), wait_for_restart=True)
        await crash(a)
        await trio.sleep(1)
    assert trio.current_time() < 10


async def test_closing_while_a_group_starts_again_starts_nothing_more(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()
    async with open_supervisor("root", "one_for_all", POLICY) as root:
        a = await root.start_child(diary.spec("a", start_s=3))
        await root.start_child(diary.spec("b"))
        diary.take()
        await crash(a)
        await trio.sleep(1)
    assert diary.take() == ["-a", "-b", "+a", "-a"]


async def test_two_crashes_at_once_restart_the_group_once(autojump_clock: MockClock) -> None:
    diary = Diary()
    async with open_supervisor("root", "one_for_all", POLICY) as root:
        a, b = [await root.start_child(diary.spec(name, stop_s=0)) for name in "ab"]
        diary.take()
        a.tell(Bug())
        b.tell(Bug())
        await trio.sleep(1)
        assert sorted(diary.take()) == ["+a", "+b", "-a", "-b"]
        assert a.is_running
        assert b.is_running


# -- trees -------------------------------------------------------------------------------------------------------------------


async def test_a_nested_supervisor_is_restarted_whole_with_its_addresses_kept(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()
    tight = RestartPolicy(max_restarts=0)
    spec = SupervisorSpec(
        "models", "rest_for_one", tight, children=[diary.spec("a"), diary.spec("b")]
    )
    async with open_supervisor(policy=POLICY) as root:
        models = await root.start_child(spec)
        added = await models.start_child(diary.spec("added"))
        a = root.address("models/a")
        assert a is models.address("a")
        assert a.name == "root/models/a"
        diary.take()
        await crash(a)
        assert await a.ask(Get("x"), wait_for_restart=True) == 0
        await trio.sleep(1)
        assert diary.take() == ["-a", "-added", "-b", "+a", "+b"]
        assert root.supervisor("models") is models
        assert models.is_running
        with pytest.raises(ActorStopped):
            await added.ask(Get("x"), wait_for_restart=True)
        assert root.tree().children[0].n_restarts == 1
        assert "more than 0 in 60 s" in root.tree().children[0].last_exit


async def test_escalation_through_two_levels_ends_the_tree_with_the_first_cause(
    autojump_clock: MockClock,
) -> None:
    tight = RestartPolicy(max_restarts=0)

    async def run() -> None:
        spec = SupervisorSpec("models", policy=tight, children=[ChildSpec("a", Tally)])
        async with open_supervisor(policy=tight, children=[spec]) as root:
            root.address("models/a").tell(Bug("deep"))
            await trio.sleep_forever()

    with pytest.RaisesGroup(TooManyRestarts) as caught:
        await run()
    error: BaseException | None = caught.value.exceptions[0]
    chain = []
    while error is not None:
        chain.append(type(error))
        error = error.__cause__
    assert chain == [TooManyRestarts, TooManyRestarts, ValueError]


async def test_a_nested_supervisor_that_cannot_start_raises_at_the_starter(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()
    async with open_supervisor() as root:
        spec = SupervisorSpec("below", children=[diary.spec("a"), diary.spec("b", fail=True)])
        with pytest.raises(ValueError, match="cannot start"):
            await root.start_child(spec)
        assert diary.take() == ["+a", "-a"]
        assert root.tree().children == ()


async def test_a_cancelled_start_of_a_nested_supervisor_stops_what_it_started(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()
    async with open_supervisor() as root:
        spec = SupervisorSpec("below", children=[diary.spec("a"), diary.spec("b", start_s=100)])
        with trio.move_on_after(1):
            await root.start_child(spec)
        assert diary.take() == ["+a", "-a"]
        assert trio.current_time() == 1


async def test_stopping_a_nested_supervisor_stops_its_children(autojump_clock: MockClock) -> None:
    diary = Diary()
    async with open_supervisor() as root:
        spec = SupervisorSpec("below", children=[diary.spec("a"), diary.spec("b")])
        below = await root.start_child(spec)
        a = below.address("a")
        await root.stop_child("below", "enough")
        assert diary.take() == ["+a", "+b", "-b", "-a"]
        assert not below.is_running
        with pytest.raises(ActorStopped):
            await a.ask(Get("x"), wait_for_restart=True)
        assert "down" in repr(below)


async def test_looking_up_what_is_not_there_is_an_error(autojump_clock: MockClock) -> None:
    spec = SupervisorSpec("below", children=[ChildSpec("a", Tally)])
    async with open_supervisor(children=[spec]) as root:
        for path in ("nobody", "below", "below/nobody", "below/a/deeper"):
            with pytest.raises(ActorError, match="no actor"):
                root.address(path)
        for path in ("nobody", "below/a"):
            with pytest.raises(ActorError, match="no supervisor"):
                root.supervisor(path)


async def test_the_tree_is_a_value_that_says_how_everybody_is(autojump_clock: MockClock) -> None:
    spec = SupervisorSpec("below", children=[ChildSpec("a", Tally)])
    async with open_supervisor(policy=POLICY, children=[spec]) as root:
        a = root.address("below/a")
        a.tell(Bug())
        a.tell(Add())
        await trio.sleep(1)
        a.tell(Add())
        tree = root.tree()
        assert [node.name for node in tree.walk()] == ["root", "below", "a"]
        node = list(tree.walk())[2]
        assert (node.kind, node.state, node.n_restarts, node.n_waiting, node.n_lost) == (
            "actor", "running", 1, 1, 1,
        )  # fmt: skip
        assert node.last_exit == "crashed: ValueError: bug"
        assert str(tree) == "root (running)\n  below (running)\n    a (running, 1 restarts)"


async def test_stopped_is_a_monitor_of_the_current_incarnation(autojump_clock: MockClock) -> None:
    async with open_supervisor(policy=POLICY) as root:
        address = await root.start_child(ChildSpec("a", Tally))
        exits: list[object] = []

        async def watch() -> None:
            exits.append(await address.stopped())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            nursery.start_soon(watch)
            await wait_all_tasks_blocked()
            await crash(address)
        assert len(exits) == 2
        assert all(isinstance(exit_, Crashed) for exit_ in exits)
        assert address.is_running or await address.ask(Get("x"), wait_for_restart=True) == 0


async def test_a_monitor_that_leaves_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    async with open_actor(Tally) as address:
        with trio.move_on_after(1):
            await address.stopped()
        await address.ask(Finish())
        assert await address.stopped() == Normal()


# -- a crash at each point -------------------------------------------------------------------------------------------------


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
