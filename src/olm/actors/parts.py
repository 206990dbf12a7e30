"""How the bytes of one download come: tasks that fetch its parts, hash what is there, and note how far it is.

Parts are fetched in parallel, from the beginning on, each in a thread (`olm.registry.fetch`); the hash follows in
another. A record on disk says how far it has come, so that whatever ends the download, the next one goes on from there.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from olm.actors.connections import Connections
from olm.errors import DiskFull, StoreError
from olm.log import get_logger
from olm.outbound import make_blocking_client
from olm.registry.client import USER_AGENT, Place, Registry
from olm.registry.errors import RangesIgnored, RegistryError, TryAgain
from olm.registry.fetch import Body, Handover, Limit, Part, copy_body, open_body
from olm.registry.ranges import backoff_s, split
from olm.store.blobs import BlobStore
from olm.store.names import Digest
from olm.store.partials import PartialBlob, no_room

__all__ = ["DownloadConfig", "Pace", "Parts"]

_SAVE_S = 10.0
_MAX_SLOW = 3
"""After so many new connections a part is taken to be slow by nature, and left alone."""
_log = get_logger("pull")


@attrs.frozen(kw_only=True)
class Pace:
    """The numbers of a download.

    Attributes:
        part_bytes: a request's share. Small enough that the hash, which waits for the first part of several,
            finds its bytes still in memory.
        n_streams: connections for one blob, at most (Ollama's 16).
        stall_s: without a byte for so long, a connection is given up.
        n_tries: failures in a row, without a byte between them, that end a part (Ollama's 6).
        first_wait_s: before the first new try; doubled each time.
        record_s: how often progress is noted on disk; a power cut loses no more than that.
        progress_s: how often progress is reported (Ollama's 60 ms).
        look_s: how often rates are looked at.
        small_bytes: blobs up to this size come in one request and are not kept in part.
    """

    part_bytes: int = 64 << 20
    n_streams: int = 16
    stall_s: float = 30.0
    n_tries: int = 6
    first_wait_s: float = 1.0
    record_s: float = 2.0
    progress_s: float = 0.06
    look_s: float = 1.0
    small_bytes: int = 1 << 20


@attrs.frozen(kw_only=True)
class DownloadConfig:
    """What is downloaded, and with what.

    Attributes:
        base: the repository's address.
        home: where the key is.
        connections, threads: what all downloads share. A thread is for moments, connections have their own.
        limit: how fast.
    """

    digest: Digest
    size_bytes: int
    base: str
    home: Path
    blobs: BlobStore
    pace: Pace
    connections: Connections
    threads: trio.CapacityLimiter
    limit: Limit


class Parts:
    """The tasks of one download."""

    def __init__(self, config: DownloadConfig, registry: Registry, opened: PartialBlob) -> None:
        self._config = config
        self._pace = config.pace
        self._registry = registry
        self._opened = opened
        self._locating = trio.Lock()
        self._place: Place | None = None
        self._has_ranges = True
        self._is_small = config.size_bytes <= config.pace.small_bytes
        # Threads of connections and of the hash live long: waiting for one of those would be a deadlock.
        self._own_threads = trio.CapacityLimiter(2 * self._pace.n_streams + 2)

    async def fetch(self) -> None:
        """Fetch and hash all that is missing; whatever happens, what came stays usable.

        Raises RegistryError (`max retries exceeded: …`), DiskFull, StoreError, in a group.
        """
        try:
            async with self._open_client(), trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_record)
                nursery.start_soon(self._watch)
                await self._work()
                nursery.cancel_scope.cancel("all bytes are there")
        except BaseException as exc:
            with trio.move_on_after(_SAVE_S, shield=True):
                await self._save_at_last()
            if isinstance(exc, BaseExceptionGroup) and (full := exc.subgroup(DiskFull)) is not None:
                needed_bytes = self._config.size_bytes - self._opened.n_held
                error = no_room(self._config.blobs.folder, needed_bytes)
                raise DiskFull(f"{error}; what was downloaded is kept") from full
            raise

    @asynccontextmanager
    async def _open_client(self) -> AsyncIterator[None]:
        if self._is_small:
            yield
            return
        make = partial(make_blocking_client, USER_AGENT)
        self._client = await trio.to_thread.run_sync(make, limiter=self._config.threads)
        try:
            yield
        finally:
            self._client.close()

    async def _work(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hash)
            nursery.start_soon(self._fetch_all)

    async def _hash(self) -> None:
        await trio.to_thread.run_sync(
            self._opened.hash_all, trio.from_thread.check_cancelled, limiter=self._own_threads
        )

    async def _fetch_all(self) -> None:
        parts = deque(Part(*span) for span in split(self._opened.gaps(), self._pace.part_bytes))
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(min(self._pace.n_streams, len(parts))):
                    nursery.start_soon(self._fetch_some, parts)
        except* RangesIgnored:
            self._has_ranges = False
            await self._persist(Part(self._opened.frontier, self._config.size_bytes))

    async def _fetch_some(self, parts: deque[Part]) -> None:
        while parts:
            await self._persist(parts.popleft())

    async def _persist(self, part: Part) -> None:
        """Try until the part is there.

        Raises RangesIgnored, RegistryError (`max retries exceeded: …`), DiskFull, StoreError.
        """
        n_failures = n_slow = 0
        connections = self._config.connections
        while not part.is_done:
            before, held_before = part.at, self._opened.n_held
            try:
                async with connections.transfer(
                    self, part, is_exempt=n_slow >= _MAX_SLOW
                ) as transfer:
                    with transfer.scope:
                        await (self._attempt_small if self._is_small else self._attempt)(part)
                if transfer.scope.cancelled_caught:
                    n_slow += 1
                    _log.info("%s at %d: slow, opened again", self._config.digest, part.at)
            except TryAgain as exc:
                moved = part.at > before or (
                    # As in Ollama a stall costs no try, but only while the link as a whole lives.
                    "is_stalled" in exc.details and self._opened.n_held > held_before
                )
                n_failures = 1 if moved else n_failures + 1
                if n_failures >= self._pace.n_tries:
                    raise RegistryError(f"max retries exceeded: {exc}") from exc
                _log.info("%s at %d: %s", self._config.digest, part.at, exc)
                if part.at == before:
                    # The address may have expired, or its host be gone: ask the registry again.
                    self._place = None
                    self._registry.forget(self._config.digest)
                await trio.sleep(self._wait_s(exc, n_failures))

    def _wait_s(self, failure: TryAgain, n_failures: int) -> float:
        status, wanted = failure.details.get("http_status"), failure.details.get("retry_after_s")
        if status == 429 or (isinstance(status, int) and status >= 500):
            self._config.connections.refused(trio.current_time())
        wait_s = backoff_s(n_failures, random.random(), self._pace.first_wait_s)
        return max(wait_s, wanted if isinstance(wanted, float) else 0.0)

    async def _attempt(self, part: Part) -> None:
        """Send one request and write what it brings. Raises TryAgain when that is not all, RangesIgnored."""
        place = await self._locate()
        has_ranges = self._has_ranges and place.has_ranges
        if not has_ranges and part.end < self._config.size_bytes:
            raise RangesIgnored(f"{place.url} comes whole only")
        body = await self._ask(place, (part.at, part.end) if has_ranges else None)
        try:
            await trio.to_thread.run_sync(
                copy_body,
                body,
                part,
                self._opened,
                self._config.limit,
                self._pace.stall_s,
                0 if has_ranges else part.at,
                limiter=self._own_threads,
            )
        finally:
            body.close()

    async def _ask(self, place: Place, span: tuple[int, int] | None) -> Body:
        handover = Handover()
        try:
            await trio.to_thread.run_sync(
                open_body,
                self._client,
                place,
                span,
                self._pace.stall_s,
                handover,
                abandon_on_cancel=True,  # it only asks; what it gets is closed if nobody takes it
                limiter=self._own_threads,
            )
            return handover.take()
        except BaseException:
            handover.leave()
            raise

    async def _attempt_small(self, part: Part) -> None:
        """Fetch a blob that is not worth threads and connections of its own, whole. Raises TryAgain."""
        data = bytearray()
        with trio.move_on_after(self._pace.stall_s) as stalled:
            async with self._registry.blob(self._config.digest, None) as pieces:
                async for piece in pieces:
                    data += piece
                    if len(data) >= part.end:
                        break
                    stalled.deadline = trio.current_time() + self._pace.stall_s
        if len(data) < part.end:
            ended = f"no data for {self._pace.stall_s:g} s" if stalled.cancelled_caught else ""
            raise TryAgain(ended or "the answer ended early")
        await self._config.limit.spend(len(data))
        await trio.to_thread.run_sync(
            self._opened.write_at, 0, data[: part.end], limiter=self._config.threads
        )
        part.at = part.end

    async def _locate(self) -> Place:
        async with self._locating:
            if self._place is None:
                self._place = await self._registry.locate(self._config.digest)
            return self._place

    async def _watch(self) -> None:
        while True:  # a clock, not a poll: each round compares with the one before
            await trio.sleep(self._pace.look_s)
            now_s = trio.current_time()
            self._config.connections.tick(now_s)
            self._config.connections.restart_slow(self, now_s)

    async def _keep_record(self) -> None:
        while True:  # each round writes what came since the last
            await trio.sleep(self._pace.record_s)
            await self._save()

    async def _save(self) -> None:
        await trio.to_thread.run_sync(self._opened.save, limiter=self._config.threads)

    async def _save_at_last(self) -> None:
        try:
            try:
                await self._save()
            except DiskFull:
                await trio.to_thread.run_sync(self._opened.make_room, limiter=self._config.threads)
                await self._save()
        except StoreError as exc:
            _log.warning("%s: progress is not noted: %s", self._config.digest, exc)
