"""Downloads: one temporary actor for each digest, however many jobs wait for it.

It begins at once, tells how far it is to whoever asks, and puts the blob into the store. How the bytes come is
`olm.actors.parts`' business, which bytes these are `olm.registry.ranges`'.
"""

from __future__ import annotations

import trio

from olm.actors.parts import DownloadConfig, Pace, Parts
from olm.actors.runtime import Actor, StreamMessage, StreamSink, streams
from olm.errors import OlmError, first_error
from olm.log import get_logger
from olm.registry.client import open_registry
from olm.store.partials import PartialBlob

__all__ = ["Download", "DownloadConfig", "Follow", "Pace"]

_log = get_logger("pull")


class Follow(StreamMessage[int], frozen=True):
    """Tell how many bytes are there, until all are and the blob is in the store."""


class Download(Actor):
    """One download. It begins at once, and ends when its actor does, keeping what it has."""

    __slots__ = ("_config", "_ended", "_error", "_opened", "_scope")

    def __init__(self, config: DownloadConfig) -> None:
        self._config = config
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._error: OlmError | None = None
        self._opened: PartialBlob | None = None

    async def start(self) -> None:
        """Begin."""
        self.nursery.start_soon(self._run)

    async def stop(self) -> None:
        """Leave off and note what is there."""
        self._scope.cancel("nobody waits for this download any more")
        await self._ended.wait()

    @streams(Follow)
    async def on_follow(self, _: Follow, out: StreamSink[int]) -> None:
        """See `Follow`. Raises RegistryError, DigestMismatch, DiskFull, StoreError."""
        told = -1
        while not self._ended.is_set():
            if self._opened is not None and self._opened.n_held > told:
                told = self._opened.n_held
                await out.send(told)
            with trio.move_on_after(self._config.pace.progress_s):
                await self._ended.wait()
        if self._error is not None:
            # A new one for each who waits: a traceback must not grow in several tasks at once.
            raise type(self._error)(self._error.message, **self._error.details) from self._error
        await out.send(self._config.size_bytes)

    async def _run(self) -> None:
        try:
            with self._scope:
                await self._download()
        except OlmError as exc:
            self._error = exc
        except BaseExceptionGroup as group:
            self._error = first_error(group)
            if self._error is None or group.split(OlmError)[1] is not None:
                raise
        finally:
            self._ended.set()

    async def _download(self) -> None:
        config = self._config
        opened = await trio.to_thread.run_sync(
            PartialBlob,
            config.blobs.folder,
            config.digest,
            config.size_bytes,
            limiter=config.threads,
        )
        self._opened = opened
        with opened:
            async with open_registry(config.base, config.home) as registry:
                await Parts(config, registry, opened).fetch()
            await trio.to_thread.run_sync(opened.publish, limiter=config.threads)
        _log.info("downloaded %s, %d bytes", config.digest, config.size_bytes)
