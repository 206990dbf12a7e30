"""Actors that the runtime's tests share; child processes import this module too."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time

import msgspec
import trio

from olm.actors.runtime import (
    Actor,
    Message,
    Reply,
    StreamMessage,
    StreamSink,
    handles,
    streams,
)
from olm.errors import ModelNotFound


class Get(Message[int], frozen=True):
    key: str


class Add(Message[int], frozen=True):
    count: int = 1


class Refuse(Message[None], frozen=True):
    text: str


class Bug(Message[None], frozen=True):
    text: str = "bug"


class Wait(Message[str], frozen=True):
    """Answered when `Release` comes, or never."""


class Release(Message[int], frozen=True):
    """Answer all that wait; the reply is how many had left."""


class Finish(Message[None], frozen=True):
    pass


class Doze(Message[str], frozen=True):
    for_s: float


class Count(StreamMessage[int], frozen=True):
    until: int
    fail: str = ""


class Forever(StreamMessage[int], frozen=True):
    pass


class Log(Message[list[str]], frozen=True):
    pass


class Config(msgspec.Struct):
    base: int = 0
    fail: str = ""


class Tally(Actor):
    """Counts; its handlers cover every way to answer."""

    mailbox_size = 4

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self.total = self.config.base
        self.waiting: list[Reply[str]] = []
        self.log: list[str] = []

    async def start(self) -> None:
        if self.config.fail == "refuse":
            raise ModelNotFound("not here", status=404)
        if self.config.fail == "bug":
            raise ValueError("cannot start")
        if self.config.fail == "hang":
            await trio.sleep_forever()

    async def stop(self) -> None:
        await trio.lowlevel.checkpoint()

    @handles(Get)
    def on_get(self, msg: Get) -> int:
        return self.total

    @handles(Add)
    async def on_add(self, msg: Add) -> int:
        self.total += msg.count
        return self.total

    @handles(Refuse)
    def on_refuse(self, msg: Refuse) -> None:
        raise ModelNotFound(msg.text, kind="test")

    @handles(Bug)
    def on_bug(self, msg: Bug) -> None:
        raise ValueError(msg.text)

    @handles(Wait)
    def on_wait(self, msg: Wait, reply: Reply[str]) -> None:
        self.waiting.append(reply)

    @handles(Release)
    def on_release(self, msg: Release) -> int:
        waiting, self.waiting = self.waiting, []
        n_left = sum(reply.abandoned for reply in waiting)
        for reply in waiting:
            reply.send("released")
        return n_left

    @handles(Finish)
    def on_finish(self, msg: Finish) -> None:
        self.finish()

    @handles(Doze)
    async def on_doze(self, msg: Doze) -> str:
        await trio.sleep(msg.for_s)
        return "awake"

    @handles(Log)
    def on_log(self, msg: Log) -> list[str]:
        return self.log

    @streams(Count)
    async def on_count(self, msg: Count, out: StreamSink[int]) -> None:
        for number in range(msg.until):
            await out.send(number)
        if msg.fail == "refuse":
            raise ModelNotFound("no more")
        if msg.fail:
            raise ValueError(msg.fail)

    @streams(Forever)
    async def on_forever(self, msg: Forever, out: StreamSink[int]) -> None:
        self.log.append("begun")
        number = 0
        try:
            while True:
                await out.send(number)
                number += 1
        finally:
            self.log.append("ended")


class Work(Message[str], frozen=True):
    kind: str


class Deferring(Actor):
    def __init__(self) -> None:
        self.log: list[str] = []

    @handles(Work)
    async def on_work(self, msg: Work, reply: Reply[str]) -> None:
        if msg.kind == "drop":
            return
        if msg.kind == "twice":
            reply.send("one")
            assert reply.settled
            try:
                reply.send("two")
            except RuntimeError as exc:
                self.log.append(str(exc))
            return
        if msg.kind == "fail":
            reply.fail(ModelNotFound("later"))
            return
        if msg.kind == "raise":
            raise ModelNotFound("in the handler")
        self.nursery.start_soon(reply.run, self._work, msg)

    async def _work(self, msg: Work) -> str:
        if msg.kind == "refuse":
            raise ModelNotFound("in the task")
        if msg.kind == "bug":
            raise ValueError("in the task")
        if msg.kind == "long":
            try:
                await trio.sleep_forever()
            finally:
                self.log.append("cancelled")
        return f"did {msg.kind}"


# -- only for child processes ----------------------------------------------------------------------------------------------


class Die(Message[None], frozen=True):
    how: str


class Facts(Message[dict[str, str]], frozen=True):
    pass


class Cat(msgspec.Struct, tag="cat"):
    lives: int


class Dog(msgspec.Struct, tag="dog"):
    name: str


class Pick(Message[Cat | Dog], frozen=True):
    which: str


class Echo(Message[bytes], frozen=True):
    data: bytes


class Make(Message[bytes], frozen=True):
    size: int


class Wrong(Message[int], frozen=True):
    """The reply is no int, which the parent must not believe."""


class Pets(StreamMessage[Cat | Dog], frozen=True):
    pass


class Unhandled(Message[None], frozen=True):
    pass


class Victim(Tally):
    """Dies in many ways, in a process of its own."""

    @handles(Die)
    def on_die(self, msg: Die) -> None:
        print(f"dying by {msg.how}", file=sys.stderr, flush=True)
        if msg.how == "segv":
            ctypes.string_at(0)
        elif msg.how == "abort":
            os.abort()
        elif msg.how == "exit":
            os._exit(7)
        elif msg.how == "hang":
            time.sleep(60)
        elif msg.how == "thread":
            threading.Thread(target=time.sleep, args=(60,)).start()
            self.finish()
        else:
            os.kill(os.getpid(), int(msg.how))

    @handles(Facts)
    def on_facts(self, msg: Facts) -> dict[str, str]:
        limits = open("/proc/self/limits").read()  # noqa: SIM115
        return {
            "pid": str(os.getpid()),
            "cwd": os.getcwd(),
            "core": next(line for line in limits.splitlines() if "core" in line),
            "files": next(line for line in limits.splitlines() if "open files" in line),
            "nice": str(os.getpriority(os.PRIO_PROCESS, 0)),
            "env": os.environ.get("RUNTIME_TEST", ""),
            "home": os.environ.get("HOME", ""),
            "fds": " ".join(sorted(os.listdir("/proc/self/fd"))),
            "modules": " ".join(sorted(sys.modules)),
            "name": self.name,
            "title": open("/proc/self/cmdline").read().split("\0")[-2],
        }

    @handles(Pick)
    def on_pick(self, msg: Pick) -> Cat | Dog:
        return Cat(9) if msg.which == "cat" else Dog("Rex")

    @handles(Echo)
    def on_echo(self, msg: Echo) -> bytes:
        return msg.data

    @handles(Make)
    def on_make(self, msg: Make) -> bytes:
        return bytes(msg.size)

    @handles(Wrong)
    def on_wrong(self, msg: Wrong) -> object:
        return "eleven"

    @streams(Pets)
    async def on_pets(self, msg: Pets, out: StreamSink[Cat | Dog]) -> None:
        await out.send(Cat(7))
        await out.send(Dog("Bo"))


class Stubborn(Actor):
    """Ignores being asked to stop, as far down the ladder as it is told to."""

    def __init__(self, config: Config) -> None:
        self.config = config

    async def stop(self) -> None:
        with trio.CancelScope(shield=True):
            if self.config.fail == "block":
                time.sleep(60)
            await trio.sleep(60)

    @handles(Get)
    def on_get(self, msg: Get) -> int:
        return os.getpid()
