"""Import jobs: one temporary actor for each, the disk work in threads of its own. Exports are `archive`'s.

A job holds its blobs against pruning, and publishes names when all blobs are there. What an interrupted import has
verified stays for the next one, for as long as any upload. The disk work is in `olm.store.importing`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import attrs
import trio

from olm.actors.archive import side_by_side
from olm.actors.job import open_job
from olm.actors.jobs_client import ImportRequest, Progress
from olm.actors.runtime import Actor, StreamMessage, StreamSink, Supervisor, streams
from olm.actors.store import Hold, Publish, Release, Store
from olm.errors import DigestMismatch, InvalidRequest
from olm.store.disk import disk_errors
from olm.store.importing import Importer
from olm.store.names import Digest, ModelName
from olm.store.sources import Archive, Folder, Stream, TarFile, open_file

__all__ = ["open_import"]

P = ParamSpec("P")
T = TypeVar("T")

_STOP_S: Final = 10.0


class _Run(StreamMessage[Progress], frozen=True):
    """Do the work; progress until it is done. Closing the stream cancels it."""


class _ImportJob(Actor):
    """One import. Temporary."""

    __slots__ = ("_leftovers", "_limiter", "_n_workers", "_request", "_store")

    def __init__(self, request: ImportRequest, store: Store, n_workers: int) -> None:
        self._request = request
        self._store = store
        self._n_workers = n_workers
        self._limiter = trio.CapacityLimiter(n_workers)
        self._leftovers: tuple[str, ...] = ()

    async def stop(self) -> None:
        """Let the blobs go; those of a refused archive, and those that are no model's, are removed."""
        await self._store.actor.ask(Release(self.name, self._leftovers), wait_for_restart=True)

    @streams(_Run)
    async def on_run(self, _: _Run, out: StreamSink[Progress]) -> None:
        """Read the archive. Raises InvalidRequest, DigestMismatch, DiskFull, StoreError."""
        hooks = _Hooks(self.name, self._store, out)
        importer = Importer(self._store.blobs, hooks, self._request.name)
        try:
            await self._take(importer)
            models = await self._thread(importer.finish)
            await out.send(Progress("writing manifest"))
            for name, data in models:
                await self._store.actor.ask(Publish(str(name), data))
                await out.send(Progress(f"imported {name.shortest}"))
        except (InvalidRequest, DigestMismatch):
            self._leftovers = tuple(map(str, importer.leftovers))
            raise
        # The archive's copies of the manifests were blobs for a while.
        self._leftovers = tuple(map(str, importer.leftovers))
        await out.send(Progress("success"))

    async def _take(self, importer: Importer) -> None:
        """Bring all blobs into the store: one after the other of a stream, else side by side."""
        if self._request.source is not None:
            source = self._request.source
            stream = Stream(lambda: trio.from_thread.run(source.next))
            await self._thread(_take_stream, importer, stream)
            return
        path = Path(self._request.path)
        if "\0" in self._request.path or not path.is_absolute():
            raise InvalidRequest(f"the path of an archive must be absolute: {self._request.path!a}")
        with ExitStack() as files:
            archive = await self._thread(_open_archive, path, files)
            if isinstance(archive, Stream):
                await self._thread(_take_stream, importer, archive)
                return
            waiting = iter(await self._thread(_survey, importer, archive, path))

            async def work() -> None:
                for digest in waiting:
                    await self._thread(importer.take, archive, digest)

            # Each blob keeps two cores busy: one hashes, one copies.
            n_blobs = min(self._n_workers, max(1, (os.cpu_count() or 1) // 2))
            await side_by_side(n_blobs, work)

    async def _thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await trio.to_thread.run_sync(
            partial(function, *args, **kwargs), limiter=self._limiter
        )


@attrs.frozen
class _Hooks:
    """From the import's threads to the actors."""

    owner: str
    store: Store
    out: StreamSink[Progress]

    def hold(self, *digests: Digest) -> None:
        held = Hold(self.owner, tuple(map(str, digests)))
        trio.from_thread.run(self.store.actor.ask, held)

    def report(self, digest: Digest, total: int, completed: int) -> None:
        step = Progress(f"importing {digest.hex[:12]}", str(digest), total, completed)
        trio.from_thread.run(self.out.send, step)

    def check(self) -> None:
        trio.from_thread.check_cancelled()


def _open_archive(path: Path, files: ExitStack) -> Archive | Stream:
    """Look what there is at `path`; a file is closed with `files`."""
    with disk_errors(f"read {path}"):
        if path.is_dir():
            return Folder(path)
        fd = open_file(path, follow=True)
        files.callback(os.close, fd)
        stream = Stream.of_file(fd)
        if stream.is_compressed():
            return stream
        os.lseek(fd, 0, os.SEEK_SET)
        return TarFile(fd)


def _survey(importer: Importer, archive: Archive, path: Path) -> list[Digest]:
    with disk_errors(f"read {path}"):
        return importer.survey(archive)


def _take_stream(importer: Importer, stream: Stream) -> None:
    with disk_errors("read the archive"):
        importer.take_stream(stream.plain())


@asynccontextmanager
async def open_import(
    supervisor: Supervisor, name: str, store: Store, request: ImportRequest, n_workers: int
) -> AsyncIterator[AsyncIterator[Progress]]:
    """Run an import; see `JobsClient.import_`."""
    if request.name:
        ModelName.parse(request.name)
    actor = partial(_ImportJob, request, store, n_workers)
    async with open_job(supervisor, name, actor, _Run(), stop_within_s=_STOP_S) as progress:
        yield progress
