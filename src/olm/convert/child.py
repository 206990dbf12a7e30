"""The converting child: one conversion in a process of its own, as an actor. The daemon never imports this.

The work runs in threads and reads what it was given, which may be hostile; whatever becomes of it ends with this process.
"""

from __future__ import annotations

import time
from typing import Final

import trio

from olm.actors.runtime import Actor, StreamSink, streams
from olm.convert.run import convert
from olm.convert.wire import Convert, Converted, ConvertEvent
from olm.native.lib import Cancelled
from olm.native.quantize import CancelFlag

__all__ = ["Converter"]

_REPORT_S: Final = 0.1
# Steps that may wait for a slow consumer; more are dropped, for each says how far all of it is.
_N_WAITING: Final = 16


class Converter(Actor):
    """Converts what it is told to, one stream at a time."""

    @streams(Convert)
    async def on_convert(self, msg: Convert, out: StreamSink[ConvertEvent]) -> None:
        """See `wire.Convert`. Raises CheckpointError, GgufError, InvalidRequest, DiskFull, StoreError."""
        flag = CancelFlag()
        # Room for every `Converted`: there are three kinds of them.
        sender, receiver = trio.open_memory_channel[ConvertEvent](_N_WAITING + 3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_cancelled, flag)
            nursery.start_soon(_work, msg, _Reporter(sender), flag)
            with receiver:
                async for event in receiver:
                    await out.send(event)
            nursery.cancel_scope.cancel("converted")


async def _until_cancelled(flag: CancelFlag) -> None:
    """A thread cannot be cancelled, but it looks at the flag."""
    try:
        await trio.sleep_forever()
    finally:
        flag.set()


async def _work(msg: Convert, reporter: _Reporter, flag: CancelFlag) -> None:
    with reporter.sender:
        try:
            await trio.to_thread.run_sync(convert, msg, reporter.report, flag)
        except Cancelled:
            await trio.lowlevel.checkpoint()  # it was we who were cancelled


class _Reporter:
    """Takes events from the converting thread to the loop; steps no more often than somebody looks."""

    def __init__(self, sender: trio.MemorySendChannel[ConvertEvent]) -> None:
        self.sender = sender
        self._token = trio.lowlevel.current_trio_token()
        self._next_s = 0.0

    def report(self, event: ConvertEvent) -> None:
        """Called by the thread."""
        now_s = time.monotonic()
        if not isinstance(event, Converted):
            if now_s < self._next_s:
                return
            self._next_s = now_s + _REPORT_S
        self._token.run_sync_soon(self._send, event)

    def _send(self, event: ConvertEvent) -> None:
        is_full = self.sender.statistics().current_buffer_used >= _N_WAITING
        if isinstance(event, Converted) or not is_full:
            self.sender.send_nowait(event)
