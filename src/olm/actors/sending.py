"""One blob on its way to a registry: begun or gone on with, sent in chunks, tried again, ended.

The requests are `olm.registry.upload`'s, the job around it `olm.actors.push`'s. What was sent is not taken back when this is
cancelled: a record says where the next push goes on.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import attrs
import trio

from olm.actors.bandwidth import Bandwidth
from olm.errors import CorruptStore
from olm.log import get_logger
from olm.registry.errors import RegistryError, TryAgain
from olm.registry.ranges import backoff_s
from olm.registry.upload import Detour, Spot, Uploads
from olm.registry.upload_record import UploadRecord
from olm.store.disk import disk_errors
from olm.store.names import Digest

__all__ = ["Means", "SendPace", "Sending", "retry_wait_s"]

R = TypeVar("R")

_LOST = frozenset((400, 404, 409, 410, 416))
"""What registries answer when an upload is unknown or elsewhere than we think."""
_HASH_BYTES = 32 << 20  # a thread's share: between two, the push can be cancelled
_log = get_logger("push")


@attrs.frozen(kw_only=True)
class SendPace:
    """The numbers of an upload.

    Attributes:
        chunk_bytes: one request's share. A registry that cannot say how far a broken request came loses this much, or all.
        piece_bytes: read from the file and handed to the connection at a time.
        stall_s: when the connection takes nothing for so long, it is given up.
        answer_s: how long a registry may take to answer when it has a chunk whole.
        finish_s: how long it may take at the end, when many read the blob once more.
        n_tries: failures in a row, without a new byte between them, that end the upload (Ollama's 6).
        first_wait_s: before the first new try; doubled each time.
        progress_s: how often progress is reported (Ollama's 60 ms).
    """

    chunk_bytes: int = 64 << 20
    piece_bytes: int = 1 << 20
    stall_s: float = 30.0
    answer_s: float = 120.0
    finish_s: float = 900.0
    n_tries: int = 6
    first_wait_s: float = 1.0
    progress_s: float = 0.06


@attrs.frozen(kw_only=True)
class Means:
    """What an upload is made with.

    Attributes:
        bandwidth: the job's limit.
        threads, connections: limits that all pushes share.
    """

    uploads: Uploads
    pace: SendPace
    bandwidth: Bandwidth
    threads: trio.CapacityLimiter
    connections: trio.CapacityLimiter


def retry_wait_s(failure: TryAgain, n_failures: int, pace: SendPace) -> float:
    """How long to wait after the n-th failure in a row: longer each time, and no shorter than the registry asks for."""
    wanted = failure.details.get("retry_after_s")
    wait_s = backoff_s(n_failures, random.random(), pace.first_wait_s)
    return max(wait_s, wanted if isinstance(wanted, float) else 0.0)


class Sending:
    """The upload of one blob.

    Args:
        source: the repository that may have the blob already; see `olm.registry.upload.mount_source`.
        progressed: told whenever more bytes are there; never fewer.
    """

    def __init__(
        self,
        digest: Digest,
        path: Path,
        means: Means,
        record: UploadRecord,
        *,
        source: str = "",
        progressed: Callable[[int], None],
    ) -> None:
        self._digest = digest
        self._path = path
        self._means = means
        self._record = record
        self._source = source
        self._progressed = progressed
        self._fd = -1
        self._size = 0
        self._url = ""
        self._at = 0
        self._furthest = 0
        self._is_unsure = False
        self._may_be_there = True
        self._sums: list[bytes] = []  # of chunks that were brought elsewhere

    async def run(self) -> None:
        """Bring the blob there. Raises RegistryError (`max retries exceeded: …`), CorruptStore, StoreError."""
        with disk_errors("read from the model store"):
            self._fd = await self._in_thread(
                partial(os.open, self._path, os.O_RDONLY | os.O_CLOEXEC)
            )
        try:
            self._size = os.fstat(self._fd).st_size
            self._url = await self._in_thread(self._record.load)
            self._is_unsure = bool(self._url)
            await self._persist()
            await self._in_thread(self._record.clear)
        finally:
            os.close(self._fd)

    async def _persist(self) -> None:
        n_failures = 0
        while True:
            before = self._furthest
            try:
                async with self._means.connections:
                    await self._attempt()
            except TryAgain as exc:
                # Only bytes that were never there before count: a registry that forgets an upload over and over would
                # have us send its beginning for ever.
                n_failures = 1 if self._furthest > before else n_failures + 1
                session = self._means.uploads.registry.session
                if "is_unreached" in exc.details and not session.has_answered:
                    # A wrong name, or no network: nobody should wait half a minute to be told.
                    raise RegistryError(exc.message) from exc
                if n_failures >= self._means.pace.n_tries:
                    raise RegistryError(f"max retries exceeded: {exc}") from exc
                _log.info("%s at %d: %s", self._digest, self._at, exc)
                wait_s = retry_wait_s(exc, n_failures, self._means.pace)
            else:
                self._note(self._size)
                return
            await trio.sleep(wait_s)

    async def _attempt(self) -> None:
        """Go as far as it goes. Raises TryAgain, RegistryError."""
        if self._may_be_there:
            if await self._means.uploads.registry.has_blob(self._digest, self._size):
                return
            self._may_be_there = False
        if self._url and self._is_unsure:
            await self._find_out()
        if not self._url:
            begun = await self._means.uploads.begin(self._digest, self._source)
            if begun is None:
                return
            self._sums.clear()
            await self._go_on(begun.url, 0)
        while self._at < self._size:
            await self._send_chunk()
        await self._finish()

    async def _find_out(self) -> None:
        """Ask how far the upload came; begin a new one where the registry does not know it any more."""
        try:
            spot = await self._means.uploads.status(self._url)
        except TryAgain:
            raise
        except RegistryError as exc:
            _log.info("%s: begun anew, for the registry says %s", self._digest, exc)
            self._url = ""
            return
        n_bytes = spot.n_bytes or 0
        if n_bytes > self._size:
            self._url = ""
            return
        await self._go_on(spot.url, n_bytes)

    async def _go_on(self, url: str, at: int) -> None:
        self._url, self._at, self._is_unsure = url, at, False
        self._note(at)
        if not self._sums:
            await self._in_thread(partial(self._record.save, url))

    def _note(self, n_bytes: int) -> None:
        if n_bytes > self._furthest:
            self._furthest = n_bytes
            self._progressed(n_bytes)

    async def _send_chunk(self) -> None:
        pace, uploads = self._means.pace, self._means.uploads
        span = (self._at, min(self._at + pace.chunk_bytes, self._size))
        self._is_unsure = not self._sums
        try:
            answer = await self._moving(span, partial(uploads.send, self._url, span))
            if isinstance(answer, Detour):
                await self._detour(answer, span)
            else:
                await self._sent(answer, span)
        except TryAgain:
            raise
        except RegistryError as exc:
            if exc.details.get("http_status") not in _LOST:
                raise
            if self._sums:
                self._url = ""
            raise TryAgain(exc.message) from exc

    async def _sent(self, spot: Spot, span: tuple[int, int]) -> None:
        """Go by what the registry says it has: it may have taken less than was sent."""
        n_bytes = span[1] if spot.n_bytes is None or span[1] == 1 else spot.n_bytes
        if n_bytes > span[1]:
            self._url = ""
            raise TryAgain(f"the registry says that it has {n_bytes} bytes of {span[1]} sent")
        await self._go_on(spot.url, n_bytes)
        if n_bytes <= span[0]:
            raise TryAgain("the registry took nothing of what was sent")

    async def _detour(self, detour: Detour, span: tuple[int, int]) -> None:
        """Bring a chunk to another place. Its sum goes into the end of the upload, as Ollama's registry wants it."""
        self._is_unsure = False  # the registry itself has no byte of it, and would say so
        put = partial(self._means.uploads.put, detour, span[1] - span[0])
        sums: list[hashlib._Hash] = []
        await self._moving(span, put, sums)
        self._sums.append(sums[-1].digest())  # a body that was begun again has a sum of its own
        await self._in_thread(self._record.clear)
        await self._go_on(detour.url, span[1])

    async def _finish(self) -> None:
        etag = ""
        if self._sums:
            whole = hashlib.md5(b"".join(self._sums), usedforsecurity=False)
            etag = f"{whole.hexdigest()}-{len(self._sums)}"
        self._may_be_there = True  # an answer that is lost may have been a good one
        try:
            await self._means.uploads.finish(
                self._url, self._digest, etag, self._means.pace.finish_s
            )
        except TryAgain:
            self._is_unsure = not self._sums
            raise
        except RegistryError as exc:
            if exc.details.get("http_status") not in _LOST:
                raise
            self._url = ""
            await self._check_own_bytes()
            raise TryAgain(exc.message) from exc

    async def _check_own_bytes(self) -> None:
        """Before all is sent again: make sure that the wrong bytes are not ours. Raises CorruptStore."""
        found = hashlib.sha256()

        def hash_some(at: int) -> None:
            with disk_errors("read from the model store"):
                for start in range(at, at + _HASH_BYTES, 1 << 20):
                    found.update(os.pread(self._fd, 1 << 20, start))

        for at in range(0, self._size, _HASH_BYTES):
            await self._in_thread(partial(hash_some, at))
        if found.hexdigest() != self._digest.hex:
            raise CorruptStore(f"blob {self._digest} is damaged: its bytes have another digest")

    async def _moving(
        self,
        span: tuple[int, int],
        request: Callable[[Callable[[], _Pieces]], Awaitable[R]],
        sums: list[hashlib._Hash] | None = None,
    ) -> R:
        """Send a request with the bytes of a span as its body; give it up when nothing moves."""
        stall_s = self._means.pace.stall_s
        with trio.CancelScope(deadline=trio.current_time() + stall_s) as stalled:
            return await request(
                partial(_Pieces, self._fd, span, self._means, stalled, self._note, sums)
            )
        raise TryAgain(f"nothing could be sent for {stall_s:g} s")

    async def _in_thread(self, work: Callable[[], R]) -> R:
        return await trio.to_thread.run_sync(work, limiter=self._means.threads)


class _Pieces:
    """A body: the bytes of a span, read in a thread when the connection wants more. Knows when the connection stands still."""

    def __init__(
        self,
        fd: int,
        span: tuple[int, int],
        means: Means,
        stalled: trio.CancelScope,
        progressed: Callable[[int], None],
        sums: list[hashlib._Hash] | None,
    ) -> None:
        self._fd = fd
        self._at, self._end = span
        self._means = means
        self._stalled = stalled
        self._progressed = progressed
        self._sum = hashlib.md5(usedforsecurity=False) if sums is not None else None
        if sums is not None and self._sum is not None:
            sums.append(self._sum)

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        self._progressed(self._at)  # what was handed out before has gone by now
        pace = self._means.pace
        if self._at >= self._end:
            self._stalled.deadline = trio.current_time() + pace.answer_s
            raise StopAsyncIteration
        self._stalled.deadline = (
            math.inf
        )  # neither a slow disk nor our own limit is the connection's fault
        n_bytes = min(self._means.bandwidth.piece_bytes(pace.piece_bytes), self._end - self._at)
        data = await trio.to_thread.run_sync(self._read, n_bytes, limiter=self._means.threads)
        await self._means.bandwidth.spend(len(data))
        self._at += len(data)
        self._stalled.deadline = trio.current_time() + pace.stall_s
        return data

    def _read(self, n_bytes: int) -> bytes:
        with disk_errors("read from the model store"):
            data = os.pread(self._fd, n_bytes, self._at)
        if not data:
            raise CorruptStore("a blob became shorter while it was sent")
        if self._sum is not None:
            self._sum.update(data)
        return data
