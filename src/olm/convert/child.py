"""The converting child: one conversion in a process of its own, as an actor. The daemon never imports this.

The work runs in threads and reads what it was given, which may be hostile; whatever becomes of it ends with this process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import trio

from olm.actors.runtime import Actor, StreamSink, streams
from olm.convert.measure_wire import MeasureEvent, MeasureImportance, MeasureStep
from olm.convert.measuring import measure
from olm.convert.run import convert
from olm.convert.wire import Convert, ConvertEvent, ConvertStep
from olm.native.lib import Cancelled
from olm.native.quantize import CancelFlag

__all__ = ["Converter"]

T = TypeVar("T")
Work = Callable[[Callable[[T], None], CancelFlag], None]
"""Blocking work, given where its events go and what stops it."""

_REPORT_S: Final = 0.1
# Steps that may wait for a slow consumer; more are dropped, for each says how far all of it is.
_N_WAITING: Final = 16


class Converter(Actor):
    """Converts what it is told to, one stream at a time."""

    @streams(Convert)
    async def on_convert(self, msg: Convert, out: StreamSink[ConvertEvent]) -> None:
        """See `wire.Convert`. Raises CheckpointError, GgufError, InvalidRequest, DiskFull, StoreError."""
        await _run(lambda send, flag: convert(msg, send, flag), out)

    @streams(MeasureImportance)
    async def on_measure(self, msg: MeasureImportance, out: StreamSink[MeasureEvent]) -> None:
        """See `measure_wire.MeasureImportance`, and `measuring.measure` for what it raises."""
        await _run(lambda send, flag: measure(msg, send, flag), out)


async def _run(work: Work[T], out: StreamSink[T]) -> None:
    """Do blocking work in a thread, and hand its events on; being cancelled, stop it."""
    flag = CancelFlag()
    # Room for every event that is no step: there are three at most.
    sender, receiver = trio.open_memory_channel[T](_N_WAITING + 3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_until_cancelled, flag)
        nursery.start_soon(_work, work, _Reporter(sender), flag)
        with receiver:
            async for event in receiver:
                await out.send(event)
        nursery.cancel_scope.cancel("the work is done")


async def _until_cancelled(flag: CancelFlag) -> None:
    """A thread cannot be cancelled, but it looks at the flag."""
    try:
        await trio.sleep_forever()
    finally:
        flag.set()


async def _work(work: Work[T], reporter: _Reporter[T], flag: CancelFlag) -> None:
    with reporter.sender:
        try:
            await trio.to_thread.run_sync(work, reporter.report, flag)
        except Cancelled:
            await trio.lowlevel.checkpoint()  # it was we who were cancelled


class _Reporter(Generic[T]):
    """Takes events from the working thread to the loop; steps no more often than somebody looks."""

    def __init__(self, sender: trio.MemorySendChannel[T]) -> None:
        self.sender = sender
        self._token = trio.lowlevel.current_trio_token()
        self._next_s = 0.0

    def report(self, event: T) -> None:
        """Called by the thread."""
        now_s = time.monotonic()
        if _is_step(event):
            if now_s < self._next_s:
                return
            self._next_s = now_s + _REPORT_S
        self._token.run_sync_soon(self._send, event)

    def _send(self, event: T) -> None:
        is_full = self.sender.statistics().current_buffer_used >= _N_WAITING
        if not (is_full and _is_step(event)):
            self.sender.send_nowait(event)


def _is_step(event: object) -> bool:
    return isinstance(event, ConvertStep | MeasureStep)
