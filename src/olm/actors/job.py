"""Running a job: a temporary actor for one request, its stream, and its end with the request. What jobs do is theirs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import trio

from olm.actors.runtime import Actor, ChildSpec, StreamMessage, Supervisor
from olm.errors import OlmError, first_error

__all__ = ["one_error", "open_job"]

T = TypeVar("T")


@contextmanager
def one_error() -> Iterator[None]:
    """Tell the first of the expected errors that a nursery's tasks ended with; any other error leaves as it is.

    Tasks of one job fail for the same reason, so one is enough. It is a new error, because a member leaves no group.
    """
    try:
        yield
    except ExceptionGroup as group:
        error = first_error(group)
        if error is None or group.split(OlmError)[1] is not None:
            raise
        raise type(error)(error.message, **error.details) from group


@asynccontextmanager
async def open_job(
    supervisor: Supervisor,
    name: str,
    actor: Callable[[], Actor],
    run: StreamMessage[T],
    *,
    stop_within_s: float,
) -> AsyncIterator[AsyncIterator[T]]:
    """Start a job's actor and open its stream. On leaving, the job has ended and holds nothing any more.

    Args:
        name: unique under the supervisor.
        run: asks for the work; closing its stream cancels it.
        stop_within_s: how long the actor may take to let go, seconds.
    """
    spec = ChildSpec(name, actor, restart="temporary", stop_within_s=stop_within_s)
    address = await supervisor.start_child(spec)
    try:
        async with address.stream(run) as items:
            yield items
    finally:
        with trio.move_on_after(2 * stop_within_s, shield=True):
            await supervisor.stop_child(name, "the request has ended")
