"""Process actors with real child processes: the same semantics, and deaths of every kind."""

from __future__ import annotations

import logging
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from olm.actors.runtime import (
    ActorStopped,
    Address,
    ChildSpec,
    Crashed,
    Killed,
    MailboxFull,
    Normal,
    ProcessOptions,
    RemoteCrash,
    RestartPolicy,
    Shutdown,
    SpareProcess,
    Supervisor,
    open_supervisor,
    process_actor,
)
from olm.actors.runtime.testing import Callers
from olm.errors import ActorError, ModelNotFound
from runtime.runtime_actors import (
    Add,
    Bug,
    Cat,
    Config,
    Count,
    Die,
    Dog,
    Doze,
    Echo,
    Facts,
    Finish,
    Forever,
    Get,
    Log,
    Make,
    Pets,
    Pick,
    Refuse,
    Release,
    Unhandled,
    Wait,
    Wrong,
)

pytestmark = pytest.mark.slow

VICTIM = "runtime.runtime_actors:Victim"
STUBBORN = "runtime.runtime_actors:Stubborn"
POLICY = RestartPolicy(max_restarts=10, period_s=60)


@asynccontextmanager
async def open_victim(
    options: ProcessOptions | None = None, config: Config | None = None
) -> AsyncIterator[tuple[Supervisor, Address]]:
    async with open_supervisor("root", policy=POLICY) as root:
        factory = process_actor(VICTIM, config=config or Config(), options=options)
        yield root, await root.start_child(ChildSpec("victim", factory, "temporary"))


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_process_actor_answers_like_any_other() -> None:
    async with open_victim(config=Config(base=5)) as (_, victim):
        assert await victim.ask(Get("x")) == 5
        victim.tell(Add(2))
        assert await victim.ask(Add(3)) == 10
        with pytest.raises(ModelNotFound, match="not here") as caught:
            await victim.ask(Refuse("not here"))
        assert caught.value.details == {"kind": "test"}
        assert await victim.ask(Pick("cat")) == Cat(9)
        assert await victim.ask(Pick("dog")) == Dog("Rex")
        assert await victim.ask(Log()) == []
        async with trio.open_nursery() as nursery:
            callers = Callers()
            nursery.start_soon(callers.ask, victim, Wait())
            assert await victim.ask(Get("x")) == 10
            while not callers.outcomes:
                await victim.ask(Release())
        assert callers.outcomes == ["released"]


async def test_streams_of_typed_items_come_in_order_and_end() -> None:
    async with open_victim() as (_, victim):
        async with victim.stream(Pets()) as pets:
            assert [pet async for pet in pets] == [Cat(7), Dog("Bo")]
        async with victim.stream(Count(10_000)) as items:
            assert [item async for item in items] == list(range(10_000))
        async with victim.stream(Count(3, fail="refuse")) as items:
            assert [await anext(items) for _ in range(3)] == [0, 1, 2]
            with pytest.raises(ModelNotFound, match="no more"):
                await anext(items)


async def test_a_slow_consumer_stalls_only_its_own_stream() -> None:
    async with open_victim() as (_, victim), victim.stream(Forever()) as slow:
        assert await anext(slow) == 0
        async with victim.stream(Count(1000)) as quick:
            assert len([item async for item in quick]) == 1000
        waiting = slow.drain()
        assert len(waiting) <= slow.window == 64
        assert await anext(slow) == waiting[-1] + 1


async def test_leaving_a_stream_cancels_its_producer_in_the_child() -> None:
    async with open_victim() as (_, victim):
        async with victim.stream(Forever()) as items:
            assert await anext(items) == 0
        with trio.fail_after(10):
            while await victim.ask(Log()) != ["begun", "ended"]:
                await trio.sleep(0.01)


async def test_a_caller_that_leaves_is_noted_in_the_child() -> None:
    async with open_victim() as (_, victim):
        with trio.move_on_after(0.05):
            await victim.ask(Wait())
        assert await victim.ask(Release()) == 1


async def test_the_process_is_set_up_as_the_options_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    options = ProcessOptions(
        env={"RUNTIME_TEST": "yes"},
        inherit_env=False,
        nice=3,
        rlimits={resource.RLIMIT_NOFILE: (100, 200)},
        title="olm worker: tiny",
    )
    inheritable = os.dup2(0, 77, inheritable=True)
    try:
        async with open_victim(options) as (_, victim):
            facts = await victim.ask(Facts())
    finally:
        os.close(inheritable)
    assert facts["env"] == "yes"
    assert facts["home"] == ""
    assert facts["cwd"] == "/"
    assert facts["core"].split()[4:6] == ["0", "0"]
    assert facts["files"].split()[3:5] == ["100", "200"]
    assert int(facts["nice"]) == os.getpriority(os.PRIO_PROCESS, 0) + 3
    assert facts["title"] == "olm worker: tiny"
    assert facts["name"] == "root/victim"
    assert "77" not in facts["fds"].split()
    for heavy in ("numpy", "quart", "hypercorn", "click", "cffi", "pytest"):
        assert heavy not in facts["modules"].split()


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
        before = set(_children())
        with trio.move_on_after(0.5) as scope:
            await root.start_child(ChildSpec("victim", factory))
        assert scope.cancelled_caught
        assert set(_children()) <= before


