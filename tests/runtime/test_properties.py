"""Properties over random schedules: whatever crashes when, every caller gets exactly one outcome, and promises of order hold."""

from __future__ import annotations

import contextlib
import random

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from olm.actors.runtime import (
    ActorStopped,
    Address,
    ChildSpec,
    MailboxFull,
    RestartPolicy,
    Supervisor,
    open_supervisor,
)
from olm.actors.runtime.testing import Callers, CrashPoints
from olm.errors import OlmError
from runtime.runtime_actors import Add, Bug, Count, Doze, Get, Refuse, Release, Tally, Wait

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from([Get("x"), Add(), Wait(), Refuse("no"), Bug()])),
        st.tuples(st.just("doze"), st.floats(0, 3)),
        st.tuples(st.just("tell"), st.sampled_from([Add(), Bug(), Refuse("no"), Wait()])),
        st.tuples(st.just("leave"), st.sampled_from([Get("x"), Wait(), Doze(2.0)])),
        st.tuples(st.just("stream"), st.integers(0, 200)),
        st.tuples(st.just("arm"), st.sampled_from(["make", "start", "handle", "reply", "stop"])),
        st.tuples(st.just("sleep"), st.floats(0, 5)),
        st.tuples(st.just("stop"), st.just(None)),
    ),
    max_size=25,
)
STRATEGY = st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"])


class Run:
    """One random history."""

    def __init__(self, root: Supervisor, address: Address, points: CrashPoints) -> None:
        self.root, self.address, self.points = root, address, points
        self.callers = Callers()
        self.streams: list[str] = []
        self.n_streams = 0

    async def step(self, nursery: trio.Nursery, what: str, how: object) -> None:
        match what:
            case "ask":
                nursery.start_soon(self.callers.ask, self.address, how)
            case "doze":
                nursery.start_soon(self.callers.ask, self.address, Doze(how))  # type: ignore[arg-type]
            case "tell":
                with contextlib.suppress(ActorStopped, MailboxFull):
                    self.address.tell(how)  # type: ignore[arg-type]
            case "leave":
                nursery.start_soon(self.ask_and_leave, how)
            case "stream":
                self.n_streams += 1
                nursery.start_soon(self.stream, how)
            case "arm":
                self.points.arm(how)  # type: ignore[arg-type]
            case "sleep":
                await trio.sleep(how)  # type: ignore[arg-type]
            case "stop":
                await self.root.stop_child("a")
        await trio.lowlevel.checkpoint()

    async def ask_and_leave(self, message: object) -> None:
        with trio.move_on_after(0.5):
            await self.callers.ask(self.address, message)  # type: ignore[arg-type]

    async def stream(self, until: int) -> None:
        got: list[int] = []
        try:
            async with self.address.stream(Count(until)) as items:
                async for item in items:
                    got.append(item)  # noqa: PERF401 # kept when it ends with an error
        except OlmError:
            self.streams.append("error")
        else:
            assert len(got) == until
            self.streams.append("end")
        assert got == list(range(len(got)))


@settings(max_examples=150, deadline=None)
@given(STRATEGY, STEPS, st.integers(0, 2**16))
def test_every_caller_and_every_stream_has_exactly_one_outcome(
    strategy: str, steps: list[tuple[str, object]], seed: int
) -> None:
    async def main() -> None:
        points = CrashPoints()
        policy = RestartPolicy(max_restarts=10**6, backoff_s=0.2)
        run: Run | None = None
        async with trio.open_nursery() as nursery:
            async with open_supervisor(
                "root",
                strategy,
                policy,
                rng=random.Random(seed),  # type: ignore[arg-type]
            ) as root:
                address = await root.start_child(ChildSpec("a", points.wrap(Tally)))
                await root.start_child(ChildSpec("b", Tally))
                run = Run(root, address, points)
                for what, how in steps:
                    await run.step(nursery, what, how)
            # Everybody is answered by the end of the tree; nobody has to be cancelled.
            with trio.move_on_after(1) as scope:
                while nursery.child_tasks:
                    await trio.sleep(0.1)
            assert not scope.cancelled_caught
        run.callers.assert_one_outcome()
        assert len(run.streams) == run.n_streams
        assert not address.is_running

    trio.run(main, clock=MockClock(autojump_threshold=0))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["tell", "ask"]), max_size=60), st.integers(0, 2**16))
def test_messages_of_one_sender_are_handled_in_order(how: list[str], seed: int) -> None:
    seen: list[int] = []

    class Ordered(Tally):
        mailbox_size = 1000

        async def on_add(self, msg: Add) -> int:
            seen.append(msg.count)
            return 0

    async def main() -> None:
        async with open_supervisor() as root:
            address = await root.start_child(ChildSpec("a", Ordered))
            for number, verb in enumerate(how):
                if verb == "tell":
                    address.tell(Add(number))
                else:
                    await address.ask(Add(number))
            await address.ask(Get("x"))
            await address.ask(Release())

    trio.run(main)
    assert seen == list(range(len(how)))


@pytest.mark.slow
def test_a_thousand_random_crashes_leave_nothing_behind() -> None:
    async def main() -> None:
        rng = random.Random(7)
        points = CrashPoints()
        callers = Callers()
        policy = RestartPolicy(max_restarts=10**6, backoff_s=0.01)
        async with trio.open_nursery() as nursery, open_supervisor(policy=policy, rng=rng) as root:
            address = await root.start_child(ChildSpec("a", points.wrap(Tally)))
            for _ in range(1000):
                points.arm(rng.choice(["make", "start", "handle", "reply", "stop"]))
                for _ in range(rng.randrange(4)):
                    nursery.start_soon(callers.ask, address, rng.choice([Get("x"), Wait(), Bug()]))
                await trio.sleep(rng.random() * 0.05)
        callers.assert_one_outcome()

    trio.run(main, clock=MockClock(autojump_threshold=0))
