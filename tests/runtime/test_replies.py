"""Deferred replies: given later, from tasks, abandoned, dropped."""

from __future__ import annotations

import gc

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from olm.actors.runtime import (
    ActorStopped,
    Crashed,
    Reply,
    handles,
)
from olm.actors.runtime.testing import Callers, open_actor
from olm.errors import ActorError, ModelNotFound
from runtime.runtime_actors import (
    Deferring,
    Doze,
    Get,
    Release,
    Tally,
    Wait,
    Work,
)


async def test_a_deferred_reply_lets_the_mailbox_go_on_and_is_given_later(
    autojump_clock: MockClock,
) -> None:
    async with open_actor(Tally) as tally, trio.open_nursery() as nursery:
        callers = Callers()
        nursery.start_soon(callers.ask, tally, Wait())
        nursery.start_soon(callers.ask, tally, Wait())
        await wait_all_tasks_blocked()
        assert await tally.ask(Get("x")) == 0
        assert callers.outcomes == []
        assert await tally.ask(Release()) == 0
        await wait_all_tasks_blocked()
        assert callers.outcomes == ["released", "released"]


async def test_a_deferred_reply_says_that_its_caller_left(autojump_clock: MockClock) -> None:
    async with open_actor(Tally) as tally:
        with trio.move_on_after(0.01):
            await tally.ask(Wait())
        assert await tally.ask(Release()) == 1


async def test_reply_run_answers_from_a_task(autojump_clock: MockClock) -> None:
    async with open_actor(Deferring) as address:
        assert await address.ask(Work("it")) == "did it"
        with pytest.raises(ModelNotFound, match="in the task"):
            await address.ask(Work("refuse"))


async def test_reply_run_cancels_the_work_when_the_caller_leaves(autojump_clock: MockClock) -> None:
    actor = Deferring()
    async with open_actor(lambda: actor) as address:
        with trio.move_on_after(0.01):
            await address.ask(Work("long"))
        await wait_all_tasks_blocked()
        assert actor.log == ["cancelled"]
        assert await address.ask(Work("it")) == "did it"


async def test_work_whose_caller_left_before_it_began_is_not_begun(
    autojump_clock: MockClock,
) -> None:
    held: list[Reply[str]] = []

    class Holding(Deferring):
        @handles(Work)
        def on_work(self, msg: Work, reply: Reply[str]) -> None:
            held.append(reply)

    actor = Holding()
    async with open_actor(lambda: actor) as address:
        with trio.move_on_after(0.01):
            await address.ask(Work("it"))
        assert held[0].abandoned
        await held[0].run(actor._work, Work("long"))
        assert actor.log == []


async def test_a_bug_in_a_task_of_the_nursery_crashes_the_actor_and_answers_the_caller(
    autojump_clock: MockClock,
) -> None:
    async with open_actor(Deferring) as address:
        with pytest.raises(ActorStopped, match="ValueError: in the task") as caught:
            await address.ask(Work("bug"))
        assert isinstance(caught.value.__cause__, ValueError)
        exit_ = await address.stopped()
    assert isinstance(exit_, Crashed)


async def test_a_crash_in_the_nursery_answers_the_message_in_progress_with_its_cause(
    autojump_clock: MockClock,
) -> None:
    class Both(Tally):
        async def start(self) -> None:
            self.nursery.start_soon(self._crash_soon)

        async def _crash_soon(self) -> None:
            await trio.sleep(0.01)
            raise KeyError("background")

    callers = Callers()
    async with open_actor(Both) as address, trio.open_nursery() as nursery:
        nursery.start_soon(callers.ask, address, Doze(60))
        # Until the first is in progress; without letting virtual time jump.
        while address.n_waiting or not callers.n_asked:
            await trio.lowlevel.checkpoint()
        nursery.start_soon(callers.ask, address, Get("x"))
    callers.assert_one_outcome()
    assert all("background" in str(error) for error in callers.outcomes)


@pytest.mark.parametrize("kind", ["fail", "raise"])
async def test_a_deferring_handler_may_answer_with_an_error(
    autojump_clock: MockClock, kind: str
) -> None:
    async with open_actor(Deferring) as address:
        with pytest.raises(ModelNotFound):
            await address.ask(Work(kind))
        assert await address.ask(Work("it")) == "did it"


async def test_a_reply_is_used_once(autojump_clock: MockClock) -> None:
    actor = Deferring()
    async with open_actor(lambda: actor) as address:
        assert await address.ask(Work("twice")) == "one"
    assert "a Reply is used once" in actor.log[0]


async def test_a_dropped_reply_fails_its_caller_instead_of_hanging_it(
    autojump_clock: MockClock,
) -> None:
    async with open_actor(Deferring) as address:
        with pytest.raises(ActorError, match="dropped the request"):
            await address.ask(Work("drop"))
        assert address.is_running


async def test_replies_held_when_the_actor_stops_are_answered(autojump_clock: MockClock) -> None:
    callers = Callers()
    async with trio.open_nursery() as nursery:
        async with open_actor(Tally) as tally:
            nursery.start_soon(callers.ask, tally, Wait())
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        gc.collect()
    callers.assert_one_outcome()
    assert isinstance(callers.outcomes[0], ActorStopped)
