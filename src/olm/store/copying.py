"""Moving bytes between files, the cheapest way that the file systems know. Blocking; no models, no digests.

Sharing extents (reflink) costs nothing and is tried first. Else the bytes are written past the page cache where that is
possible: all of them must be on the disk in the end, and on their way they would push out what running models use.
Measured on ext4 in a virtual machine: 0.6 s a GiB, instead of 0.7 s with the cache and the sync that follows, or 3.5 s
where the cache's memory has to be got from the host first. The last resort is a copy by the kernel through the cache.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

__all__ = [
    "Ring",
    "SequentialFile",
    "clone_range",
    "copy_range",
    "pwrite_all",
    "pwrite_past_cache",
]

ALIGNMENT: Final = 4096
"""What direct writes and shared extents are aligned to: the block size of all common file systems."""

_BUFFER_BYTES: Final = 4 << 20
_DIRECT_FROM: Final = 1 << 20
"""Less is not worth a buffer of its own."""
_N_BUFFERS: Final = 4
_FICLONERANGE: Final = 0x4020940D
"""`_IOW(0x94, 13, struct file_clone_range)`; linux/fs.h."""
_CLONE_RANGE: Final = struct.Struct("=qQQQ")

_NOT_HERE: Final = frozenset(
    (
        errno.EXDEV,
        errno.EINVAL,
        errno.EOPNOTSUPP,
        errno.ENOSYS,
        errno.ENOTTY,
        errno.EPERM,
        errno.ETXTBSY,
    )
)
"""Answers of file systems that cannot, or cannot with these two files."""


def clone_range(source: int, target: int, at: int, to: int, size: int) -> int:
    """Share extents of `source` with `target`; returns how many bytes from `at` on are shared, 0 where it cannot be.

    The rest, less than `ALIGNMENT`, is left to the caller. Raises OSError for a disk that is full or broken.
    """
    size -= size % ALIGNMENT
    if not size or at % ALIGNMENT or to % ALIGNMENT:
        return 0
    try:
        fcntl.ioctl(target, _FICLONERANGE, _CLONE_RANGE.pack(source, at, size, to))
    except OSError as exc:
        if exc.errno not in _NOT_HERE:
            raise
        return 0
    return size


def copy_range(source: int, target: int, at: int, to: int, size: int) -> int:
    """Copy `size` bytes between two files; returns how many there were, fewer only when the source has ended.

    Args:
        source: open for reading; at `at` its bytes begin.
        target: open for writing, by nobody else at the moment: its flag for direct writes is switched.

    Raises:
        OSError: as reading and writing do.
    """
    done = clone_range(source, target, at, to, size)
    if size - done >= _DIRECT_FROM and not (to + done) % ALIGNMENT and _set_direct(target, True):
        _set_direct(target, False)
        return done + _copy_past_cache(source, target, at + done, to + done, size - done)
    while done < size:
        n_copied = _copy_some(source, target, at + done, to + done, size - done)
        if not n_copied:
            break
        done += n_copied
    return done


def pwrite_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data`. Raises OSError."""
    view = memoryview(data)
    while view:
        n_written = os.pwrite(fd, view, offset)
        view, offset = view[n_written:], offset + n_written


def pwrite_past_cache(fd: int, view: memoryview, offset: int) -> None:
    """Write all of `view`, whole blocks past the page cache where the file system can.

    Args:
        fd: used for writing by nobody else at the moment: its flag for direct writes is switched.
        view: begins at the beginning of a page.

    Raises OSError.
    """
    done, n_whole = 0, len(view) - len(view) % ALIGNMENT
    if n_whole and not offset % ALIGNMENT and _set_direct(fd, True):
        try:
            done = _pwrite_blocks(fd, view[:n_whole], offset)
        finally:
            _set_direct(fd, False)
    pwrite_all(fd, view[done:], offset + done)


