"""A one-shot signal that carries a value: what the runtime waits on when something starts or ends.

It does what `trio.Event` does, at a third of the cost and with a value. Nothing else of the runtime lives here.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, wait_task_rescheduled

__all__ = ["Signal"]

T = TypeVar("T")


class Signal(Generic[T]):
    """Hold at most one value and wake everybody who waits for it."""

    __slots__ = ("_tasks", "_value", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._tasks: dict[Task, None] | None = None

    def fire(self, value: T) -> None:
        """Set the value and wake all waiters; a second call does nothing."""
        if self.is_set:
            return
        self.is_set = True
        self._value = value
        tasks, self._tasks = self._tasks, None
        for task in tasks or ():
            trio.lowlevel.reschedule(task)

    async def wait(self) -> T:
        """Return the value, waiting for it if need be. Cancellation leaves nothing behind."""
        if self.is_set:
            await trio.lowlevel.checkpoint()
            return self._value
        task = current_task()
        tasks = self._tasks
        if tasks is None:
            tasks = self._tasks = {}
        tasks[task] = None

        def leave(_: RaiseCancelT) -> Abort:
            tasks.pop(task, None)
            return Abort.SUCCEEDED

        await wait_task_rescheduled(leave)
        return self._value
