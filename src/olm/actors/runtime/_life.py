"""One life of an actor, from making it to the end of its last task: an incarnation.

Who starts another one after it is `_supervisor`. The same code runs an actor in a child process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import attrs
import trio

from olm.actors.runtime._actor import Actor
from olm.actors.runtime._address import Address
from olm.actors.runtime._exits import Crashed, Died, Exit, Shutdown, unwrap_single

__all__ = ["live"]

_log = logging.getLogger("olm.actors")


async def live(
    address: Address,
    factory: Callable[[], Actor],
    stop_within_s: float,
    started: Callable[[], None],
) -> Exit:
    """Live one incarnation and return how it ended. Callers have been answered when this returns.

    `stop_within_s` bounds the actor's `stop`. Cancel it through `address.nursery.cancel_scope`; from outside it also ends, with `stop` run under a shield.
    `started` is called once `start` is done.
    """
    try:
        actor = factory()
    except Exception as exc:
        return _end(address, Crashed(exc))
    actor.address, actor.name, actor.stop_within_s = address, address.name, stop_within_s
    address.open(type(actor))
    course = _Course()
    try:
        await _run(address, actor, course, started)
    except BaseException as exc:
        crash, rest = _split(exc)
        if rest is not None:
            await _wind_up(address, actor, course, Shutdown("cancelled"))
            _end(address, course.exit or Shutdown("cancelled"))
            raise rest from None
        course.note(crash)
    if not course.stopped:
        await _wind_up(address, actor, course, Shutdown("cancelled"))
    return _end(address, course.exit or address.ending or Shutdown("cancelled"))


@attrs.define
class _Course:
    """How far a life got."""

    exit: Exit | None = None
    has_started: bool = False
    stopped: bool = False

    def note(self, exc: BaseException | None) -> None:
        """Note a crash; the first is the cause, later ones are its consequences."""
        if exc is not None and self.exit is None:
            exc = unwrap_single(exc)
            self.exit = exc.exit if isinstance(exc, Died) else Crashed(exc)


async def _run(
    address: Address, actor: Actor, course: _Course, started: Callable[[], None]
) -> None:
    async with trio.open_nursery() as nursery:
        address.nursery = actor.nursery = nursery
        try:
            if type(actor).start is not Actor.start:
                await actor.start()
            course.has_started = True
            address.note_started()
            started()
            await actor.run_mailbox()
        except Exception as exc:
            # Callers learn it now; `stop` runs after the nursery is gone.
            course.note(exc)
            assert course.exit is not None, "a crash was noted just above"
            address.close(course.exit)
            address.fail_accepted(course.exit)
        else:
            # Orderly: `stop` may still use the tasks of the nursery, to drain.
            await _stop(address, actor, course)
        if nursery.child_tasks:
            nursery.cancel_scope.cancel("the actor ends")


async def _wind_up(address: Address, actor: Actor, course: _Course, otherwise: Exit) -> None:
    """Do after a crash or a cancellation what an orderly end does inside the nursery."""
    exit_ = course.exit or address.ending or otherwise
    address.close(exit_)
    address.fail_accepted(exit_)
    if not course.stopped and course.has_started:
        await _stop(address, actor, course)


async def _stop(address: Address, actor: Actor, course: _Course) -> None:
    course.stopped = True
    if type(actor).stop is Actor.stop:
        return
    with trio.move_on_after(actor.stop_within_s, shield=True) as scope:
        try:
            await actor.stop()
        except Exception as exc:
            if course.exit is not None:
                _log.warning("actor %s crashed again in stop()", address.name, exc_info=exc)
            course.note(exc)
    if scope.cancelled_caught:
        _log.warning(
            "stop() of actor %s took over %g s and was cancelled", address.name, actor.stop_within_s
        )


def _split(exc: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Part a crash from what must go on: cancellation, KeyboardInterrupt, SystemExit."""
    if isinstance(exc, BaseExceptionGroup):
        return exc.split(Exception)
    return (exc, None) if isinstance(exc, Exception) else (None, exc)


def _end(address: Address, exit_: Exit) -> Exit:
    address.note_ended(exit_)
    return exit_
