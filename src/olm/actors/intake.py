"""The files of a create job: read, hashed where they are, merged, until each is what a layer is made of.

A job has one `Intake` for its model's files and one for its adapters. Which file is what is decided in
`olm.store.create_plan` and `olm.store.splits`; formats other than GGUF are to be converted here, before anything is read.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, ParamSpec, TypeVar

import attrs
import trio

from olm.actors.jobs_client import Progress
from olm.actors.runtime import StreamSink
from olm.actors.store import Learn, Store
from olm.errors import GgufError, InvalidRequest
from olm.gguf import ModelFacts, facts_of, read_header
from olm.gguf.merge import plan_merge
from olm.gguf.reader import NOT_GGUF
from olm.store.disk import disk_errors
from olm.store.linking import InPlace, checked_link
from olm.store.names import Digest
from olm.store.partials import check_room
from olm.store.splits import Source, SplitSet, group_splits

__all__ = ["Intake"]

P = ParamSpec("P")
T = TypeVar("T")

_STOP_S: Final = 10.0
_REPORT_S: Final = 0.1
_PLACED: Final = {
    "linked": "linked to {}",
    "cloned": "cloned {}",
    "exists": "using existing layer for {}",
}


@attrs.frozen
class Intake:
    """Takes files in for one job.

    Attributes:
        keep: holds a blob for the job before it is made.
        out: where progress goes.
        short: the limiter of threads that read headers, shared by all jobs.
        spent: uploads that were merged and are needed no more.
    """

    store: Store
    keep: Callable[[Digest], Awaitable[None]]
    out: StreamSink[Progress]
    short: trio.CapacityLimiter
    spent: list[Digest] = attrs.field(factory=list, init=False)
    # Hashing gigabytes must not keep other jobs from their small files.
    _long: trio.CapacityLimiter = attrs.field(
        factory=partial(trio.CapacityLimiter, 1), init=False, repr=False
    )

    async def take(
        self, files: Mapping[str, Digest], links: Mapping[str, str]
    ) -> list[Source | SplitSet]:
        """Take in uploads and files to be run in place; parts of split files become one, or a set that stays apart.

        Raises:
            InvalidRequest, GgufError: a file is not there, or not what it should be.
            DiskFull, StoreError: the store cannot take it.
        """
        linked = await self._link(links)
        sources = [
            await self._read(name, digest, is_linked=name in linked)
            for name, digest in {**files, **linked}.items()
        ]
        return [await self._whole(item) for item in group_splits(sources)]

    # -- in place ----------------------------------------------------------------------------------------------------

    async def _link(self, links: Mapping[str, str]) -> dict[str, Digest]:
        """Take the files in that are to be run in place; the digest of each."""
        found: dict[str, Digest] = {}
        for name, text in links.items():
            path = await self._thread(checked_link, text, self.store.root)
            file = await self._thread(InPlace, self.store.blobs, path)
            try:
                # The digest is not known yet: the path stands where clients look for what a bar belongs to.
                meter = _Meter(self.out, f"hashing {path.name}", str(path), file.size_bytes)
                found[name] = digest = await self._thread(file.hash, meter.tell)
                await self.keep(digest)
                how = await self._thread(file.place)
            finally:
                with trio.move_on_after(_STOP_S, shield=True):
                    await self._thread(file.close)
            await self.out.send(Progress(_PLACED[how].format(path)))
        return found

    # -- reading -----------------------------------------------------------------------------------------------------

    async def _read(self, name: str, digest: Digest, *, is_linked: bool) -> Source:
        size = self.store.blobs.size(digest)
        if size is None:
            raise InvalidRequest(f"{name}: blob {digest} is not in the store, upload it first")
        await self.out.send(Progress("parsing GGUF"))
        return Source(name, digest, size, await self._facts(name, digest), is_linked)

    async def _facts(self, name: str, digest: Digest) -> ModelFacts:
        path = self.store.blobs.path(digest)
        try:
            with disk_errors(f"read {name}"):
                header = await trio.to_thread.run_sync(read_header, path, limiter=self.short)
        except GgufError as exc:
            raise GgufError(_named(exc.message, name)) from exc
        facts = facts_of(header)
        await self.store.actor.ask(Learn(str(digest), facts))
        return facts

    # -- merging -----------------------------------------------------------------------------------------------------

    async def _whole(self, item: Source | SplitSet) -> Source | SplitSet:
        """Merge the parts of a split file into one blob, unless they are to stay where they are."""
        if isinstance(item, Source) or item.stays_split:
            return item
        name = item.parts[0].name
        digest, size = await self._thread(_merge, self, item)
        self.spent.extend(part.digest for part in item.parts)
        return Source(name, digest, size, await self._facts(name, digest))

    async def _thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await trio.to_thread.run_sync(partial(function, *args, **kwargs), limiter=self._long)


def _merge(intake: Intake, item: SplitSet) -> tuple[Digest, int]:
    """Write the merged blob, in a thread; its digest and size in bytes."""
    name, blobs = item.parts[0].name, intake.store.blobs
    try:
        with disk_errors(f"merge {name}"):
            merge = plan_merge([blobs.path(part.digest) for part in item.parts])
            check_room(blobs.folder, merge.size_bytes)
            meter = _Meter(intake.out, f"merging {len(item.parts)} parts", name, merge.size_bytes)
            with blobs.create() as pending:
                for piece in merge.pieces():
                    pending.write(piece)
                    meter.tell(pending.size_bytes)
                trio.from_thread.run(intake.keep, pending.digest)
                digest, _is_new = pending.commit()
    except GgufError as exc:
        raise GgufError(_named(exc.message, name)) from exc
    return digest, merge.size_bytes


class _Meter:
    """Tells from a thread how far a file is, now and then; ends the thread's work when the job was cancelled."""

    def __init__(self, out: StreamSink[Progress], status: str, what: str, total: int) -> None:
        self._out = out
        self._status = status
        self._what = what
        self._total = total
        self._told_s = float("-inf")

    def tell(self, done: int) -> None:
        """Count `done` bytes in all."""
        trio.from_thread.check_cancelled()
        now = time.monotonic()
        if done >= self._total or now - self._told_s >= _REPORT_S:
            self._told_s = now
            step = Progress(self._status, self._what, self._total, done)
            trio.from_thread.run(self._out.send, step)


def _named(message: str, name: str) -> str:
    """The exact text for what is no GGUF at all, which clients know; the file's name before anything else."""
    return message if message == NOT_GGUF else f"{name}: {message}"
