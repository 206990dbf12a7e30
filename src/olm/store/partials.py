"""A blob on its way from elsewhere, in any order: `blobs/sha256-<hex>-partial` and the record of what it holds so far.

Hashing follows the bytes that are there from the beginning, so a blob is verified when its last byte arrives; after a
restart what the record vouches for is hashed again. Blocking; names and records are such that Ollama resumes them, too.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from olm.errors import CorruptStore, DigestMismatch, DiskFull
from olm.registry.ranges import Coverage, decode_record, encode_record
from olm.store.disk import (
    disk_errors,
    free_bytes,
    fsync_dir,
    read_small,
    shortage,
    write_durably,
)
from olm.store.names import Digest

__all__ = ["PartialBlob", "check_room", "no_room", "partial_bytes"]

_DOING: Final = "write to the model store"
_HASH_BYTES: Final = 1 << 20
"""Read and hashed in one go: it stays in the processor's cache from the one to the other."""
_SPARE_BYTES: Final = 64 << 10
"""More than the record, a temporary file and a folder that grows need together."""
_CHECK_S: Final = 0.1
_RECORD_BYTES: Final = 1 << 20


class PartialBlob:
    """An open partial download of one digest. One at a time for each digest: the caller sees to that.

    `write_at` may run in several threads at once, each with a span of its own, `hash_all` and `save` in one each.
    """

    def __init__(self, folder: Path, digest: Digest, size_bytes: int) -> None:
        """Open or create the files. Raises DiskFull, StoreError."""
        self._folder = folder
        self._digest = digest
        self._size = size_bytes
        self._path = _partial_path(folder, digest)
        self._hash = hashlib.sha256()
        self._n_hashed = 0
        self._moved = threading.Condition()
        self._is_unsure = False
        with disk_errors(_DOING):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self._path, flags, 0o644)
            self._held = Coverage(_recorded(self._path, os.fstat(self._fd).st_size, size_bytes))
            self.n_held = self._n_saved = self._held.n_bytes
            """How many bytes are here; any thread may look."""
            self._saved_end = _end(self._held)
            if not self.n_held:
                self._remove_records()  # a stale one must not vouch for the holes of a new file
            os.ftruncate(self._fd, size_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def gaps(self) -> list[tuple[int, int]]:
        """What is missing, in order."""
        with self._moved:
            return list(self._held.gaps(self._size))

    @property
    def frontier(self) -> int:
        """How many bytes are here from the beginning, without a gap."""
        with self._moved:
            return self._held.frontier

    def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write bytes at their place. Raises DiskFull, StoreError."""
        view, at = memoryview(data), offset
        with disk_errors(_DOING):
            while view:
                n_written = os.pwrite(self._fd, view, at)
                view, at = view[n_written:], at + n_written
        with self._moved:
            self._held.add(offset, at)
            self.n_held = self._held.n_bytes
            self._moved.notify_all()

    def hash_all(self, check: Callable[[], None]) -> None:
        """Hash all bytes as they come, in order, until the last.

        `check` is called several times a second and raises when nobody waits any more. Raises StoreError.
        """
        buffer = memoryview(bytearray(min(self._size, _HASH_BYTES)))
        while self._n_hashed < self._size:
            check()
            with self._moved:
                n_ready = self._held.frontier - self._n_hashed
                if n_ready <= 0:
                    self._moved.wait(_CHECK_S)
                    continue
            with disk_errors("read from the model store"):
                n_read = os.preadv(self._fd, [buffer[:n_ready]], self._n_hashed)
            if not n_read:
                raise CorruptStore(
                    f"the partial download of {self._digest} was cut by somebody else"
                )
            self._hash.update(buffer[:n_read])
            self._n_hashed += n_read

    def save(self) -> None:
        """Note what is here, after it is on disk; nothing new is nothing to do. Raises DiskFull, StoreError."""
        with self._moved:
            # Taken before the bytes are synced: it must not speak of any that come later.
            record, n_held = encode_record(self._held, self._size), self.n_held
            end = _end(self._held)
        if n_held == self._n_saved or self._is_unsure:
            return
        with disk_errors(_DOING):
            self._sync()
            write_durably(_record_path(self._path), record)
        self._n_saved, self._saved_end = n_held, end

    def _sync(self) -> None:
        """Bring all bytes to the disk. Raises OSError; what was not there before must then be fetched again.

        The system tells once that it could not write, and forgets: another sync would succeed, with holes on the disk that
        its own cache hides. So nothing is noted and nothing published any more; the record of before still holds.
        """
        if self._is_unsure:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        try:
            os.fdatasync(self._fd)
        except OSError:
            self._is_unsure = True
            raise

    def make_room(self) -> None:
        """Give up the last bytes, so that a disk that is full to the brim has room for the record of all others.

        Only at the end of a download: these bytes may be hashed already. None that the record of before vouches for: the
        new one may fail, too. Raises StoreError.
        """
        with self._moved:
            spans = self._held.spans
            cut = max(self._saved_end, _end(self._held) - _SPARE_BYTES)
            self._held = Coverage((start, min(end, cut)) for start, end in spans)
            self.n_held = self._held.n_bytes
        with disk_errors(_DOING):
            os.ftruncate(self._fd, cut)
            os.ftruncate(self._fd, self._size)

    def publish(self) -> None:
        """Make it a blob, once all of it is hashed.

        Raises:
            DigestMismatch: the bytes are wrong; they are removed.
            DiskFull, StoreError: the disk said no; what a record vouches for is kept.
        """
        assert self._n_hashed == self._size, "all bytes are there and hashed"
        actual = Digest(self._hash.hexdigest())
        if actual != self._digest:
            self.remove()
            raise DigestMismatch(
                f"digest mismatch, file must be downloaded again: want {self._digest}, got {actual}",
                status=500,
            )
        with disk_errors(_DOING):
            self._sync()
            os.replace(self._path, self._folder / self._digest.file_name)
            fsync_dir(self._folder)
        self._remove_records()

    def remove(self) -> None:
        """Remove what was downloaded."""
        with suppress(OSError):
            self._path.unlink()
        self._remove_records()

    def _remove_records(self) -> None:
        """Without the partial they mean nothing, and a later start sweeps them: errors are borne.

        Durable, or a power cut would bring one back to vouch for what the next download has not brought yet.
        """
        with suppress(OSError):
            if paths := _record_paths(self._path):
                for path in paths:
                    path.unlink(missing_ok=True)
                fsync_dir(self._folder)

    def close(self) -> None:
        """Close the file; what is there stays for the next try."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def partial_bytes(folder: Path, digest: Digest, size_bytes: int) -> int:
    """How many bytes of a blob an earlier try has left."""
    path = _partial_path(folder, digest)
    try:
        status = path.lstat()
    except OSError:
        return 0
    if not stat.S_ISREG(status.st_mode):
        return 0
    return Coverage(_recorded(path, status.st_size, size_bytes)).n_bytes


def check_room(folder: Path, needed_bytes: int) -> None:
    """Refuse what cannot fit. Raises DiskFull, which says how much is needed; StoreError."""
    if needed_bytes > free_bytes(folder):
        raise no_room(folder, needed_bytes)


def no_room(folder: Path, needed_bytes: int) -> DiskFull:
    """Make the error of a full disk, which says how much is needed and how much is free. Raises StoreError."""
    return DiskFull(f"no space left on device: {shortage(needed_bytes, folder)}")


def _end(held: Coverage) -> int:
    """Where the last of the bytes ends."""
    return held.spans[-1][1] if held.spans else 0


def _partial_path(folder: Path, digest: Digest) -> Path:
    return folder / f"{digest.file_name}-partial"


def _record_path(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}-0")


def _record_paths(partial: Path) -> list[Path]:
    name = re.compile(re.escape(partial.name) + r"-\d+")
    return [path for path in partial.parent.glob(f"{partial.name}-*") if name.fullmatch(path.name)]


def _recorded(partial: Path, file_bytes: int, size_bytes: int) -> list[tuple[int, int]]:
    """The spans that all records together vouch for, as far as the file reaches."""
    spans: list[tuple[int, int]] = []
    for path in _record_paths(partial):
        with suppress(OSError, CorruptStore):
            spans += decode_record(read_small(path, _RECORD_BYTES), size_bytes)
    return [(start, min(end, file_bytes)) for start, end in spans]
