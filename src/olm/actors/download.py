"""Downloads: one temporary actor for each digest, however many jobs wait for it.

Parts are fetched in parallel, from the beginning on; the hash follows; a record on disk says how far it has come, so
that whatever ends the download, the next one goes on from there. Which bytes these are is `olm.registry.ranges`' business.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from pathlib import Path

import attrs
import trio

from olm.actors.runtime import Actor, StreamMessage, StreamSink, streams
from olm.errors import OlmError, StoreError, first_error
from olm.log import get_logger
from olm.registry.client import Registry, open_registry
from olm.registry.errors import RangesIgnored, RegistryError, TryAgain
from olm.registry.ranges import backoff_s, encode_record, split
from olm.store.blobs import BlobStore
from olm.store.names import Digest
from olm.store.partials import PartialBlob

__all__ = ["Download", "DownloadConfig", "Follow", "Pace"]

_CHUNK_BYTES = 1 << 20  # one thread hop and one write for each
_SAVE_S = 10.0
_log = get_logger("pull")


@attrs.frozen(kw_only=True)
class Pace:
    """The numbers of a download.

    Attributes:
        part_bytes: a request's share. Small enough that the hash, which waits for the first part of several,
            finds its bytes still in memory.
        n_streams: connections for one blob.
        stall_s: without a byte for so long, a connection is given up.
        n_tries: failures in a row, without a byte between them, that end a part (Ollama's 6).
        first_wait_s: before the first new try; doubled each time.
        record_s: how often progress is noted on disk; a power cut loses no more than that.
        progress_s: how often progress is reported (Ollama's 60 ms).
    """

    part_bytes: int = 64 << 20
    n_streams: int = 8
    stall_s: float = 30.0
    n_tries: int = 6
    first_wait_s: float = 1.0
    record_s: float = 2.0
    progress_s: float = 0.06


@attrs.frozen(kw_only=True)
class DownloadConfig:
    """What is downloaded, and with what.

    Attributes:
        base: the repository's address.
        home: where the key is.
        connections, threads: limits that all downloads share.
    """

    digest: Digest
    size_bytes: int
    base: str
    home: Path
    blobs: BlobStore
    pace: Pace
    connections: trio.CapacityLimiter
    threads: trio.CapacityLimiter


class Follow(StreamMessage[int], frozen=True):
    """Tell how many bytes are there, until all are and the blob is in the store."""


class Download(Actor):
    """One download. It begins at once, and ends when its actor does, keeping what it has."""

    __slots__ = ("_config", "_ended", "_error", "_n_bytes", "_scope")

    def __init__(self, config: DownloadConfig) -> None:
        self._config = config
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._error: OlmError | None = None
        self._n_bytes = 0

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
            if self._n_bytes > told:
                told = self._n_bytes
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
        with opened:
            self._progressed(opened.held.n_bytes)
            async with open_registry(config.base, config.home) as registry:
                fetch = _Fetch(config, registry, opened, self._progressed)
                await fetch.run()
            await trio.to_thread.run_sync(opened.publish, limiter=config.threads)
        _log.info("downloaded %s, %d bytes", config.digest, config.size_bytes)

    def _progressed(self, n_bytes: int) -> None:
        self._n_bytes = max(self._n_bytes, n_bytes)


@attrs.define
class _Part:
    """Bytes that one request is to bring; `at` moves on as they are written."""

    at: int
    end: int


class _Fetch:
    """The tasks of one download: they fetch parts, hash what is there from the beginning, and note how far it is."""

    def __init__(
        self,
        config: DownloadConfig,
        registry: Registry,
        opened: PartialBlob,
        progressed: Callable[[int], None],
    ) -> None:
        self._config = config
        self._pace = config.pace
        self._registry = registry
        self._opened = opened
        self._held = opened.held
        self._progressed = progressed
        self._moved = trio.Event()
        self._ranges_work = trio.Event()
        self._n_saved = self._held.n_bytes

    async def run(self) -> None:
        """Fetch and hash all that is missing; whatever happens, what came stays usable."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_record)
                await self._work()
                nursery.cancel_scope.cancel("all bytes are there")
        except BaseException:
            with trio.move_on_after(_SAVE_S, shield=True):
                await self._save_or_say()
            raise

    async def _work(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hash)
            nursery.start_soon(self._fetch)

    async def _fetch(self) -> None:
        try:
            await self._fetch_parts()
        except* RangesIgnored:
            self._ranges_work.set()
            await self._fetch_whole()

    async def _fetch_parts(self) -> None:
        parts = deque(
            _Part(*span)
            for span in split(self._held.gaps(self._config.size_bytes), self._pace.part_bytes)
        )
        async with trio.open_nursery() as nursery:
            for number in range(min(self._pace.n_streams, len(parts))):
                nursery.start_soon(self._fetch_some, parts, number == 0)

    async def _fetch_some(self, parts: deque[_Part], is_first: bool) -> None:
        if not is_first:
            # The first answer tells whether there are ranges, signs in, and finds where redirects lead.
            await self._ranges_work.wait()
        while parts:
            part = parts.popleft()
            await self._persist(part, is_whole=part.at == 0 and part.end == self._config.size_bytes)

    async def _fetch_whole(self) -> None:
        part = _Part(self._held.frontier, self._config.size_bytes)
        await self._persist(part, is_whole=True)

    async def _persist(self, part: _Part, *, is_whole: bool) -> None:
        """Try until the part is there. Raises RegistryError (`max retries exceeded: …`), DiskFull, StoreError."""
        n_failures = 0
        while part.at < part.end:
            before = part.at
            try:
                async with self._config.connections:
                    await self._attempt(part, is_whole=is_whole)
            except TryAgain as exc:
                n_failures = 1 if part.at > before else n_failures + 1
                if n_failures >= self._pace.n_tries:
                    raise RegistryError(f"max retries exceeded: {exc}") from exc
                _log.info("%s at %d: %s", self._config.digest, part.at, exc)
                wanted = exc.details.get("retry_after_s")
                wait_s = backoff_s(n_failures, random.random(), self._pace.first_wait_s)
                await trio.sleep(max(wait_s, wanted if isinstance(wanted, float) else 0.0))

    async def _attempt(self, part: _Part, *, is_whole: bool) -> None:
        """Send one request and write what it brings. Raises TryAgain when that is not all."""
        n_skip = part.at if is_whole else 0
        span = None if is_whole else (part.at, part.end)
        failure: TryAgain | None = None
        buffer = bytearray()
        with trio.CancelScope(deadline=trio.current_time() + self._pace.stall_s) as stalled:
            try:
                async with self._registry.blob(self._config.digest, span) as pieces:
                    self._ranges_work.set()
                    async for piece in pieces:
                        skipped = min(n_skip, len(piece))
                        n_skip -= skipped
                        buffer += memoryview(piece)[skipped:]
                        if part.at + len(buffer) >= part.end:
                            break
                        if len(buffer) >= _CHUNK_BYTES:
                            stalled.deadline = math.inf  # a slow disk is no fault of the registry
                            await self._write(part, buffer)
                            buffer = bytearray()
                        stalled.deadline = trio.current_time() + self._pace.stall_s
            except TryAgain as exc:
                failure = exc
        await self._write(part, buffer)
        if part.at < part.end:
            raise failure or TryAgain(
                f"no data for {self._pace.stall_s:g} s"
                if stalled.cancelled_caught
                else "the answer ended early"
            )

    async def _write(self, part: _Part, data: bytearray) -> None:
        del data[part.end - part.at :]
        await trio.to_thread.run_sync(
            self._opened.write_at, part.at, data, limiter=self._config.threads
        )
        self._held.add(part.at, part.at + len(data))
        part.at += len(data)
        self._progressed(self._held.n_bytes)
        self._moved.set()

    async def _hash(self) -> None:
        while self._opened.n_hashed < self._config.size_bytes:
            frontier = self._held.frontier
            if frontier > self._opened.n_hashed:
                await trio.to_thread.run_sync(
                    self._opened.hash_to, frontier, limiter=self._config.threads
                )
            else:
                self._moved = trio.Event()
                await self._moved.wait()

    async def _keep_record(self) -> None:
        while True:  # a clock, not a poll: each round writes what came since the last
            await trio.sleep(self._pace.record_s)
            await self._save()

    async def _save(self) -> None:
        n_bytes = self._held.n_bytes
        if n_bytes == self._n_saved:
            return
        # Taken before the bytes are synced: it must not speak of any that come later.
        record = encode_record(self._held, self._config.size_bytes)
        await trio.to_thread.run_sync(self._opened.save, record, limiter=self._config.threads)
        self._n_saved = n_bytes

    async def _save_or_say(self) -> None:
        try:
            await self._save()
        except StoreError as exc:
            _log.warning("%s: progress is not noted: %s", self._config.digest, exc)
