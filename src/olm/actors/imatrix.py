"""Imatrix jobs: one temporary actor for each. A child lets the model read the text; the file it writes is handed on and removed.

How it is computed is `olm.convert.measuring`. One at a time: each has a model of its own in memory, beside those that answer.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio

from olm.actors.job import open_job
from olm.actors.jobs_client import ImatrixRequest, Progress
from olm.actors.runtime import Actor, StreamMessage, StreamSink, Supervisor, streams
from olm.actors.store import Hold, Release, Store
from olm.convert.job import open_measuring
from olm.convert.measure_wire import MeasureImportance, MeasureStep
from olm.errors import InvalidRequest
from olm.store.disk import TEMP_PREFIX, disk_errors
from olm.store.names import ModelName

__all__ = ["check_imatrix", "open_imatrix"]

_STOP_S: Final = 10.0
_PIECE_BYTES: Final = 192 << 10  # a whole number of base64's groups
_FEWEST_TOKENS: Final = 16  # as native/engine/imatrix.cpp has it
_MOST_TOKENS: Final = 1 << 20
_MOST_THREADS: Final = 512
_MOST_LAYERS: Final = 1 << 16


class _Run(StreamMessage[Progress | bytes], frozen=True):
    """Do the work: progress, then the file. Closing the stream cancels it."""

    window = 4


class _ImatrixJob(Actor):
    """One importance matrix. Temporary."""

    __slots__ = ("_request", "_store", "_supervisor", "_turn")

    def __init__(
        self,
        request: ImatrixRequest,
        supervisor: Supervisor,
        store: Store,
        turn: trio.CapacityLimiter,
    ) -> None:
        self._request = request
        self._supervisor = supervisor
        self._store = store
        self._turn = turn

    async def stop(self) -> None:
        """Let the weights go."""
        await self._store.actor.ask(Release(self.name), wait_for_restart=True)

    @streams(_Run)
    async def on_run(self, _: _Run, out: StreamSink[Progress | bytes]) -> None:
        """Run the job.

        Raises:
            ModelNotFound, InvalidRequest, LoadFailed, NotSupported, NativeError, DiskFull, StoreError.
            ModelError: the child died.
        """
        model = await self._store.get(self._request.model)
        if not model.weights_digest:
            raise InvalidRequest(f"{model.name} has no weights to compute with")
        await self._store.actor.ask(Hold(self.name, (model.weights_digest,)))
        if not self._turn.available_tokens:
            await out.send(Progress("waiting for another imatrix"))
        async with self._turn:
            await self._measure(model.weights, out)
        await out.send(Progress("success"))

    async def _measure(self, weights: Path, out: StreamSink[Progress | bytes]) -> None:
        target = self._store.blobs.folder / f"{TEMP_PREFIX}{secrets.token_hex(8)}"
        text = target.with_name(f"{target.name}-text")
        try:
            await _thread(partial(_write, text, self._request.text))
            await out.send(Progress("loading model"))
            await self._compute(_message(self._request, weights, text, target), out)
            await _send_file(target, out)
        finally:
            with trio.move_on_after(_STOP_S, shield=True):
                for path in (target, text):
                    await _thread(partial(path.unlink, missing_ok=True))

    async def _compute(self, message: MeasureImportance, out: StreamSink[Progress | bytes]) -> None:
        child = f"{self.name}-child"
        async with open_measuring(self._supervisor, child, message) as events:
            async for event in events:
                if isinstance(event, MeasureStep) and event.total:
                    await out.send(
                        Progress("computing imatrix", total=event.total, completed=event.completed)
                    )


def _message(request: ImatrixRequest, weights: Path, text: Path, target: Path) -> MeasureImportance:
    return MeasureImportance(
        model=str(weights),
        text=str(text),
        target=str(target),
        dataset=request.dataset,
        n_ctx=request.n_ctx,
        n_chunks=request.n_chunks,
        parse_special=request.parse_special,
        n_threads=request.n_threads,
        n_gpu_layers=request.n_gpu_layers,
    )


async def _thread(work: partial[None]) -> None:
    await trio.to_thread.run_sync(work)


def _write(path: Path, text: str) -> None:
    with disk_errors("write the text for the imatrix"):
        path.write_bytes(text.encode("utf-8", "replace"))


async def _send_file(path: Path, out: StreamSink[Progress | bytes]) -> None:
    with disk_errors("read the imatrix"):
        file = await trio.open_file(path, "rb")
    async with file:
        while True:
            with disk_errors("read the imatrix"):
                piece = await file.read(_PIECE_BYTES)
            if not piece:
                return
            await out.send(piece)


def check_imatrix(request: ImatrixRequest) -> None:
    """Check all that can be checked before any work.

    Raises:
        InvalidName, InvalidRequest: the request is wrong.
    """
    ModelName.parse(request.model)
    if not request.text:
        raise InvalidRequest("text is required: the model has to read something")
    if request.n_ctx and not _FEWEST_TOKENS <= request.n_ctx <= _MOST_TOKENS:
        raise InvalidRequest(
            f"a chunk has {_FEWEST_TOKENS} to {_MOST_TOKENS} tokens, not {request.n_ctx}"
        )
    if request.n_chunks < 0:
        raise InvalidRequest(f"there are no {request.n_chunks} chunks")
    if not 0 <= request.n_threads <= _MOST_THREADS:
        raise InvalidRequest(f"{request.n_threads} threads are not between 0 and {_MOST_THREADS}")
    if not 0 <= request.n_gpu_layers <= _MOST_LAYERS:
        raise InvalidRequest(f"there are no {request.n_gpu_layers} layers")


@asynccontextmanager
async def open_imatrix(
    supervisor: Supervisor,
    name: str,
    store: Store,
    request: ImatrixRequest,
    turn: trio.CapacityLimiter,
) -> AsyncIterator[AsyncIterator[Progress | bytes]]:
    """Make an importance matrix; see `JobsClient.imatrix`. On leaving, the job has ended and its files are gone.

    Args:
        turn: held while a model is in memory.
    """
    check_imatrix(request)
    actor = partial(_ImatrixJob, request, supervisor, store, turn)
    async with open_job(supervisor, name, actor, _Run(), stop_within_s=_STOP_S) as steps:
        yield steps
