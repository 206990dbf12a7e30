"""Process actors with real child processes: the same semantics as any actor, set-up, bounds."""

from __future__ import annotations

import logging
import os
import resource
import signal

import pytest
import trio

from olm.actors.runtime import (
    ActorStopped,
    MailboxFull,
    ProcessOptions,
)
from olm.actors.runtime.testing import Callers
from olm.errors import ActorError, ModelNotFound
from runtime.runtime_actors import (
    Add,
    Cat,
    Config,
    Count,
    Die,
    Dog,
    Doze,
    Echo,
    Facts,
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
from runtime.runtime_children import (
    open_victim,
)

pytestmark = pytest.mark.slow


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
