"""The async rim of a blob's upload: chunks of bytes to a thread that hashes and writes them, bounded in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from olm.store.blobs import PendingBlob

__all__ = ["Upload"]

_CHUNK_BYTES = 1 << 20  # one thread hop and one write for each


class Upload:
    """A blob on its way in; see `olm.actors.client.BlobWriter`. Holds one chunk and what the caller just wrote."""

    __slots__ = ("_buffer", "_lease", "_limiter", "_pending")

    def __init__(
        self,
        pending: PendingBlob,
        lease: Callable[[], Awaitable[None]],
        limiter: trio.CapacityLimiter,
    ) -> None:
        """Wrap an open blob.

        Args:
            pending: owned by whoever made it; this object never discards it.
            lease: asks the store to keep the blob once it is published.
            limiter: of the threads that hash and write.
        """
        self._pending = pending
        self._lease = lease
        self._limiter = limiter
        self._buffer = bytearray()

    async def write(self, data: bytes) -> None:
        """Append bytes; a full chunk is hashed and written in a thread. Raises StoreError, DiskFull."""
        self._buffer += data
        if len(self._buffer) >= _CHUNK_BYTES:
            await self._flush()
        else:
            await trio.lowlevel.checkpoint()

    async def commit(self) -> bool:
        """Verify and publish durably; True when the blob is new. Raises DigestMismatch, StoreError, DiskFull."""
        await self._flush()
        # Leased before it appears, so that no delete in between can take it for an orphan.
        await self._lease()
        _, is_new = await trio.to_thread.run_sync(self._pending.commit, limiter=self._limiter)
        return is_new

    async def _flush(self) -> None:
        chunk, self._buffer = self._buffer, bytearray()
        await trio.to_thread.run_sync(self._pending.write, chunk, limiter=self._limiter)
