"""The spare process."""

from __future__ import annotations

import os
import signal

import pytest
import trio

from olm.actors.runtime import (
    ChildSpec,
    ProcessOptions,
    SpareProcess,
    open_supervisor,
    process_actor,
)
from runtime.runtime_actors import (
    Config,
    Facts,
    Get,
)
from runtime.runtime_children import (
    POLICY,
    VICTIM,
    children_of_this_process,
    is_alive,
)

pytestmark = pytest.mark.slow


async def _is_ready(spare: SpareProcess) -> None:
    with trio.fail_after(20):
        while not spare.is_ready:
            await trio.sleep(0.01)


async def test_a_spare_becomes_the_next_process_actor_and_is_replaced() -> None:
    options = ProcessOptions(env={"RUNTIME_TEST": "spare"})
    pool = SpareProcess("runtime.runtime_actors", options, refill_delay_s=0.0)
    others = set(children_of_this_process())  # a daemon that other tests share may be among them
    seen = set(others)
    async with open_supervisor("root", policy=POLICY) as root:
        spare = await root.start_child(ChildSpec("spare", lambda: pool))
        for number in range(2):
            await _is_ready(pool)
            (ready,) = set(children_of_this_process()) - seen
            seen.add(ready)
            factory = process_actor(
                VICTIM, config=Config(base=number), options=options, spare=spare
            )
            victim = await root.start_child(ChildSpec(f"v{number}", factory))
            facts = await victim.ask(Facts())
            assert int(facts["pid"]) == ready
            assert facts["env"] == "spare"
            assert await victim.ask(Get("x")) == number
        await _is_ready(pool)
    assert set(children_of_this_process()) <= others


async def test_a_spare_with_other_options_is_not_used() -> None:
    pool = SpareProcess("runtime.runtime_actors", ProcessOptions(nice=1))
    async with open_supervisor("root", policy=POLICY) as root:
        spare = await root.start_child(ChildSpec("spare", lambda: pool))
        await _is_ready(pool)
        factory = process_actor(VICTIM, config=Config(), spare=spare)
        victim = await root.start_child(ChildSpec("victim", factory))
        assert await victim.ask(Get("x")) == 0
        assert pool.is_ready


async def test_without_a_spare_actors_start_cold() -> None:
    pool = SpareProcess("runtime.nowhere")
    async with open_supervisor("root", policy=POLICY) as root:
        spare = await root.start_child(ChildSpec("spare", lambda: pool))
        factory = process_actor(VICTIM, config=Config(), spare=spare)
        victim = await root.start_child(ChildSpec("victim", factory))
        assert await victim.ask(Get("x")) == 0
        await root.stop_child("spare")
        other = await root.start_child(ChildSpec("other", factory))
        assert await other.ask(Get("x")) == 0


async def test_late_variables_reach_a_spare_that_started_without_them() -> None:
    """Libraries that the actor's module loads find them, whoever started the process."""
    pool = SpareProcess("olm.errors")
    async with open_supervisor("root", policy=POLICY) as root:
        spare = await root.start_child(ChildSpec("spare", lambda: pool))
        await _is_ready(pool)
        options = ProcessOptions(late_env={"RUNTIME_TEST": "late"})
        factory = process_actor(VICTIM, config=Config(), options=options, spare=spare)
        victim = await root.start_child(ChildSpec("victim", factory))
        facts = await victim.ask(Facts())

    assert facts["env"] == "late"


async def test_a_dead_spare_is_replaced_and_not_handed_out() -> None:
    pool = SpareProcess("runtime.runtime_actors")
    others = set(children_of_this_process())
    async with open_supervisor("root", policy=POLICY) as root:
        spare = await root.start_child(ChildSpec("spare", lambda: pool))
        await _is_ready(pool)
        (pid,) = set(children_of_this_process()) - others
        os.kill(pid, signal.SIGKILL)
        while is_alive(pid):
            await trio.sleep(0.001)
        factory = process_actor(VICTIM, config=Config(), spare=spare)
        victim = await root.start_child(ChildSpec("victim", factory))
        assert int((await victim.ask(Facts()))["pid"]) != pid
        assert root.tree().children[0].n_restarts == 0
