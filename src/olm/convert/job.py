"""Convert in a child process, from the daemon's side: start it, follow it, and leave nothing when it is stopped or dies.

What the child does is `olm.convert.run`; where the files go afterwards is the caller's business.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import trio

from olm.actors.runtime import (
    ActorStopped,
    ChildSpec,
    ProcessOptions,
    Stream,
    Supervisor,
    process_actor,
)
from olm.convert.wire import Convert, ConvertEvent
from olm.errors import ModelError

__all__ = ["open_conversion", "projector_path"]

_CHILD: Final = "olm.convert.child:Converter"
# A cancelled conversion is over in this time, whatever its threads do; they look at a flag every few milliseconds.
_STOP_S: Final = 1.0
_NICE: Final = 10


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
    options = ProcessOptions(env=env or {}, nice=_NICE, title="olm convert")
    actor = process_actor(_CHILD, options=options)
    spec = ChildSpec(name, actor, restart="temporary", stop_within_s=_STOP_S)
    events: _Events | None = None
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
                await trio.to_thread.run_sync(_remove, Path(request.target))


class _Events:
    """The events of a stream, and whether all of them were taken."""

    def __init__(self, stream: Stream[ConvertEvent]) -> None:
        self._stream = stream
        self.is_over = False

    def __aiter__(self) -> AsyncIterator[ConvertEvent]:
        return self

    async def __anext__(self) -> ConvertEvent:
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
