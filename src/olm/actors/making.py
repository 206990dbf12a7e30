"""Conversions for create jobs: a child converts or quantizes beside the blobs, and what it wrote becomes blobs.

What to convert is the intake's affair, how is `olm.convert`'s. A conversion that is left, fails or dies leaves nothing.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import msgspec
import trio

from olm.actors.jobs_client import Progress
from olm.actors.runtime import StreamSink, Supervisor
from olm.actors.store import Store
from olm.convert.job import open_conversion, projector_path
from olm.convert.wire import Convert, Converted, ConvertStep, Kind
from olm.store.disk import TEMP_PREFIX
from olm.store.names import Digest

__all__ = ["Made", "Making"]

_CLEAN_UP_S: Final = 10.0
# Ollama's digest of a bar that belongs to no blob has this many zeros; ours count, to keep the bars of several files apart.
_BAR_DIGITS: Final = 19


@attrs.frozen
class Made:
    """A file that a conversion made, a blob by now; `is_new`: the store did not have it."""

    kind: Kind
    digest: Digest
    size_bytes: int
    is_new: bool


@attrs.frozen
class Making:
    """Converts for one job.

    Attributes:
        supervisor: of the converting children.
        owner: the job's name.
        keep: holds a blob for the job before it is made.
        out: where progress goes.
    """

    supervisor: Supervisor
    store: Store
    owner: str
    keep: Callable[[Digest], Awaitable[None]]
    out: StreamSink[Progress]
    _numbers: Iterator[int] = attrs.field(factory=partial(itertools.count, 1), init=False)
    _bars: Iterator[int] = attrs.field(factory=itertools.count, init=False)
    # A sync of gigabytes must not keep other jobs from their small files.
    _threads: trio.CapacityLimiter = attrs.field(
        factory=partial(trio.CapacityLimiter, 1), init=False, repr=False
    )

    async def make(self, request: Convert, status: str, *, first: str = "") -> list[Made]:
        """Convert, and store what comes of it.

        Args:
            request: its `target` does not matter.
            status: what is said while the model is written.
            first: what is said before.

        Raises:
            CheckpointError, GgufError, InvalidRequest: the source cannot be converted so; names file and tensor.
            DiskFull, StoreError: the disk said no.
            ModelError: the child died.
        """
        target = self.store.blobs.folder / f"{TEMP_PREFIX}{secrets.token_hex(8)}"
        request = msgspec.structs.replace(request, target=str(target))
        try:
            if first:
                await self.out.send(Progress(first))
            written = await self._convert(request, status)
            return [await self._adopt(item) for item in written]
        finally:
            with trio.move_on_after(_CLEAN_UP_S, shield=True):
                for path in (target, projector_path(target)):
                    await trio.to_thread.run_sync(partial(path.unlink, missing_ok=True))

    async def _convert(self, request: Convert, status: str) -> list[Converted]:
        written: list[Converted] = []
        bars: dict[Kind, str] = {}
        name = f"{self.owner}-convert-{next(self._numbers)}"
        async with open_conversion(self.supervisor, name, request) as events:
            async for event in events:
                step = event
                if isinstance(event, Converted):
                    written.append(event)
                    step = ConvertStep(event.kind, event.size_bytes, event.size_bytes)
                if isinstance(step, ConvertStep) and step.total:
                    text = "converting projector" if step.kind == "projector" else status
                    if step.kind not in bars:
                        bars[step.kind] = f"{next(self._bars):0{_BAR_DIGITS}}"
                    await self.out.send(Progress(text, bars[step.kind], step.total, step.completed))
        for item in written:
            for note in item.notes:
                await self.out.send(Progress(note))
        return written

    async def _adopt(self, item: Converted) -> Made:
        digest = Digest(item.sha256)
        await self.keep(digest)
        is_new = await trio.to_thread.run_sync(
            self.store.blobs.adopt, Path(item.path), digest, item.size_bytes, limiter=self._threads
        )
        return Made(item.kind, digest, item.size_bytes, is_new)
