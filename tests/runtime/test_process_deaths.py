"""How process actors die, stop, and fail to start; who learns what."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
import trio

from olm.actors.runtime import (
    ActorStopped,
    ChildSpec,
    Crashed,
    Killed,
    Normal,
    ProcessOptions,
    RemoteCrash,
    Shutdown,
    open_supervisor,
    process_actor,
)
from olm.actors.runtime.testing import Callers
from olm.errors import ModelNotFound
from runtime.runtime_actors import (
    Add,
    Bug,
    Config,
    Count,
    Die,
    Doze,
    Facts,
    Finish,
    Forever,
    Get,
    Wait,
)
from runtime.runtime_children import (
    POLICY,
    STUBBORN,
    VICTIM,
    children_of_this_process,
    is_alive,
    open_victim,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("how", "name", "words"),
    [
        (str(int(signal.SIGKILL)), "SIGKILL", "dying by 9"),
        ("segv", "SIGSEGV", "Segmentation fault"),
        ("abort", "SIGABRT", "Aborted"),
    ],
)
async def test_a_killed_process_answers_everybody_at_once(how: str, name: str, words: str) -> None:
    callers = Callers()
    async with open_victim() as (_, victim):
        pid = int((await victim.ask(Facts()))["pid"])
        async with victim.stream(Forever()) as items, trio.open_nursery() as nursery:
            await anext(items)
            nursery.start_soon(callers.ask, victim, Wait())
            await victim.ask(Get("x"))
            victim.tell(Die(how))
            for _ in range(3):
                nursery.start_soon(callers.ask, victim, Get("x"))
            with trio.fail_after(10):
                exit_ = await victim.stopped()
            items.drain()
            with pytest.raises(ActorStopped, match=name):
                await anext(items)
        with pytest.raises(ActorStopped, match=name):
            await victim.ask(Get("x"))
    callers.assert_one_outcome()
    errors = [found for found in callers.outcomes if isinstance(found, ActorStopped)]
    assert len(errors) == 4
    assert all(name in str(error) for error in errors)
    assert isinstance(exit_, Killed)
    assert exit_.signal == name
    assert words in exit_.report
    assert not is_alive(pid)


async def test_an_exit_status_is_a_crash_with_the_report() -> None:
    async with open_victim() as (_, victim):
        with pytest.raises(
            ActorStopped, match="exited with status 7; its last words: dying by exit"
        ):
            await victim.ask(Die("exit"))
        exit_ = await victim.stopped()
    assert isinstance(exit_, Crashed)


async def test_a_bug_in_the_child_crosses_with_its_traceback() -> None:
    async with open_victim() as (_, victim):
        with pytest.raises(ActorStopped, match="ValueError: broken") as caught:
            await victim.ask(Bug("broken"))
        cause = caught.value.__cause__
        assert isinstance(cause, RemoteCrash)
        assert "on_bug" in cause.remote_traceback


async def test_a_bug_in_a_stream_handler_ends_the_child() -> None:
    async with open_victim() as (_, victim), victim.stream(Count(2, fail="oops")) as items:
        assert [await anext(items) for _ in range(2)] == [0, 1]
        with pytest.raises(ActorStopped, match="ValueError: oops"):
            await anext(items)


async def test_a_process_actor_is_restarted_behind_its_address() -> None:
    async with open_supervisor("root", policy=POLICY) as root:
        factory = process_actor(VICTIM, config=Config(base=1))
        victim = await root.start_child(ChildSpec("victim", factory))
        first = (await victim.ask(Facts()))["pid"]
        await victim.ask(Add(1))
        with pytest.raises(ActorStopped):
            await victim.ask(Die("9"))
        assert await victim.ask(Get("x"), wait_for_restart=True) == 1
        assert (await victim.ask(Facts()))["pid"] != first


async def test_a_loop_that_hangs_is_killed_with_its_stacks_as_the_report() -> None:
    async with open_victim(ProcessOptions(heartbeat_s=1.0)) as (_, victim):
        with trio.fail_after(20):
            with pytest.raises(ActorStopped, match=r"silent for 1 s"):
                await victim.ask(Die("hang"))
        exit_ = await victim.stopped()
    assert isinstance(exit_, Crashed)
    assert "on_die" in exit_.report


async def test_a_long_message_is_no_hang() -> None:
    async with open_victim(ProcessOptions(heartbeat_s=1.0)) as (_, victim):
        assert await victim.ask(Doze(1.5)) == "awake"


async def test_an_actor_that_finishes_ends_its_process_and_is_a_normal_exit() -> None:
    async with open_victim() as (_, victim):
        pid = int((await victim.ask(Facts()))["pid"])
        await victim.ask(Finish())
        assert await victim.stopped() == Normal()
        assert not is_alive(pid)


async def test_a_thread_left_behind_does_not_keep_the_process() -> None:
    async with open_victim() as (_, victim):
        pid = int((await victim.ask(Facts()))["pid"])
        with trio.fail_after(20):
            await victim.ask(Die("thread"))
            assert await victim.stopped() == Normal()
        assert not is_alive(pid)


async def test_stopping_lets_the_message_in_progress_end() -> None:
    callers = Callers()
    async with open_victim() as (root, victim), trio.open_nursery() as nursery:
        pid = int((await victim.ask(Facts()))["pid"])
        nursery.start_soon(callers.ask, victim, Doze(0.3))
        nursery.start_soon(callers.ask, victim, Wait())
        await trio.sleep(0.1)
        assert await root.stop_child("victim", "enough") == Shutdown("enough")
        assert not is_alive(pid)
    callers.assert_one_outcome()
    assert {type(found) for found in callers.outcomes} == {str, ActorStopped}


@pytest.mark.parametrize("fail", ["", "block"])
async def test_the_ladder_ends_a_process_that_does_not_want_to(fail: str) -> None:
    async with open_supervisor("root") as root:
        factory = process_actor(STUBBORN, config=Config(fail=fail))
        address = await root.start_child(ChildSpec("s", factory, "temporary", stop_within_s=1.0))
        pid = await address.ask(Get("pid"))
        with trio.fail_after(10):
            await root.stop_child("s")
    assert not is_alive(pid)


@pytest.mark.parametrize(
    ("fail", "error", "words"),
    [("refuse", ModelNotFound, "not here"), ("bug", RemoteCrash, "ValueError: cannot start")],
)
async def test_a_failing_start_raises_at_the_starter(
    fail: str, error: type[Exception], words: str
) -> None:
    async with open_supervisor("root") as root:
        factory = process_actor(VICTIM, config=Config(fail=fail))
        with pytest.raises(error, match=words):
            await root.start_child(ChildSpec("victim", factory))


async def test_a_cancelled_start_kills_the_process() -> None:
    async with open_supervisor("root") as root:
        factory = process_actor(VICTIM, config=Config(fail="hang"))
        before = set(children_of_this_process())
        with trio.move_on_after(0.5) as scope:
            await root.start_child(ChildSpec("victim", factory))
        assert scope.cancelled_caught
        assert set(children_of_this_process()) <= before


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("runtime.nowhere:Actor", "No module named 'runtime.nowhere'"),
        ("runtime.runtime_actors:Nobody", "no attribute 'Nobody'"),
        ("runtime.runtime_actors:Config", "not a subclass of Actor"),
        ("olm.actors.runtime:Actor", "annotate the first parameter"),
    ],
)
async def test_a_target_that_is_none_is_told(target: str, words: str) -> None:
    async with open_supervisor("root") as root:
        with pytest.raises(RemoteCrash, match=words):
            await root.start_child(ChildSpec("a", process_actor(target, config=Config())))


async def test_an_interpreter_that_is_none_is_told() -> None:
    options = ProcessOptions(python="/nonexistent/python")
    async with open_supervisor("root") as root:
        with pytest.raises(FileNotFoundError):
            await root.start_child(ChildSpec("a", process_actor(VICTIM, options=options)))


PARENT = """
import sys, trio
sys.path[:0] = {path!r}
from runtime.runtime_actors import Config, Die, Facts
from olm.actors.runtime import ChildSpec, open_supervisor, process_actor

async def main():
    async with open_supervisor("root") as root:
        actor = process_actor("runtime.runtime_actors:Victim", config=Config())
        victim = await root.start_child(ChildSpec("victim", actor))
        pid = (await victim.ask(Facts()))["pid"]
        if {hang}:
            victim.tell(Die("hang"))
            await trio.sleep(0.2)
        print(pid, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.parametrize("hang", [False, True])
def test_children_die_with_a_parent_that_is_killed(hang: bool) -> None:
    script = PARENT.format(path=[entry for entry in sys.path if entry], hang=hang)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
        parent.wait()
    deadline_s = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert not is_alive(pid)
