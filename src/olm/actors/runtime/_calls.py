"""One request on its way: the envelope of an `ask`, and the `Reply` a deferring handler holds.

An envelope has exactly one outcome: a value, an expected error, `ActorStopped`, or "the caller left".
Streams have their own envelope in `_streams`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, TypeVarTuple

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, reschedule

from olm.errors import OlmError, first_error

if TYPE_CHECKING:
    from olm.actors.runtime._address import Address

__all__ = ["Call", "Cancellable", "Reply", "expected_error"]

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


class Cancellable(Protocol):
    """What stops work that is under way: a cancel scope here, a frame to another process there."""

    def cancel(self, reason: str | None = None) -> None:
        """Stop it."""


class Call:
    """The envelope of one `ask`, on its way or being answered. Internal; handlers see `Reply`.

    `_deliver` is the seam: here it wakes the asking task; in a child process it writes a frame.
    """

    __slots__ = (
        "abandoned",
        "error",
        "home",
        "message",
        "pending",
        "scope",
        "settled",
        "task",
        "value",
    )

    def __init__(self, message: object, home: Address) -> None:
        self.message = message
        self.home = home
        self.task: Task | None = None
        self.settled = False
        self.abandoned = False
        self.value: object = None
        self.error: BaseException | None = None
        # The set of deferred calls this one is in, once its handler took a `Reply`.
        self.pending: set[Call] | None = None
        self.scope: Cancellable | None = None

    def answer(self, value: object) -> None:
        """Give the value to the caller; does nothing once there is an outcome."""
        if not self.settled:
            self.value = value
            self._settle()

    def fail(self, error: BaseException) -> None:
        """Give the error to the caller; does nothing once there is an outcome."""
        if not self.settled:
            self.error = error
            self._settle()

    def abort(self, _: RaiseCancelT) -> Abort:
        """Leave: the asking task was cancelled. Trio calls this."""
        self.task = None
        self.abandon()
        return Abort.SUCCEEDED

    def abandon(self) -> None:
        """Note that the caller left: queued work is never begun, running work is told."""
        if self.settled:
            return
        self.settled = self.abandoned = True
        self.home.forget(self)
        if self.pending is not None:
            self.pending.discard(self)
        if self.scope is not None:
            self.scope.cancel("the caller left")

    def _settle(self) -> None:
        self.settled = True
        if self.pending is not None:
            self.pending.discard(self)
        self._deliver()

    def _deliver(self) -> None:
        task = self.task
        if task is not None:
            self.task = None
            reschedule(task)


class Reply(Generic[R]):
    """The right, and the duty, to answer one request later.

    Answer once, with `send`, `fail` or `run`. A `Reply` that is dropped unanswered fails its caller with an
    `ActorError`, so a forgotten one is noticed and nobody hangs.
    """

    __slots__ = ("_call", "_token", "_used")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._used = False
        self._token = trio.lowlevel.current_trio_token()

    @property
    def abandoned(self) -> bool:
        """Whether the caller left. Check it before work that costs something; answering is then a no-op."""
        return self._call.abandoned

    @property
    def settled(self) -> bool:
        """Whether there is an outcome already: answered, failed or abandoned."""
        return self._call.settled

    def send(self, value: R) -> None:
        """Answer. Does nothing if the caller left or the actor's life ended in between.

        Raises:
            RuntimeError: it was answered before.
        """
        self._use()
        self._call.answer(value)

    def fail(self, error: OlmError) -> None:
        """Answer with an expected error. Raises RuntimeError if it was answered before."""
        self._use()
        self._call.fail(error)

    async def run(self, function: Callable[[*Ts], Awaitable[R]], *args: *Ts) -> None:
        """Run `await function(*args)`, answer with its result or its `OlmError`, and cancel it when the caller leaves.

        Made for `self.nursery.start_soon(reply.run, self._work, msg)`. Other exceptions crash the actor.
        """
        self._use()
        call = self._call
        with trio.CancelScope() as scope:
            call.scope = scope
            if call.abandoned:
                scope.cancel("the caller left")
            try:
                await trio.lowlevel.checkpoint_if_cancelled()
                value = await function(*args)
            except Exception as exc:
                expected = expected_error(exc)
                if expected is None:
                    raise
                call.fail(expected)
            else:
                call.answer(value)

    def _use(self) -> None:
        if self._used:
            raise RuntimeError("this request was answered before; a Reply is used once")
        self._used = True

    def __del__(self) -> None:
        call = self._call
        if not call.settled:
            with contextlib.suppress(trio.RunFinishedError):
                # The garbage collector may run this in any thread.
                self._token.run_sync_soon(call.home.note_dropped, call)


def expected_error(exc: Exception) -> OlmError | None:
    """Tell an answer from a crash: the `OlmError` that `exc` is, or None for a crash.

    A group of nothing but `OlmError` comes from a nursery inside the handler; it is an answer too.
    """
    if isinstance(exc, OlmError):
        return exc
    if isinstance(exc, ExceptionGroup) and exc.split(OlmError)[1] is None:
        found = first_error(exc)
        assert found is not None, "a group without a remainder holds an OlmError"
        error = type(found)(found.message, **found.details)
        error.__cause__ = exc
        return error
    return None