class Ring:
    """Buffers used in turn, each again when the work on it is done. For one thread."""

    def __init__(self, size: int) -> None:
        """Promise buffers of `size` bytes; they are made when they are needed."""
        self._size = size
        self._buffers: list[memoryview] = []
        self._work: list[Sequence[Future[None]]] = []
        self._turn = 0

    def room(self) -> memoryview:
        """The buffer whose turn it is, free to be used. Raises what earlier work on it raised."""
        if self._turn == len(self._buffers):
            self._buffers.append(_page_buffer(self._size))
            self._work.append(())
        for work in self._work[self._turn]:
            work.result()
        return self._buffers[self._turn]

    def turn(self, work: Sequence[Future[None]]) -> None:
        """Leave the buffer to the work on it."""
        self._work[self._turn] = work
        self._turn = (self._turn + 1) % _N_BUFFERS

    def wait(self) -> None:
        """Wait for all work. Raises what it raised."""
        for works in self._work:
            for work in works:
                work.result()


class SequentialFile:
    """A file written from its beginning, past the page cache, by a thread of its own while more is coming."""

    def __init__(self, fd: int) -> None:
        """Write to `fd`, which stays the caller's."""
        self._fd = fd
        self._ring = Ring(_BUFFER_BYTES)
        self._n_filled = 0
        self._offset = 0
        self._writer = ThreadPoolExecutor(1, "olm-export")

    def write(self, data: bytes) -> None:
        """Append. Raises OSError, of earlier bytes too."""
        rest = memoryview(data)
        while rest:
            room = self._ring.room()[self._n_filled :]
            n_bytes = min(len(room), len(rest))
            room[:n_bytes] = rest[:n_bytes]
            rest = rest[n_bytes:]
            self._n_filled += n_bytes
            if n_bytes == len(room):
                self._flush()

    def finish(self) -> None:
        """Wait until all is written. Raises OSError."""
        self._flush()
        self._ring.wait()

    def close(self) -> None:
        """End the thread; what was not finished may be missing."""
        self._writer.shutdown()

    def _flush(self) -> None:
        data = self._ring.room()[: self._n_filled]
        self._ring.turn([self._writer.submit(pwrite_past_cache, self._fd, data, self._offset)])
        self._offset += self._n_filled
        self._n_filled = 0


def _page_buffer(size: int) -> memoryview:
    """Zeroed memory that begins at the beginning of a page."""
    return memoryview(mmap.mmap(-1, size))


def _set_direct(fd: int, is_direct: bool) -> bool:
    """Switch direct writes; False where the file system has none."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT if is_direct else flags & ~os.O_DIRECT)
    except OSError as exc:
        if exc.errno not in _NOT_HERE:
            raise
        return False
    return True


def _pwrite_blocks(fd: int, view: memoryview, offset: int) -> int:
    """Write blocks directly; returns how many bytes. Ends early where the file system will not go on like that."""
    done = 0
    while done < len(view) and not done % ALIGNMENT:
        try:
            done += os.pwrite(fd, view[done:], offset + done)
        except OSError as exc:
            if exc.errno not in _NOT_HERE:
                raise
            break
    return done


def _copy_past_cache(source: int, target: int, at: int, to: int, size: int) -> int:
    done, view = 0, _page_buffer(_BUFFER_BYTES)
    while done < size:
        n_read = os.preadv(source, [view[: size - done]], at + done)
        if not n_read:
            break
        pwrite_past_cache(target, view[:n_read], to + done)
        done += n_read
    return done


def _copy_some(source: int, target: int, at: int, to: int, size: int) -> int:
    """Copy through the page cache, by the kernel if it can; returns how many bytes, 0 at the end of the source."""
    try:
        return os.copy_file_range(source, target, size, at, to)
    except OSError as exc:
        if exc.errno not in _NOT_HERE:
            raise
    data = os.pread(source, min(size, _BUFFER_BYTES), at)
    pwrite_all(target, data, to)
    return len(data)
