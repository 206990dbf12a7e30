"""A process kept ready: Python started, a module imported, waiting to learn which actor it is to be."""

from __future__ import annotations

import logging
from typing import Final

import trio

from olm.actors.runtime._actor import Actor
from olm.actors.runtime._address import Address
from olm.actors.runtime._messages import Message, handles
from olm.actors.runtime.process import _frames as frames
from olm.actors.runtime.process._child_process import ChildProcess
from olm.actors.runtime.process._options import ProcessOptions
from olm.errors import ActorError

__all__ = ["SpareProcess", "take_spare"]

_log = logging.getLogger("olm.actors.process")

# A spare that cannot be started, or dies at once, is tried again after this long, then twice as long, and so on.
_RETRY_S: Final = 1.0
_RETRY_MAX_S: Final = 60.0


class _TakeSpare(Message[ChildProcess | None], frozen=True):
    """Hand over the spare if it is ready and set up this way."""

    options: ProcessOptions


class SpareProcess(Actor):
    """A pool of one that refills itself. Its address is the `spare` argument of `process_actor`.

    It never crashes its supervisor: without a spare, process actors start cold, and a warning says why.
    """

    def __init__(
        self,
        preload: str,
        options: ProcessOptions | None = None,
        *,
        refill_delay_s: float = 0.5,
    ) -> None:
        """Prepare.

        Args:
            preload: the module to import, with all it imports; usually the target's.
            options: how its processes are set up. Only process actors with equal options can use it.
            refill_delay_s: how long the next start waits, so that it does not slow down the actor just started.
        """
        self._preload = preload
        self._options = options or ProcessOptions()
        self._refill_delay_s = refill_delay_s
        self._ready: ChildProcess | None = None
        self._taken = trio.CancelScope()

    async def start(self) -> None:
        """Begin to fill; does not wait for the process."""
        self.nursery.start_soon(self._keep_filled, name=f"{self.name} refill")

    @property
    def is_ready(self) -> bool:
        """Whether a process waits."""
        return self._ready is not None

    @handles(_TakeSpare)
    def _on_take(self, msg: _TakeSpare) -> ChildProcess | None:
        process = self._ready
        if process is None or process.status is not None or msg.options != self._options:
            return None
        self._ready = None
        self._taken.cancel("the spare was taken")
        return process

    async def _keep_filled(self) -> None:
        retry_s = _RETRY_S
        while True:
            if await self._hold_one():
                retry_s = _RETRY_S
                await trio.sleep(self._refill_delay_s)
            else:
                await trio.sleep(retry_s)
                retry_s = min(_RETRY_MAX_S, retry_s * 2)

    async def _hold_one(self) -> bool:
        """Start one and keep it until it is taken (True) or found dead (False)."""
        try:
            process = ChildProcess(self._options)
        except OSError as exc:
            _log.warning("no spare process: %s", exc)
            return False
        with trio.CancelScope() as self._taken:
            try:
                await self._fill(process)
            except trio.Cancelled:
                if self._taken.cancel_called:
                    raise
                await process.kill_and_wait()
                raise
            process.read_output(_log)
            _log.warning("a spare process died; %s", process.report[-500:] or "it said nothing")
            await process.kill_and_wait()
            return False
        return True

    async def _fill(self, process: ChildProcess) -> None:
        """Preload, offer it, and return when it dies."""
        process.link.send(frames.Preload(self._preload))
        await process.link.flush()
        while (batch := await process.link.read()) is not None:
            if any(isinstance(frame, frames.Preloaded) for frame in batch):
                self._ready = process
                await process.wait()
                self._ready = None
                return


async def take_spare(spare: Address | None, options: ProcessOptions) -> ChildProcess | None:
    """Take the process of a spare, if it is there and fits. Cancelled, the spare keeps it."""
    if spare is None or not spare.is_running:
        return None
    try:
        return await spare.ask(_TakeSpare(options))
    except ActorError:
        return None
