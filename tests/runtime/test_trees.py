"""Supervisors below supervisors, looking up, describing, monitoring."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from olm.actors.runtime import (
    ActorStopped,
    ChildSpec,
    Crashed,
    Normal,
    RestartPolicy,
    SupervisorSpec,
    TooManyRestarts,
    open_supervisor,
)
from olm.actors.runtime.testing import open_actor
from olm.errors import ActorError
from runtime.runtime_actors import (
    Add,
    Bug,
    Finish,
    Get,
    Tally,
)
from runtime.runtime_diary import POLICY, Diary, crash


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
