"""Jobs with their ends and their bytes counted on the way, for `metrics`. What jobs do is `olm.actors`' business."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import trio

from olm.actors.jobs_client import (
    CheckRequest,
    CreateRequest,
    ExportRequest,
    Finding,
    ImatrixRequest,
    ImportRequest,
    JobsClient,
    Progress,
    PullRequest,
    PushRequest,
)
from olm.api.metrics import Metrics

__all__ = ["MeteredJobs"]


@attrs.frozen
class MeteredJobs:
    """`olm.actors.jobs_client.JobsClient` around another one."""

    _inner: JobsClient
    _metrics: Metrics

    def create(
        self, request: CreateRequest
    ) -> AbstractAsyncContextManager[AsyncIterator[Progress]]:
        """See `JobsClient.create`."""
        return self._counted("create", self._inner.create(request))

    def pull(self, request: PullRequest) -> AbstractAsyncContextManager[AsyncIterator[Progress]]:
        """See `JobsClient.pull`."""
        return self._counted("pull", self._inner.pull(request))

    def push(self, request: PushRequest) -> AbstractAsyncContextManager[AsyncIterator[Progress]]:
        """See `JobsClient.push`."""
        return self._counted("push", self._inner.push(request))

    def export(
        self, request: ExportRequest
    ) -> AbstractAsyncContextManager[AsyncIterator[Progress]]:
        """See `JobsClient.export`."""
        return self._counted("export", self._inner.export(request))

    def import_(
        self, request: ImportRequest
    ) -> AbstractAsyncContextManager[AsyncIterator[Progress]]:
        """See `JobsClient.import_`."""
        return self._counted("import", self._inner.import_(request))

    @asynccontextmanager
    async def check(
        self, request: CheckRequest
    ) -> AsyncIterator[AsyncIterator[Progress | Finding]]:
        """See `JobsClient.check`. Its bytes move nowhere, so only its end is counted."""
        with _Ending(self._metrics, "check"):
            async with self._inner.check(request) as steps:
                yield steps

    @asynccontextmanager
    async def imatrix(
        self, request: ImatrixRequest
    ) -> AsyncIterator[AsyncIterator[Progress | bytes]]:
        """See `JobsClient.imatrix`. Its file is small, so only its end is counted."""
        with _Ending(self._metrics, "imatrix"):
            async with self._inner.imatrix(request) as steps:
                yield steps

    @asynccontextmanager
    async def export_stream(self, request: ExportRequest) -> AsyncIterator[AsyncIterator[bytes]]:
        """See `JobsClient.export_stream`."""
        with _Ending(self._metrics, "export"):
            async with self._inner.export_stream(request) as pieces:
                yield _Pieces(pieces, self._metrics)

    @asynccontextmanager
    async def _counted(
        self, kind: str, job: AbstractAsyncContextManager[AsyncIterator[Progress]]
    ) -> AsyncIterator[AsyncIterator[Progress]]:
        with _Ending(self._metrics, kind):
            async with job as steps:
                yield _Steps(steps, self._metrics, kind)


class _Ending:
    """Counts how a job ended. A client that leaves cancels it."""

    def __init__(self, metrics: Metrics, kind: str) -> None:
        self._metrics, self._kind = metrics, kind

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, exc: BaseException | None, _traceback: object) -> None:
        left = isinstance(exc, trio.Cancelled | GeneratorExit)
        end = "success" if exc is None else "cancelled" if left else "error"
        self._metrics.jobs[self._kind, end] += 1


class _Steps:
    """Progress as it passes; what a blob gained since its last line is counted."""

    def __init__(self, steps: AsyncIterator[Progress], metrics: Metrics, kind: str) -> None:
        self._steps, self._metrics, self._kind = steps, metrics, kind
        self._seen: dict[str, int] = {}

    def __aiter__(self) -> AsyncIterator[Progress]:
        return self

    async def __anext__(self) -> Progress:
        step = await self._steps.__anext__()
        if step.digest:
            gained = step.completed - self._seen.get(step.digest, 0)
            self._seen[step.digest] = step.completed
            self._metrics.transferred[self._kind] += max(gained, 0)
        return step


class _Pieces:
    """An archive's bytes as they pass. No generator: a client that leaves would leave it open."""

    def __init__(self, pieces: AsyncIterator[bytes], metrics: Metrics) -> None:
        self._pieces, self._metrics = pieces, metrics

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._pieces.__anext__()
        self._metrics.transferred["export"] += len(piece)
        return piece
