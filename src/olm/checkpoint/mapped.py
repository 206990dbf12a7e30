"""Weight files in mapped memory, and tensors as views of them. The formats that say where a tensor lies are elsewhere.

Headers are read with `pread`, whose failures are errors; tensors through the mapping, which copies nothing. A file
that shrinks while it is read is noticed before each read; in the moment left over the kernel kills the process with
SIGBUS, which is one reason why conversion runs in a child.

Pages that were read stay in a process's resident memory until somebody says otherwise. `Residency` says so: after every
128 MiB it tells the kernel to forget what is mapped. A view that is still in use then costs page faults, no disk reads.
"""

from __future__ import annotations

import math
import mmap
import os
import stat
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs
import numpy as np
from numpy.typing import NDArray

from olm.checkpoint.types import DTYPES
from olm.errors import CheckpointError

__all__ = [
    "FlatTensor",
    "MappedFile",
    "Residency",
    "StridedTensor",
    "checked_elements",
    "checked_name",
    "open_regular",
]

_RESIDENT_BYTES: Final = 128 << 20
_PAGE_BYTES: Final = mmap.PAGESIZE
_AHEAD_FROM_BYTES: Final = 1 << 20
"""From this size on the kernel is told what comes: these rows and as many after them. Page faults alone read a cold file
at half the speed (0.65 against 1.25 GiB/s on a virtual disk); for a warm one it makes no difference."""
_MAX_NAME: Final = 1024  # GGUF allows 63; the longest of published checkpoints have some 150
_MAX_DIMS: Final = 16  # GGUF has 4; the formats have no limit, published checkpoints 5
_MAX_ELEMENTS: Final = 1 << 60
_MAX_EMPTY_ROWS: Final = 1 << 20  # rows without elements cost no bytes of a file, but a step each


