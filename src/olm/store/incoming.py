"""A blob on its way into the store from an archive: bytes are hashed in one thread while others read and write. Blocking.

As with `blobs.PendingBlob`, a blob appears under its name only when it is whole, on disk and has that digest. Large ones
are written past the page cache (see `copying`). Measured a GiB: 0.9 s; 1.5 s one step after the other; 2 s through the
cache with `fdatasync` running along, which is in the writer's way.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, Self

from olm.errors import DigestMismatch
from olm.store.copying import Ring, clone_range, pwrite_all, pwrite_past_cache
from olm.store.disk import TEMP_PREFIX, disk_errors, fsync_dir
from olm.store.names import Digest

__all__ = ["CHUNK_BYTES", "IncomingBlob"]

CHUNK_BYTES: Final = 4 << 20
"""Read, hashed and written in one go: some milliseconds, so that handing it between threads costs little."""
_DOING: Final = "write to the model store"


class IncomingBlob:
    """Fill `room`, say `advance`, and `commit` at the end. For one thread, with two of its own behind it."""

    def __init__(self, folder: Path, digest: Digest, size: int) -> None:
        """Begin a blob of `size` bytes. Raises DiskFull, StoreError."""
        self._folder = folder
        self._digest = digest
        self._size = size
        self._hash = hashlib.sha256()
        self._path = folder / f"{TEMP_PREFIX}{secrets.token_hex(8)}"
        self._ring = Ring(min(size, CHUNK_BYTES))
        self._is_cloned = False
        self.n_taken = 0
        self._threads = ExitStack()
        with disk_errors(_DOING):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o644)
        self._hasher = self._thread()
        self._writer = self._thread()

    def _thread(self) -> ThreadPoolExecutor:
        # Starts with its first work, so a small blob has none.
        return self._threads.enter_context(ThreadPoolExecutor(1, "olm-import"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.discard()

    @property
    def n_left(self) -> int:
        """How many bytes are still to come."""
        return self._size - self.n_taken

    def clone(self, source: int, offset: int) -> Callable[[memoryview], int] | None:
        """Share the bytes of a file instead of writing them, where the file system can.

        Returns what reads them back: they are hashed as they are in the store, whatever becomes of the file.
        """
        with disk_errors(_DOING):
            n_shared = clone_range(source, self._fd, offset, 0, self._size)
            if not n_shared:
                return None
            rest = os.pread(source, self._size - n_shared, offset + n_shared)
            pwrite_all(self._fd, rest, n_shared)
        self._is_cloned = True
        return lambda view: os.preadv(self._fd, [view], self.n_taken)

    def room(self) -> memoryview:
        """Where the next bytes belong; not empty while any are to come. Raises DiskFull, StoreError of earlier ones."""
        with disk_errors(_DOING):
            return self._ring.room()[: self.n_left]

    def advance(self, n_bytes: int) -> None:
        """Take so many bytes from the beginning of `room`. Raises DiskFull, StoreError."""
        data, offset = self._ring.room()[:n_bytes], self.n_taken
        self.n_taken += n_bytes
        if self._size <= CHUNK_BYTES:
            self._hash.update(data)
            with disk_errors(_DOING):
                pwrite_all(self._fd, data, offset)
            return
        work = [self._hasher.submit(self._hash.update, data)]
        if not self._is_cloned:
            work.append(self._writer.submit(pwrite_past_cache, self._fd, data, offset))
        self._ring.turn(work)

    def commit(self) -> None:
        """Publish the blob durably.

        Raises:
            DigestMismatch: the bytes are not what was announced; nothing is kept.
            DiskFull, StoreError: the disk said no; nothing is kept.
        """
        assert not self.n_left, "all bytes are there"
        with disk_errors(_DOING):
            self._ring.wait()
            actual = Digest(self._hash.hexdigest())
            if actual != self._digest:
                raise DigestMismatch(f'digest mismatch, expected "{self._digest}", got "{actual}"')
            os.fsync(self._fd)
            os.replace(self._path, self._folder / self._digest.file_name)
            fsync_dir(self._folder)

    def discard(self) -> None:
        """Remove what was written, unless it was committed; doing it twice does no harm."""
        self._threads.close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
            with suppress(OSError):  # after a commit the name is gone
                self._path.unlink()
