"""Export jobs: one temporary actor for each, the disk work in threads of its own. Imports are `archive_import`'s.

A job holds its blobs against pruning. An export appears under its name when it is whole. The format is in
`olm.store.archive`, the disk work in `olm.store.exporting`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import trio

from olm.actors.job import one_error, open_job
from olm.actors.jobs_client import ExportRequest, Progress
from olm.actors.runtime import Actor, StreamMessage, StreamSink, Supervisor, streams
from olm.actors.store import Hold, Release, Store
from olm.errors import (
    DiskFull,
    InvalidRequest,
    ModelNotFound,
)
from olm.store.archive import Member, Placed, archive_bytes, place, plan_members
from olm.store.blobs import BlobStore
from olm.store.catalog import Catalog, Entry
from olm.store.disk import disk_errors
from olm.store.exporting import (
    Piece,
    Target,
    compressed,
    copy_span,
    full_disk,
    open_blob,
    pieces,
    spans,
    write_stream,
)
from olm.store.manifests import ManifestStore
from olm.store.names import ModelName

__all__ = ["open_export", "open_export_stream", "side_by_side"]

P = ParamSpec("P")
T = TypeVar("T")

_STOP_S: Final = 10.0
_REPORT_S: Final = 0.1
_MAX_MODELS: Final = 1000


class _Run(StreamMessage[Progress], frozen=True):
    """Do the work; progress until it is done. Closing the stream cancels it."""


class _Bytes(StreamMessage[bytes], frozen=True):
    """Give the archive itself."""

    window = 2


class _ExportJob(Actor):
    """One export. Temporary."""

    __slots__ = ("_limiter", "_n_workers", "_request", "_store")

    def __init__(self, request: ExportRequest, store: Store, n_workers: int) -> None:
        self._request = request
        self._store = store
        self._n_workers = n_workers
        self._limiter = trio.CapacityLimiter(n_workers)

    async def stop(self) -> None:
        """Let the blobs go."""
        await self._store.actor.ask(Release(self.name), wait_for_restart=True)

    @streams(_Run)
    async def on_run(self, _: _Run, out: StreamSink[Progress]) -> None:
        """Write a file or folder. Raises ModelNotFound, InvalidRequest, DiskFull, StoreError."""
        placed = await self._plan()
        path = _checked_path(self._request.path)
        target = await self._thread(_open_target, self._request, path, self._store.root)
        meter = _Meter(out)
        size = archive_bytes(placed)
        try:
            try:
                if self._request.compress:
                    await self._compress(placed, target, meter)
                else:
                    await self._copy(placed, target, meter)
                await out.send(Progress("writing to disk"))
                await self._writing(target, target.publish)
            except DiskFull as exc:
                raise await self._thread(full_disk, exc, size, path.parent) from exc
        finally:
            with trio.move_on_after(_STOP_S, shield=True):
                await self._thread(target.discard)
        await out.send(Progress("success"))

    @streams(_Bytes)
    async def on_bytes(self, _: _Bytes, out: StreamSink[bytes]) -> None:
        """Give the archive piece by piece. Raises as `on_run`; what was sent until then is cut off."""
        placed = await self._plan()
        produced = self._pieces(placed)
        while (piece := await self._thread(next, produced, None)) is not None:
            if piece.data:
                await out.send(piece.data)

    async def _plan(self) -> Sequence[Placed]:
        """Find the models, hold their blobs, and see that these are still there."""
        entries = await self._thread(_find, self._store.root, self._request.models)
        digests = {str(blob) for entry in entries for blob in entry.manifest.blobs()}
        await self._store.actor.ask(Hold(self.name, tuple(digests)))
        members = plan_members(entries)
        await self._thread(_check_blobs, self._store.blobs, members)
        return list(place(members))

    def _pieces(self, placed: Sequence[Placed]) -> Iterator[Piece]:
        plain = pieces(self._store.blobs, placed)
        if not self._request.compress:
            return plain
        return compressed(plain, archive_bytes(placed), self._n_workers)

    async def _compress(self, placed: Sequence[Placed], target: Target, meter: _Meter) -> None:
        written = write_stream(target, self._pieces(placed))
        try:
            while (piece := await self._writing(target, partial(next, written, None))) is not None:
                if piece.member is not None:
                    await meter.add(piece.member, piece.n_raw)
        finally:
            with trio.move_on_after(_STOP_S, shield=True):
                await self._thread(written.close)

    async def _copy(self, placed: Sequence[Placed], target: Target, meter: _Meter) -> None:
        await self._writing(target, partial(target.write_heads, placed))
        waiting = spans(placed, target)

        async def work() -> None:
            for span in waiting:
                n_bytes = await self._thread(copy_span, self._store.blobs, span)
                await meter.add(span.member, n_bytes)

        await side_by_side(self._n_workers, work)

    async def _writing(self, target: Target, work: Callable[[], T]) -> T:
        """Run disk work on the target. Its errors name models and target; those of a blob name it themselves."""
        models = ", ".join(self._request.models[:3]) + ", …" * (len(self._request.models) > 3)

        def run() -> T:
            with disk_errors(f"export model {models} to {target.path}"):
                return work()

        return await self._thread(run)

    async def _thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await trio.to_thread.run_sync(
            partial(function, *args, **kwargs), limiter=self._limiter
        )


async def side_by_side(n_workers: int, work: Callable[[], Awaitable[None]]) -> None:
    """Run so many workers until all are done. Raises the first OlmError of any, which ends the others."""
    with one_error():
        async with trio.open_nursery() as nursery:
            for _ in range(n_workers):
                nursery.start_soon(work)


class _Meter:
    """Adds up what is done of each blob, and tells it now and then."""

    def __init__(self, out: StreamSink[Progress]) -> None:
        self._out = out
        self._done: dict[Member, int] = {}
        self._reported_s = float("-inf")

    async def add(self, member: Member, n_bytes: int) -> None:
        """Count bytes of a blob; waits while nobody reads the progress."""
        done = self._done[member] = self._done.get(member, 0) + n_bytes
        now = trio.current_time()
        if done < member.size and now - self._reported_s < _REPORT_S:
            return
        self._reported_s = now
        assert member.digest is not None, "only blobs are counted"
        status = f"exporting {member.digest.hex[:12]}"
        await self._out.send(Progress(status, str(member.digest), member.size, done))


def _find(root: Path, names: Sequence[str]) -> list[Entry]:
    """Look the models up on disk; each once, in the order asked for. Raises ModelNotFound, InvalidName, StoreError."""
    catalog = Catalog(ManifestStore(root / "manifests"), BlobStore(root / "blobs"))
    found: dict[ModelName, Entry] = {}
    for name in names:
        entry = catalog.find(ModelName.parse(name))
        if entry is None:
            raise ModelNotFound(f"model '{name}' not found")
        found[entry.name] = entry
    return list(found.values())


def _check_blobs(blobs: BlobStore, members: Sequence[Member]) -> None:
    for member in members:
        if member.digest is not None:
            with disk_errors(f"export model {member.model}, blob {member.digest}"):
                os.close(open_blob(blobs, member))


def _checked_path(text: str) -> Path:
    path = Path(text)
    if "\0" in text or not path.is_absolute() or ".." in path.parts:
        raise InvalidRequest(f"the path of an archive must be absolute and without '..': {text!a}")
    return path


def _open_target(request: ExportRequest, path: Path, root: Path) -> Target:
    with disk_errors(f"write {path}"):
        if path.parent.resolve().is_relative_to(root.resolve()):
            raise InvalidRequest(f"{path} is inside the model store")
        if not path.parent.is_dir():
            raise InvalidRequest(f"cannot write {path}: there is no folder {path.parent}")
        is_folder = request.path.endswith("/") or path.is_dir()
    if is_folder and request.compress:
        raise InvalidRequest(f"{path} is a folder, and only a file can be compressed")
    return Target(path, is_folder=is_folder)


# -- starting them ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_export(
    supervisor: Supervisor, name: str, store: Store, request: ExportRequest, n_workers: int
) -> AsyncIterator[AsyncIterator[Progress]]:
    """Run an export; see `JobsClient.export`. On leaving, the job has ended."""
    _check_models(request)
    actor = partial(_ExportJob, request, store, n_workers)
    async with open_job(supervisor, name, actor, _Run(), stop_within_s=_STOP_S) as progress:
        yield progress


@asynccontextmanager
async def open_export_stream(
    supervisor: Supervisor, name: str, store: Store, request: ExportRequest, n_workers: int
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Run an export as a stream; see `JobsClient.export_stream`."""
    _check_models(request)
    actor = partial(_ExportJob, request, store, n_workers)
    async with open_job(supervisor, name, actor, _Bytes(), stop_within_s=_STOP_S) as archive:
        yield archive


def _check_models(request: ExportRequest) -> None:
    if not request.models:
        raise InvalidRequest("no model to export was named")
    if len(request.models) > _MAX_MODELS:
        raise InvalidRequest(f"{len(request.models)} models are more than {_MAX_MODELS}")
    for model in request.models:
        ModelName.parse(model)
