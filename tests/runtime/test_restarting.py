"""Who is restarted when, in which order, and what ends a supervisor."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from olm.actors.runtime import (
    ActorStopped,
    Address,
    ChildSpec,
    Message,
    RestartPolicy,
    TooManyRestarts,
    open_supervisor,
)
from olm.actors.runtime.testing import Callers, CrashPoints
from runtime.runtime_actors import (
    Add,
    Bug,
    Finish,
    Get,
    Tally,
)
from runtime.runtime_diary import POLICY, STRATEGIES, Diary, Noted, crash


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
