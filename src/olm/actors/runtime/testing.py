"""A kit for tests of actors: an actor alone, one that records, crashes where you want them, and callers that are counted.

Runs under trio's `autojump_clock`, except for process actors, which need real time. Production code does not import it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Literal, TypeVar

import trio

from olm.actors.runtime._actor import Actor
from olm.actors.runtime._address import Address
from olm.actors.runtime._messages import Handler, Message, Mode, StreamMessage, handles
from olm.actors.runtime._policy import Restart, RestartPolicy
from olm.actors.runtime._specs import ChildSpec
from olm.actors.runtime._supervisor import open_supervisor
from olm.errors import OlmError

__all__ = ["Callers", "CrashPoint", "CrashPoints", "InjectedCrash", "Recorder", "open_actor"]

A = TypeVar("A", bound=Actor)
CrashPoint = Literal["make", "start", "handle", "reply", "stream", "stop"]


@asynccontextmanager
async def open_actor(
    factory: Callable[[], Actor],
    *,
    name: str = "alone",
    restart: Restart = "temporary",
    policy: RestartPolicy = RestartPolicy(),  # noqa: B008 # a frozen value
    stop_within_s: float = 5.0,
) -> AsyncIterator[Address]:
    """Run one actor under a supervisor of its own and yield its address. Raises as `open_supervisor` does."""
    async with open_supervisor("test", policy=policy) as supervisor:
        yield await supervisor.start_child(ChildSpec(name, factory, restart, stop_within_s))


class Recorder(Actor):
    """Take any message, keep it in `messages`, and answer from a table. Give it as `lambda: recorder`."""

    mailbox_size = 1024

    def __init__(self, replies: Mapping[type, object] | None = None) -> None:
        """Prepare.

        Args:
            replies: by message type, what to answer: a value, an `OlmError` to raise, or a function of the message.
                None for types that are not there.
        """
        self.messages: list[Message[object]] = []
        self._replies = dict(replies or {})

    @handles(Message)
    def _on_any(self, msg: Message[object]) -> object:
        self.messages.append(msg)
        reply = self._replies.get(type(msg))
        if callable(reply):
            reply = reply(msg)
        if isinstance(reply, OlmError):
            raise reply
        return reply


class InjectedCrash(Exception):
    """The crash that `CrashPoints` makes."""


class CrashPoints:
    """Crash an actor at chosen points of its life: while it is made, in `start`, before a handler, after it but before
    the reply, in a stream, in `stop`.

    `arm` sets how many of the next passages crash; `n_passed` counts passages.
    """

    def __init__(self) -> None:
        self._armed: Counter[CrashPoint] = Counter()
        self.n_passed: Counter[CrashPoint] = Counter()

    def arm(self, point: CrashPoint, times: int = 1) -> None:
        """Crash at the next passages of a point."""
        self._armed[point] += times

    def pass_by(self, point: CrashPoint) -> None:
        """Count a passage; raise `InjectedCrash` if the point is armed."""
        self.n_passed[point] += 1
        if self._armed[point] > 0:
            self._armed[point] -= 1
            raise InjectedCrash(point)

    def wrap(self, cls: type[A], make: Callable[[type[A]], A] | None = None) -> Callable[[], A]:
        """Make a factory of actors of a subclass of `cls` with the points built in. `make` calls its constructor."""
        points = self

        async def start(actor: A) -> None:
            points.pass_by("start")
            await cls.start(actor)

        async def stop(actor: A) -> None:
            points.pass_by("stop")
            await cls.stop(actor)

        namespace = {
            "start": start,
            "stop": stop,
            "handler_table": {k: self._wrap_handler(v) for k, v in cls.handler_table.items()},
            "stream_table": {k: self._wrap_handler(v) for k, v in cls.stream_table.items()},
        }
        crashing: type[A] = type(f"Crashing{cls.__name__}", (cls,), namespace)

        def factory() -> A:
            points.pass_by("make")
            return crashing() if make is None else make(crashing)

        return factory

    def _wrap_handler(self, handler: Handler) -> Handler:
        function, mode = handler
        if mode is Mode.STREAM:

            async def stream(actor: Actor, msg: StreamMessage[object], out: object) -> None:
                self.pass_by("stream")
                await function(actor, msg, out)  # type: ignore[misc] # a coroutine function under this mode

            return Handler(stream, mode)
        if mode in (Mode.ASYNC, Mode.ASYNC_DEFERRED):

            async def handle(actor: Actor, *args: object) -> object:
                self.pass_by("handle")
                result = await function(actor, *args)  # type: ignore[misc] # as above
                self.pass_by("reply")
                return result

            return Handler(handle, mode)

        def handle_sync(actor: Actor, *args: object) -> object:
            self.pass_by("handle")
            result = function(actor, *args)
            self.pass_by("reply")
            return result

        return Handler(handle_sync, mode)


class Callers:
    """Callers whose outcomes are kept, to assert that each got exactly one. Outcomes: a value, an error, or "left"."""

    def __init__(self) -> None:
        self._outcomes: list[list[object]] = []

    @property
    def n_asked(self) -> int:
        """How many have begun to ask."""
        return len(self._outcomes)

    @property
    def outcomes(self) -> list[object]:
        """The outcomes up to now, in the order of asking; callers without one are left out."""
        return [outcome for outcomes in self._outcomes for outcome in outcomes]

    async def ask(self, address: Address, message: Message[object]) -> None:
        """Ask and keep the outcome; for `nursery.start_soon`. Errors other than `OlmError` and TypeError are raised."""
        mine: list[object] = []
        self._outcomes.append(mine)
        try:
            mine.append(await address.ask(message))
        except (OlmError, TypeError) as exc:
            mine.append(exc)
        except trio.Cancelled:
            mine.append("left")
            raise

    def assert_one_outcome(self) -> None:
        """Raise AssertionError unless every caller has exactly one outcome."""
        wrong = {index: found for index, found in enumerate(self._outcomes) if len(found) != 1}
        assert not wrong, f"callers without exactly one outcome: {wrong}"