def _children() -> list[int]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [pid for pid in map(int, text.split()) if is_alive(pid)]


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


async def test_a_message_the_child_does_not_know_costs_only_its_sender() -> None:
    async with open_victim() as (_, victim):
        with pytest.raises(TypeError, match="no handler for Unhandled"):
            await victim.ask(Unhandled())
        victim.tell(Unhandled())
        assert await victim.ask(Get("x")) == 0
        assert victim.n_refused == 1


async def test_what_does_not_fit_a_frame_costs_only_its_sender() -> None:
    async with open_victim(ProcessOptions(max_frame_bytes=200_000)) as (_, victim):
        assert await victim.ask(Echo(b"x" * 100_000)) == b"x" * 100_000
        with pytest.raises(ActorError, match="does not fit a frame of 200000 bytes"):
            await victim.ask(Echo(b"x" * 300_000))
        with pytest.raises(ActorError, match="does not fit a frame"):
            await victim.ask(Make(300_000))
        assert await victim.ask(Get("x")) == 0


async def test_big_messages_go_through_in_pieces() -> None:
    data = os.urandom(5_000_000)
    async with open_victim() as (_, victim):
        assert await victim.ask(Echo(data)) == data


async def test_a_reply_of_the_wrong_type_is_not_believed() -> None:
    async with open_victim() as (_, victim):
        with pytest.raises(ActorStopped, match="does not decode"):
            await victim.ask(Wrong())


async def test_the_mailbox_of_a_process_actor_is_bounded() -> None:
    async with open_victim() as (_, victim):
        victim.tell(Doze(0.2))
        with pytest.raises(MailboxFull):  # noqa: PT012 # how many fit depends on how far the forwarding got
            for _ in range(1000):
                victim.tell(Add())
                await trio.lowlevel.checkpoint()
        n_accepted = await victim.ask(Get("x"))
        assert 64 <= n_accepted <= 64 + 4 + 1


async def test_many_callers_at_once_all_get_their_own_answer() -> None:
    async with open_victim() as (_, victim):
        answers: list[bytes] = []

        async def ask(number: int) -> None:
            data = str(number).encode()
            assert await victim.ask(Echo(data)) == data
            answers.append(data)

        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(ask, number)
        assert len(set(answers)) == 500


async def test_output_is_logged_line_by_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="olm.actors.process"):
        async with open_victim() as (_, victim):
            with pytest.raises(ActorStopped):
                await victim.ask(Die("exit"))
    lines = [record for record in caplog.records if record.getMessage() == "dying by exit"]
    assert [record.name for record in lines] == ["olm.actors.process.root.victim"]


async def test_ctrl_c_in_the_terminal_is_not_the_childs_business() -> None:
    async with open_victim() as (_, victim):
        pid = int((await victim.ask(Facts()))["pid"])
        assert os.getpgid(pid) != os.getpgid(0)
        os.kill(pid, signal.SIGINT)
        assert await victim.ask(Get("x")) == 0


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


# -- the spare ---------------------------------------------------------------------------------------------------------------


async def _is_ready(spare: SpareProcess) -> None:
    with trio.fail_after(20):
        while not spare.is_ready:
            await trio.sleep(0.01)


async def test_a_spare_becomes_the_next_process_actor_and_is_replaced() -> None:
    options = ProcessOptions(env={"RUNTIME_TEST": "spare"})
    pool = SpareProcess("runtime.runtime_actors", options, refill_delay_s=0.0)
    async with open_supervisor("root", policy=POLICY) as root:
        spare = await root.start_child(ChildSpec("spare", lambda: pool))
        for number in range(2):
            await _is_ready(pool)
            (ready,) = [pid for pid in _children() if _is_spare(pid, root)]
            factory = process_actor(
                VICTIM, config=Config(base=number), options=options, spare=spare
            )
            victim = await root.start_child(ChildSpec(f"v{number}", factory))
            facts = await victim.ask(Facts())
            assert int(facts["pid"]) == ready
            assert facts["env"] == "spare"
            assert await victim.ask(Get("x")) == number
        await _is_ready(pool)
    assert _children() == []


_taken: set[int] = set()


def _is_spare(pid: int, root: Supervisor) -> bool:
    if pid in _taken:
        return False
    _taken.add(pid)
    return True


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


async def test_a_dead_spare_is_replaced_and_not_handed_out() -> None:
    pool = SpareProcess("runtime.runtime_actors")
    async with open_supervisor("root", policy=POLICY) as root:
        spare = await root.start_child(ChildSpec("spare", lambda: pool))
        await _is_ready(pool)
        (pid,) = _children()
        os.kill(pid, signal.SIGKILL)
        while is_alive(pid):
            await trio.sleep(0.001)
        factory = process_actor(VICTIM, config=Config(), spare=spare)
        victim = await root.start_child(ChildSpec("victim", factory))
        assert int((await victim.ask(Facts()))["pid"]) != pid
        assert root.tree().children[0].n_restarts == 0