class Residency:
    """How much of mapped files may be in memory at a time, shared by all files of a checkpoint."""

    def __init__(self, limit_bytes: int = _RESIDENT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._n_bytes = 0
        self._maps: set[mmap.mmap] = set()

    def note(self, mapped: mmap.mmap, n_bytes: int) -> None:
        """Count bytes that are about to be read; past the limit, let go what was read before."""
        with self._lock:
            self._n_bytes += n_bytes
            old: set[mmap.mmap] = set()
            if self._n_bytes > self._limit_bytes:
                old, self._maps, self._n_bytes = self._maps, set(), n_bytes
            self._maps.add(mapped)
        for one in old:
            if not one.closed:
                one.madvise(mmap.MADV_DONTNEED)


class MappedFile:
    """A weight file, open and mapped until `close`.

    Args:
        fd: a regular file; it belongs to this object from now on.
        label: how messages call it.
        residency: shared by the files of a checkpoint.

    Raises:
        CheckpointError: the file system cannot map it.
    """

    def __init__(self, fd: int, label: Path, residency: Residency) -> None:
        self.label = label
        self._fd = fd
        self._residency = residency
        self._map: mmap.mmap | None = None
        self.size_bytes = os.fstat(fd).st_size
        try:
            if self.size_bytes:
                self._map = mmap.mmap(fd, self.size_bytes, access=mmap.ACCESS_READ)
                self._map.madvise(mmap.MADV_SEQUENTIAL)
        except OSError as exc:
            self.close()
            raise CheckpointError(f"{label.name}: cannot be mapped: {exc.strerror}") from exc

    @property
    def name(self) -> str:
        """The file's name alone."""
        return self.label.name

    def close(self) -> None:
        """Let the file go. Views that are still held keep the mapping alive."""
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        mapped, self._map = self._map, None
        try:
            if mapped is not None:
                mapped.close()
        except BufferError:  # a view of it lives; the last one unmaps it
            pass

    def bytes_at(self, offset: int, n_bytes: int) -> bytes:
        """Read exactly so many bytes; the caller has bounded them.

        Raises:
            CheckpointError: the file ends before, or cannot be read.
        """
        try:
            data = os.pread(self._fd, n_bytes, offset)
        except OSError as exc:
            raise CheckpointError(f"{self.name}: cannot be read: {exc.strerror}") from exc
        if len(data) != n_bytes:
            raise CheckpointError(
                f"{self.name}: is truncated: it ends at byte {offset + len(data)}"
            )
        return data

    def elements(self, dtype: str, offset: int, count: int, touched: int) -> NDArray[np.generic]:
        """View `count` elements at byte `offset`, a copy only where they are not aligned; `touched` bytes will be read.

        Raises:
            CheckpointError: the file has become shorter.
        """
        if not count:
            return np.empty(0, DTYPES[dtype])
        mapped = self._map
        assert mapped is not None, "tensors are not read after their checkpoint is closed"
        if os.fstat(self._fd).st_size < self.size_bytes:
            raise CheckpointError(f"{self.name}: has become shorter while it was read")
        self._residency.note(mapped, touched)
        if touched >= _AHEAD_FROM_BYTES:
            begin = offset & -_PAGE_BYTES
            mapped.madvise(mmap.MADV_WILLNEED, begin, min(2 * touched, self.size_bytes - begin))
        view: NDArray[np.generic] = np.frombuffer(mapped, DTYPES[dtype], count, offset)
        return view if view.flags.aligned else view.copy()


def open_regular(path: Path, label: str | Path) -> int:
    """Open a file to read, and only a file: no symbolic link in its last place, no FIFO, device or folder.

    Messages call it `label`.

    Raises:
        CheckpointError: it is something else, is missing, or may not be read.
    """
    try:
        # O_NONBLOCK: a FIFO must not hang us before fstat can tell what it is.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as exc:
        raise CheckpointError(f"{label}: cannot be opened: {exc.strerror}") from exc
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise CheckpointError(f"{label}: is not a regular file")
    return fd


def checked_name(name: str, file: str) -> str:
    """Return a tensor's name if it can be one. Raises CheckpointError for what cannot be printed or is too long."""
    if not 0 < len(name) <= _MAX_NAME or not name.isprintable():
        raise CheckpointError(f"{file}: {name[:80]!a} cannot be a tensor's name")
    return name


def checked_elements(shape: Sequence[int], what: str) -> int:
    """Count a shape's elements. Raises CheckpointError for a shape that no tensor has; `what` begins the message."""
    if len(shape) > _MAX_DIMS:
        raise CheckpointError(f"{what}: has {len(shape)} dimensions, more than {_MAX_DIMS}")
    n_elements = math.prod(shape)
    if n_elements > _MAX_ELEMENTS or (
        not n_elements and math.prod(n for n in shape if n) > _MAX_EMPTY_ROWS
    ):
        raise CheckpointError(f"{what}: its shape {list(shape)} is too large")
    return n_elements


def _row_length(shape: Sequence[int]) -> int:
    return shape[-1] if shape else 1


@attrs.frozen(kw_only=True)
class FlatTensor:
    """A tensor whose elements lie one after another: rows are views of the mapping.

    Attributes:
        offset: of its first byte in the file. Whoever makes the tensor has checked that all of it is inside.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    mapped: MappedFile = attrs.field(repr=False)

    @property
    def file(self) -> Path:
        """The file it is in."""
        return self.mapped.label

    def read(self, start: int, stop: int) -> NDArray[np.generic]:
        """See `RowReader.read`."""
        assert 0 <= start <= stop <= math.prod(self.shape[:-1]), "rows beyond the tensor"
        row = _row_length(self.shape)
        width = DTYPES[self.dtype].itemsize
        count = (stop - start) * row
        flat = self.mapped.elements(
            self.dtype, self.offset + start * row * width, count, count * width
        )
        return flat.reshape(stop - start, row)


@attrs.frozen(kw_only=True)
class StridedTensor:
    """A tensor that is a window of its storage, transposed or sliced: rows are gathered into new memory.

    Attributes:
        strides: in elements, none negative; one for each dimension.
        offset: of its first element's first byte in the file. All it reaches is inside, checked by its maker.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    mapped: MappedFile = attrs.field(repr=False)

    @property
    def file(self) -> Path:
        """The file it is in."""
        return self.mapped.label

    def read(self, start: int, stop: int) -> NDArray[np.generic]:
        """See `RowReader.read`."""
        assert 0 <= start <= stop <= math.prod(self.shape[:-1]), "rows beyond the tensor"
        row = _row_length(self.shape)
        width = DTYPES[self.dtype].itemsize
        if not row or start == stop:
            return np.empty((stop - start, row), DTYPES[self.dtype])
        span = 1 + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        # Elements far apart cost a page each.
        touched = min(span * width, (stop - start) * row * _PAGE_BYTES)
        storage = self.mapped.elements(self.dtype, self.offset, span, touched)
        window = np.lib.stride_tricks.as_strided(
            storage, self.shape, [step * width for step in self.strides], writeable=False
        )
        rows = np.unravel_index(np.arange(start, stop), self.shape[:-1]) if self.shape[:-1] else ()
        gathered: NDArray[np.generic] = np.ascontiguousarray(window[rows])
        return gathered.reshape(stop - start, row)
