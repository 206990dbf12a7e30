"""Convert in a child process, from the daemon's side: start it, follow it, and leave nothing when it is stopped or dies.

What the child does is `olm.convert.run` or `olm.convert.measuring`; where the files go afterwards is the caller's business.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Generic, TypeVar

import trio

from olm.actors.runtime import (
    ActorStopped,
    ChildSpec,
    ProcessOptions,
    Stream,
    StreamMessage,
    Supervisor,
    process_actor,
)
from olm.convert.measure_wire import MeasureEvent, MeasureImportance
from olm.convert.wire import Convert, ConvertEvent
from olm.errors import ModelError

__all__ = ["open_conversion", "open_measuring", "projector_path"]

T = TypeVar("T")

_CHILD: Final = "olm.convert.child:Converter"
# A cancelled conversion is over in this time, whatever its threads do; they look at a flag every few milliseconds.
_STOP_S: Final = 1.0
_NICE: Final = 10
# Threads of low priority that spin at barriers wait for one another while somebody else computes: with ten busy processes on two
# cores a small model read 2000 tokens in 20 s, with this (the runner's figure for large models) in 3 s.
_SPIN: Final = {"GOMP_SPINCOUNT": "2000"}


def projector_path(target: Path) -> Path:
    """Where the projector of a model goes that is written to `target`."""
    return target.with_name(f"{target.name}-projector")


@asynccontextmanager
async def open_conversion(
    supervisor: Supervisor, name: str, request: Convert, *, env: dict[str, str] | None = None
) -> AsyncIterator[AsyncIterator[ConvertEvent]]:
    """Start a child that converts, and give its events: steps, and a `Converted` for each file that is whole.

    Leaving the block stops the child within a second. What it has written stays only when the block is left normally and
    after the last event; otherwise it is removed.

    Args:
        name: unique under the supervisor.
        env: variables for the child.

    Raises:
        CheckpointError, GgufError, InvalidRequest: the source cannot be converted so; names file and tensor.
        DiskFull, StoreError: the disk said no.
        ModelError: the child died.
    """
    async with _open_child(supervisor, name, request, Path(request.target), env) as events:
        yield events


@asynccontextmanager
async def open_measuring(
    supervisor: Supervisor,
    name: str,
    request: MeasureImportance,
    *,
    env: dict[str, str] | None = None,
) -> AsyncIterator[AsyncIterator[MeasureEvent]]:
    """Start a child that makes an importance matrix; everything else as with `open_conversion`.

    Raises:
        InvalidRequest: the text is too short, or a chunk longer than the model's context.
        LoadFailed, NotSupported, NativeError: the model cannot be run.
        DiskFull, StoreError: the disk said no.
        ModelError: the child died.
    """
    env = {**_SPIN, **(env or {})}
    async with _open_child(supervisor, name, request, Path(request.target), env) as events:
        yield events


@asynccontextmanager
async def _open_child(
    supervisor: Supervisor,
    name: str,
    request: StreamMessage[T],
    target: Path,
    env: dict[str, str] | None,
) -> AsyncIterator[AsyncIterator[T]]:
    options = ProcessOptions(env=env or {}, nice=_NICE, title="olm convert")
    actor = process_actor(_CHILD, options=options)
    spec = ChildSpec(name, actor, restart="temporary", stop_within_s=_STOP_S)
    events: _Events[T] | None = None
    is_left = True
    try:
        address = await supervisor.start_child(spec)
        try:
            async with address.stream(request) as stream:
                events = _Events(stream)
                yield events
            is_left = not events.is_over
        except ActorStopped as exc:
            raise ModelError(f"the conversion stopped unexpectedly: {exc.message}") from exc
        finally:
            with trio.move_on_after(2 * _STOP_S, shield=True):
                await supervisor.stop_child(name, "the conversion has ended")
    finally:
        if is_left:
            with trio.move_on_after(2 * _STOP_S, shield=True):
                await trio.to_thread.run_sync(_remove, target)


class _Events(Generic[T]):
    """The events of a stream, and whether all of them were taken."""

    def __init__(self, stream: Stream[T]) -> None:
        self._stream = stream
        self.is_over = False

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await anext(self._stream)
        except StopAsyncIteration:
            self.is_over = True
            raise


def _remove(target: Path) -> None:
    """Blocking: the disk takes its time with large files."""
    for path in (target, projector_path(target)):
        with suppress(OSError):
            path.unlink()
