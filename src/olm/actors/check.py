"""Check jobs: a look through the whole store, blobs hashed in several threads, what is found told as it is found.

The job only reads; mends go through the store actor, one at a time, so that they cannot meet a create or a pull.
What is looked for is in `olm.store.check`.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import trio

from olm.actors.job import open_job
from olm.actors.jobs_client import CheckRequest, Finding, Progress
from olm.actors.runtime import Actor, StreamMessage, StreamSink, Supervisor, streams
from olm.actors.store import Mending, Store, Tidying
from olm.errors import OlmError, first_error
from olm.store.check import examine, is_still_missing, survey
from olm.store.names import Digest
from olm.store.problems import Problem, Survey, Suspect
from olm.units import human_bytes

__all__ = ["open_check"]

P = ParamSpec("P")
T = TypeVar("T")

_STOP_S: Final = 10.0
_REPORT_S: Final = 0.1
_MAX_THREADS: Final = 4  # a disk gives no more to more, and the models that run want cores too


class _Run(StreamMessage[Progress | Finding], frozen=True):
    """Do the work. Closing the stream ends it within the reading of one chunk."""


class _CheckJob(Actor):
    """One check. Temporary."""

    __slots__ = ("_limiter", "_n_threads", "_request", "_store")

    def __init__(self, request: CheckRequest, store: Store) -> None:
        self._request = request
        self._store = store
        self._n_threads = min(_MAX_THREADS, os.cpu_count() or 1)
        self._limiter = trio.CapacityLimiter(self._n_threads)

    @streams(_Run)
    async def on_run(self, _: _Run, out: StreamSink[Progress | Finding]) -> None:
        """Look, and mend if asked to. Raises StoreError."""
        await out.send(Progress("reading manifests"))
        seen = await self._thread(
            partial(survey, self._store.root, now_s=time.time(), quick=self._request.quick)
        )
        for problem in seen.problems:
            await self._tell(problem, out)
        await self._hash(seen, out)
        if self._request.repair:
            await self._store.actor.ask(Tidying(), wait_for_restart=True)
        await out.send(Progress(_summary(seen, self._store.root)))
        await out.send(Progress("success"))

    async def _hash(self, seen: Survey, out: StreamSink[Progress | Finding]) -> None:
        meter = _Meter(seen, out)
        waiting = iter(seen.suspects)

        async def work(waiting: Iterator[Suspect]) -> None:
            for suspect in waiting:
                problem = await self._thread(examine, self._store.blobs, suspect, meter.add)
                if problem is not None:
                    await self._tell(problem, out)

        try:
            async with trio.open_nursery() as nursery:
                for _ in range(self._n_threads):
                    nursery.start_soon(work, waiting)
        except* OlmError as group:
            error = first_error(group)
            assert error is not None, "the group has nothing else"
            raise type(error)(error.message) from group
        await meter.finish()

    async def _tell(self, problem: Problem, out: StreamSink[Progress | Finding]) -> None:
        """Mend a problem if that is wanted and possible, and tell it."""
        if problem.kind == "missing" and not await self._thread(
            is_still_missing, self._store.root, Digest.parse(problem.what)
        ):
            return
        is_repaired, done = False, ""
        if self._request.repair and problem.mend is not None:
            is_repaired, done = await self._store.actor.ask(
                Mending(problem.mend), wait_for_restart=True
            )
        parts = (problem.detail, done, "" if is_repaired else problem.advice)
        await out.send(
            Finding(
                kind=problem.kind,
                what=problem.what,
                detail="; ".join(part for part in parts if part),
                models=problem.models,
                size_bytes=problem.size_bytes,
                is_repaired=is_repaired,
            )
        )

    async def _thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await trio.to_thread.run_sync(
            partial(function, *args, **kwargs), limiter=self._limiter
        )


class _Meter:
    """Adds up what all threads have read, and tells it now and then."""

    def __init__(self, seen: Survey, out: StreamSink[Progress | Finding]) -> None:
        self._out = out
        self._status = f"verifying {_counted(len(seen.suspects), 'blob')}"
        self._total = sum(suspect.size_bytes for suspect in seen.suspects)
        self._done = 0
        self._reported_s = float("-inf")

    def add(self, n_bytes: int) -> None:
        """Count bytes, in a thread. Raises what cancels the job."""
        trio.from_thread.check_cancelled()
        trio.from_thread.run(self._add, n_bytes)

    async def _add(self, n_bytes: int) -> None:
        self._done += n_bytes
        now = trio.current_time()
        if now - self._reported_s >= _REPORT_S:
            self._reported_s = now
            await self._send()

    async def finish(self) -> None:
        """Say that all is read."""
        if self._total:
            self._done = self._total
            await self._send()

    async def _send(self) -> None:
        # A blob that grew is one that is damaged; the sum still ends where it said.
        done = min(self._done, self._total)
        await self._out.send(Progress(self._status, "", self._total, done))


def _summary(seen: Survey, root: Path) -> str:
    read = human_bytes(sum(suspect.size_bytes for suspect in seen.suspects))
    models, blobs = _counted(seen.n_models, "model"), _counted(len(seen.suspects), "blob")
    # The server's folder may be another than the one that whoever asks has in mind.
    return f"checked {models}, {blobs}, {read} in {root}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


@asynccontextmanager
async def open_check(
    supervisor: Supervisor, name: str, store: Store, request: CheckRequest
) -> AsyncIterator[AsyncIterator[Progress | Finding]]:
    """Run a check; see `JobsClient.check`. On leaving, the job has ended."""
    actor = partial(_CheckJob, request, store)
    async with open_job(supervisor, name, actor, _Run(), stop_within_s=_STOP_S) as found:
        yield found
