"""Ask, tell and replies within one process: outcomes, bounds, order, cancellation."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from olm.actors.runtime import (
    Actor,
    ActorStopped,
    Crashed,
    MailboxFull,
    Normal,
    handles,
)
from olm.actors.runtime.testing import Callers, Recorder, open_actor
from olm.errors import ModelNotFound
from runtime.runtime_actors import (
    Add,
    Bug,
    Count,
    Deferring,
    Doze,
    Finish,
    Get,
    Refuse,
    Release,
    Tally,
    Unhandled,
    Wait,
    Work,
)


async def test_ask_returns_what_sync_and_async_handlers_return(autojump_clock: MockClock) -> None:
    async with open_actor(Tally) as tally:
        assert await tally.ask(Get("x")) == 0
        assert await tally.ask(Add(3)) == 3
        assert await tally.ask(Get("x")) == 3


async def test_an_expected_error_is_a_reply_and_the_actor_goes_on(
    autojump_clock: MockClock,
) -> None:
    async with open_actor(Tally) as tally:
        with pytest.raises(ModelNotFound, match="gone fishing") as caught:
            await tally.ask(Refuse("gone fishing"))

        assert caught.value.details == {"kind": "test"}
        assert await tally.ask(Get("x")) == 0


async def test_a_group_of_expected_errors_from_a_nursery_in_a_handler_is_a_reply(
    autojump_clock: MockClock,
) -> None:
    class Grouped(Actor):
        @handles(Get)
        async def on_get(self, msg: Get) -> int:
            async with trio.open_nursery():
                raise ModelNotFound("inside", status=418)

    async with open_actor(Grouped) as grouped:
        with pytest.raises(ModelNotFound, match="inside") as caught:
            await grouped.ask(Get("x"))

    assert caught.value.details == {"status": 418}
    assert isinstance(caught.value.__cause__, ExceptionGroup)


async def test_a_mixed_group_is_a_crash(autojump_clock: MockClock) -> None:
    class Grouped(Actor):
        @handles(Get)
        async def on_get(self, msg: Get) -> int:
            raise ExceptionGroup("both", [ModelNotFound("a"), ValueError("b")])

    async with open_actor(Grouped) as grouped:
        with pytest.raises(ActorStopped):
            await grouped.ask(Get("x"))


async def test_a_bug_crashes_the_actor_and_everybody_learns_the_cause_at_once(
    autojump_clock: MockClock,
) -> None:
    callers = Callers()
    async with open_actor(Tally) as tally, trio.open_nursery() as nursery:
        nursery.start_soon(callers.ask, tally, Wait())  # deferred
        await wait_all_tasks_blocked()
        nursery.start_soon(callers.ask, tally, Doze(1.0))  # in flight
        await wait_all_tasks_blocked()
        nursery.start_soon(callers.ask, tally, Bug("broken"))
        await wait_all_tasks_blocked()
        for _ in range(8):  # queued, and beyond the mailbox's four places
            nursery.start_soon(callers.ask, tally, Get("x"))
        await wait_all_tasks_blocked()
        exit_ = await tally.stopped()
        assert trio.current_time() == 1.0

    callers.assert_one_outcome()
    assert callers.outcomes[1] == "awake"
    errors = [outcome for outcome in callers.outcomes if outcome != "awake"]
    assert len(errors) == 10
    assert all(isinstance(error, ActorStopped) for error in errors)
    assert all("ValueError: broken" in str(error) for error in errors)
    assert all(isinstance(error.__cause__, ValueError) for error in errors)
    assert len({id(error) for error in errors}) == 10, "each caller has an exception of its own"
    assert isinstance(exit_, Crashed)
    assert isinstance(exit_.exc, ValueError)


async def test_ask_and_tell_to_an_actor_that_is_down_fail_at_once(
    autojump_clock: MockClock,
) -> None:
    async with open_actor(Tally) as tally:
        await tally.ask(Finish())
        assert await tally.stopped() == Normal()
        with pytest.raises(ActorStopped, match="finished"):
            await tally.ask(Get("x"))
        with pytest.raises(ActorStopped, match="finished"):
            tally.tell(Add())
        with pytest.raises(ActorStopped, match="finished"):
            async with tally.stream(Count(1)):
                pass
        assert not tally.is_running


async def test_retrying_in_a_loop_does_not_starve_others() -> None:
    async with open_actor(Tally) as tally, trio.open_nursery() as nursery:
        await tally.ask(Finish())
        done = trio.Event()

        async def other() -> None:
            await trio.lowlevel.checkpoint()
            done.set()

        nursery.start_soon(other)
        for _ in range(10):
            with pytest.raises(ActorStopped):
                await tally.ask(Get("x"))
        assert done.is_set()


async def test_tell_never_waits_and_a_full_mailbox_refuses(autojump_clock: MockClock) -> None:
    async with open_actor(Tally) as tally:
        for _ in range(4):
            tally.tell(Add())
        with pytest.raises(MailboxFull, match=r"full \(4\)"):
            tally.tell(Add())
        assert tally.n_waiting == 4
        assert await tally.ask(Get("x")) == 4


async def test_asking_a_full_mailbox_waits_in_order_of_arrival(autojump_clock: MockClock) -> None:
    class Keeper(Tally):
        mailbox_size = 2

        @handles(Add)
        async def on_add(self, msg: Add) -> int:
            self.log.append(str(msg.count))
            return 0

    keeper = Keeper()
    callers = Callers()
    async with open_actor(lambda: keeper) as address, trio.open_nursery() as nursery:
        nursery.start_soon(callers.ask, address, Doze(0.01))
        await wait_all_tasks_blocked()
        for number in range(6):
            nursery.start_soon(callers.ask, address, Add(number))
            await wait_all_tasks_blocked()
        assert address.n_waiting == 6
        with pytest.raises(MailboxFull):
            address.tell(Add(99))
    callers.assert_one_outcome()
    assert keeper.log == ["0", "1", "2", "3", "4", "5"]


async def test_an_ask_cancelled_before_its_turn_is_never_handled_and_frees_its_place(
    autojump_clock: MockClock,
) -> None:
    async with open_actor(Tally) as tally, trio.open_nursery() as nursery:
        nursery.start_soon(tally.ask, Doze(0.02))
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as leaving:
            for _ in range(6):  # four in the mailbox, two beyond
                leaving.start_soon(tally.ask, Add(100))
            await wait_all_tasks_blocked()
            assert tally.n_waiting == 6
            leaving.cancel_scope.cancel()
        assert tally.n_waiting == 0
        for _ in range(4):
            tally.tell(Add())
        assert await tally.ask(Get("x")) == 4


async def test_leaving_a_full_mailbox_moves_the_next_caller_up(autojump_clock: MockClock) -> None:
    async with open_actor(Tally) as tally, trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def ask_and_leave() -> None:
            with scope:
                await tally.ask(Add(100))

        nursery.start_soon(tally.ask, Doze(0.02))
        await wait_all_tasks_blocked()
        nursery.start_soon(ask_and_leave)
        await wait_all_tasks_blocked()
        for _ in range(4):
            nursery.start_soon(tally.ask, Add())
        await wait_all_tasks_blocked()
        scope.cancel()
        await wait_all_tasks_blocked()
        with pytest.raises(MailboxFull):
            tally.tell(Add())
        assert await tally.ask(Get("x")) == 4


async def test_a_cancelled_caller_does_not_stop_a_handler_in_progress(
    autojump_clock: MockClock,
) -> None:
    async with open_actor(Tally) as tally:
        with trio.move_on_after(0.01) as scope:
            await tally.ask(Doze(0.03))
        assert scope.cancelled_caught
        assert await tally.ask(Get("x")) == 0


async def test_told_messages_with_expected_errors_are_counted_not_fatal(
    autojump_clock: MockClock,
) -> None:
    async with open_actor(Deferring) as address:
        address.tell(Work("raise"))
        assert await address.ask(Work("it")) == "did it"
        assert address.n_refused == 1


async def test_told_messages_reach_deferring_and_async_handlers(autojump_clock: MockClock) -> None:
    async with open_actor(Tally) as tally:
        tally.tell(Add(5))
        tally.tell(Wait())
        tally.tell(Refuse("nobody listens"))
        assert await tally.ask(Release()) == 0
        assert await tally.ask(Get("x")) == 5
        assert tally.n_refused == 1


async def test_told_messages_lost_in_a_crash_are_counted(autojump_clock: MockClock) -> None:
    async with open_actor(Tally) as tally:
        tally.tell(Bug())
        tally.tell(Add())
        tally.tell(Add())
        await tally.stopped()
        assert tally.n_lost == 2


async def test_finish_ends_after_the_message_in_progress_and_fails_those_behind(
    autojump_clock: MockClock,
) -> None:
    callers = Callers()
    async with open_actor(Tally) as tally, trio.open_nursery() as nursery:
        nursery.start_soon(callers.ask, tally, Doze(0.01))
        await wait_all_tasks_blocked()
        nursery.start_soon(callers.ask, tally, Finish())
        await wait_all_tasks_blocked()
        nursery.start_soon(callers.ask, tally, Get("x"))
    assert callers.outcomes[:2] == ["awake", None]
    assert isinstance(callers.outcomes[2], ActorStopped)


async def test_a_message_without_a_handler_is_the_senders_mistake(
    autojump_clock: MockClock,
) -> None:
    async with open_actor(Tally) as tally:
        with pytest.raises(TypeError, match="no handler for Unhandled"):
            await tally.ask(Unhandled())
        with pytest.raises(TypeError, match="no handler for Unhandled"):
            tally.tell(Unhandled())
        with pytest.raises(TypeError, match="stream take a StreamMessage"):
            tally.stream(Get("x"))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="ask and tell take a Message"):
            await tally.ask(Count(1))  # type: ignore[arg-type]
        assert tally.is_running


async def test_handlers_of_base_messages_take_derived_ones(autojump_clock: MockClock) -> None:
    recorder = Recorder({Get: 7, Add: lambda msg: msg.count * 2, Refuse: ModelNotFound("no")})
    async with open_actor(lambda: recorder) as address:
        assert await address.ask(Get("x")) == 7
        assert await address.ask(Add(4)) == 8
        with pytest.raises(ModelNotFound):
            await address.ask(Refuse("x"))
        address.tell(Unhandled())
        assert await address.ask(Wait()) is None
    assert recorder.messages == [Get("x"), Add(4), Refuse("x"), Unhandled(), Wait()]


async def test_an_overriding_method_handles_without_being_decorated_again(
    autojump_clock: MockClock,
) -> None:
    class Ten(Tally):
        def on_get(self, msg: Get) -> int:
            return 10

    async with open_actor(Ten) as ten:
        assert await ten.ask(Get("x")) == 10


async def test_a_flooded_actor_lets_others_run(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    order: list[int] = []

    async def watch() -> None:
        while len(order) < 3:
            order.append(len(recorder.messages))
            await trio.lowlevel.checkpoint()

    async with open_actor(lambda: recorder) as address:
        for _ in range(1024):
            address.tell(Unhandled())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
    assert order[-1] < 1024


@pytest.mark.parametrize(
    "body",
    [
        "async def on_count(self, msg): ...",
        "def on_count(self, msg, out): ...",
    ],
)
def test_a_stream_handler_of_the_wrong_shape_is_refused_when_the_class_is_made(body: str) -> None:
    from olm.actors.runtime import streams

    namespace: dict[str, object] = {}
    exec(body, namespace)
    with pytest.raises(TypeError, match="to stream"):
        type("Wrong", (Actor,), {"on_count": streams(Count)(namespace["on_count"])})  # type: ignore[arg-type]


def test_a_handler_of_the_wrong_shape_is_refused_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match="must take"):

        class Wrong(Actor):
            @handles(Get)
            def on_get(self, msg: Get, more: int) -> int:
                return 1


def test_only_messages_can_be_handled() -> None:
    with pytest.raises(TypeError, match="wants a subclass of Message"):
        handles(int)  # type: ignore[arg-type]


async def test_the_repr_says_who_and_how(autojump_clock: MockClock) -> None:
    async with open_actor(Tally) as tally:
        assert repr(tally) == "<Address test/alone running>"
        assert tally.state.value == "running"
        assert tally.mailbox_size == 4
