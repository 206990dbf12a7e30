"""Write a GGUF: all offsets are known from the header, so threads convert chunks of rows and put each where it belongs.

Memory is a few chunks for each thread, whatever the size of the model. The file is whole only when `write_gguf` returns;
who wants a name to appear at once gives it a temporary path. What is written is decided before, in a `ModelFile`.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import attrs
import numpy as np
from numpy.typing import NDArray

from olm.checkpoint.types import DTYPES
from olm.convert.frontier import FrontierHash
from olm.convert.lazy import n_rows, row_length
from olm.convert.model_file import ModelFile, OutTensor
from olm.convert.values import GGML_TYPES, row_bytes, to_f32
from olm.errors import CheckpointError, DiskFull, StoreError
from olm.native.lib import Cancelled
from olm.native.quantize import CancelFlag, convert_rows
from olm.store.partials import no_room

__all__ = ["Imatrix", "Written", "gguf_size", "write_gguf", "write_header"]

Imatrix = Mapping[str, NDArray[np.float32]]
"""Importance of columns by tensor name: [n_matrices, row length]."""

_ALIGNMENT: Final = 32  # GGUF's default; no key is needed for it
_VERSION: Final = 3
_MAX_DIMS: Final = 4
_MAX_NAME_BYTES: Final = 63
# Elements of a chunk: 4 MiB as f32. Large enough that Python's part of it (some 50 µs) does not count.
_CHUNK: Final = 1 << 20
# Types of a checkpoint that the engine reads without a detour through numpy.
_DIRECT: Final = {"F32": "F32", "F16": "F16", "BF16": "BF16", "I32": "I32", "I64": "I64"}

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Report = Callable[[int, int], None]


@attrs.frozen
class Written:
    """A file that was written: its size, and its SHA-256 in hex ("" when none was asked for)."""

    size_bytes: int
    sha256: str


@attrs.frozen
class _Placed:
    tensor: OutTensor
    offset: int  # in the file
    row_bytes: int
    length: int  # elements of a row

    @property
    def n_bytes(self) -> int:
        return n_rows(self.tensor.reader) * self.row_bytes


@attrs.frozen
class _Chunk:
    number: int
    placed: _Placed
    start: int
    stop: int

    @property
    def offset(self) -> int:
        return self.placed.offset + self.start * self.placed.row_bytes

    @property
    def n_bytes(self) -> int:
        return (self.stop - self.start) * self.placed.row_bytes


def _pad(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _layout(file: ModelFile) -> tuple[bytes, Sequence[_Placed], int]:
    """The header, every tensor's place, and the size of the file."""
    infos, sizes = [], []
    offset = 0
    for tensor in file.tensors:
        placed = _sized(tensor)
        number = GGML_TYPES[tensor.type_name][0]
        name = tensor.name.encode()
        dims = tuple(reversed(tensor.reader.shape)) or (1,)
        infos.append(struct.pack("<Q", len(name)) + name)
        infos.append(struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, number, offset))
        sizes.append((placed, offset))
        offset += _pad(placed.n_bytes)
    meta = file.metadata
    head = struct.pack("<4sIQQ", b"GGUF", _VERSION, len(file.tensors), len(meta))
    head += meta.encode() + b"".join(infos)
    head += bytes(_pad(len(head)) - len(head))
    places = [attrs.evolve(placed, offset=len(head) + at) for placed, at in sizes]
    return head, places, len(head) + offset


def _sized(tensor: OutTensor) -> _Placed:
    name, reader = tensor.name, tensor.reader
    if not 0 < len(name.encode()) <= _MAX_NAME_BYTES:
        raise CheckpointError(f"tensor {name!r}: its name has more than {_MAX_NAME_BYTES} bytes")
    if len(reader.shape) > _MAX_DIMS or 0 in reader.shape:
        raise CheckpointError(f"tensor {name!r}: a GGUF has no tensors of {reader.shape}")
    length = row_length(reader)
    try:
        return _Placed(tensor, 0, row_bytes(tensor.type_name, length), length)
    except CheckpointError as exc:
        raise CheckpointError(f"tensor {name!r}: {exc}") from exc


def gguf_size(file: ModelFile) -> int:
    """The size of the file that this will be, in bytes. Raises CheckpointError for tensors that no GGUF can hold."""
    return _layout(file)[2]


def _chunks(places: Sequence[_Placed]) -> Iterator[_Chunk]:
    number = 0
    for placed in places:
        total = n_rows(placed.tensor.reader)
        step = max(1, _CHUNK // placed.length)
        for start in range(0, total, step):
            yield _Chunk(number, placed, start, min(start + step, total))
            number += 1


def write_gguf(
    file: ModelFile,
    path: Path,
    *,
    n_threads: int = 0,
    imatrix: Imatrix | None = None,
    progress: Report | None = None,
    cancel: CancelFlag | None = None,
    digest: bool = False,
) -> Written:
    """Write `file` to `path`, replacing what is there. Blocking; on failure an incomplete file is left to the caller.

    Args:
        n_threads: converting at a time; 0 for one for each CPU this process may use.
        imatrix: importance of columns for quantized types, by tensor name.
        progress: called with (bytes written, bytes in all) after each chunk, in this thread.
        cancel: stops the work within some milliseconds.
        digest: work out the SHA-256 behind the writing threads, while the pages are still in memory.

    Raises:
        CheckpointError: a tensor cannot be read or written, or holds NaN or infinities; names it.
        Cancelled: `cancel` was set.
        DiskFull, StoreError: the disk said no.
    """
    head, places, size = _layout(file)
    flag = cancel or CancelFlag()
    fd = _create(path, size)
    try:
        _write_at(fd, head, 0)
        run = _Run(fd, size, _chunks(places), imatrix or {}, flag)
        with FrontierHash(fd, size) if digest else _NoHash() as hasher:
            run.frontier = hasher.advance
            _run_threads(run, n_threads or len(os.sched_getaffinity(0)), progress)
            return Written(size, hasher.finish())
    finally:
        os.close(fd)


def write_header(file: ModelFile, path: Path) -> None:
    """Write the header of `file` alone, replacing what is there; where tensors would be is a hole. Raises as `write_gguf`."""
    head, _, size = _layout(file)
    try:
        with path.open("wb") as out:
            out.write(head)
            out.truncate(size)
    except OSError as exc:
        raise (no_room(path.parent, size) if exc.errno in _FULL else _disk_error(exc)) from exc


class _NoHash:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self, upto: int) -> None:
        pass

    def finish(self) -> str:
        return ""


def _create(path: Path, size: int) -> int:
    fd = -1
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        _reserve(fd, size)
    except OSError as exc:
        if fd >= 0:
            os.ftruncate(fd, 0)  # what could be had is free again, for the figures of the message
            os.close(fd)
        if exc.errno in _FULL:
            raise no_room(path.parent, size) from exc
        raise _disk_error(exc) from exc
    return fd


def _reserve(fd: int, size: int) -> None:
    """Take the room on the disk now, so that a full one is known before an hour of work, not after."""
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as exc:
        if exc.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        os.ftruncate(fd, size)


def _disk_error(exc: OSError) -> StoreError:
    words = f"cannot write the converted model: {os.strerror(exc.errno or 0)}"
    return DiskFull(words) if exc.errno in _FULL else StoreError(words)


def _write_at(fd: int, data: bytes | NDArray[np.uint8], offset: int) -> None:
    view = memoryview(data).cast("B")  # type: ignore[arg-type]  # numpy's arrays are buffers; 3.11's stubs cannot say so
    try:
        while view:
            n_written = os.pwrite(fd, view, offset)
            view, offset = view[n_written:], offset + n_written
    except OSError as exc:
        raise _disk_error(exc) from exc


class _Run:
    """What the threads share: the chunks still to do, and how far the file is whole from its beginning."""

    def __init__(
        self, fd: int, size: int, chunks: Iterator[_Chunk], imatrix: Imatrix, cancel: CancelFlag
    ) -> None:
        self.fd = fd
        self.size = size
        self.imatrix = imatrix
        self.cancel = cancel
        self.frontier: Callable[[int], None] = lambda _: None
        self.changed = threading.Condition()
        self.n_bytes = 0
        self.n_running = 0
        self.failure: BaseException | None = None
        self._chunks = chunks
        self._ends: dict[int, int] = {}  # of finished chunks that wait for one before them
        self._next = 0

    def work(self) -> None:
        """Convert chunks until there are none; the first failure of any thread stops all."""
        memory = np.empty(_CHUNK * 4, dtype=np.uint8)
        try:
            while (chunk := self._take()) is not None:
                _write_at(self.fd, self._converted(chunk, memory), chunk.offset)
                self._done(chunk)
        except BaseException as exc:  # handed to the thread that waits
            with self.changed:
                self.failure = self.failure or exc
            self.cancel.set()
        finally:
            with self.changed:
                self.n_running -= 1
                self.changed.notify_all()

    def _converted(self, chunk: _Chunk, memory: NDArray[np.uint8]) -> NDArray[np.uint8]:
        try:
            return _convert(chunk, self.imatrix, self.cancel, memory)
        except CheckpointError as exc:
            raise CheckpointError(f"tensor {chunk.placed.tensor.name!r}: {exc}") from exc

    def _take(self) -> _Chunk | None:
        with self.changed:
            if self.failure is not None:
                return None
            if self.cancel.is_set:
                raise Cancelled("cancelled", code="CANCELLED")
            return next(self._chunks, None)

    def _done(self, chunk: _Chunk) -> None:
        with self.changed:
            self.n_bytes += chunk.n_bytes
            self._ends[chunk.number] = chunk.offset + chunk.n_bytes
            end = 0
            while self._next in self._ends:
                end = self._ends.pop(self._next)
                self._next += 1
            if end:
                self.frontier(end)
            self.changed.notify_all()


def _run_threads(run: _Run, n_threads: int, progress: Report | None) -> None:
    threads = [threading.Thread(target=run.work, name=f"convert-{i}") for i in range(n_threads)]
    run.n_running = len(threads)
    for thread in threads:
        thread.start()
    try:
        _follow(run, progress or (lambda *_: None))
    except BaseException:
        run.cancel.set()
        raise
    finally:
        for thread in threads:
            thread.join()
    if run.failure is not None:
        raise run.failure


def _follow(run: _Run, progress: Report) -> None:
    """Tell of progress until no thread runs; the lock is not held while somebody is told."""
    told = 0
    while True:
        with run.changed:
            run.changed.wait_for(lambda: run.n_bytes != told or not run.n_running)  # noqa: B023 - called at once
            told, is_over = run.n_bytes, not run.n_running
        if run.failure is None:
            progress(run.size if is_over else told, run.size)
        if is_over:
            return


def _convert(
    chunk: _Chunk, imatrix: Imatrix, cancel: CancelFlag, memory: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """The bytes of a chunk as they stand in the file, perhaps in `memory`."""
    tensor = chunk.placed.tensor
    rows, length = tensor.reader.read(chunk.start, chunk.stop), chunk.placed.length
    dtype, wanted = tensor.reader.dtype, tensor.type_name
    if dtype in DTYPES and dtype not in _DIRECT:
        rows, dtype = to_f32(rows, dtype, length), "F32"
    if dtype == wanted and wanted not in ("F32", "F16", "BF16"):
        return np.ascontiguousarray(rows).view(np.uint8).reshape(-1)
    if dtype in ("I32", "I64") or wanted in ("I8", "I16", "I32", "I64"):
        raise CheckpointError(f"{dtype} cannot become {wanted}")
    n_bad, at = 0, 0
    for start, stop, weights in _by_matrix(chunk, tensor, imatrix):
        part = rows[start - chunk.start : stop - chunk.start]
        out, bad = convert_rows(
            part, dtype, wanted, length, imatrix=weights, cancel=cancel, memory=memory[at:]
        )
        n_bad += bad
        at += out.nbytes
    if n_bad:
        raise CheckpointError(_not_finite(n_bad, rows, dtype, wanted, length))
    return out.reshape(-1) if at == out.nbytes else memory[:at]


def _by_matrix(
    chunk: _Chunk, tensor: OutTensor, imatrix: Imatrix
) -> Iterator[tuple[int, int, NDArray[np.float32] | None]]:
    """Runs of rows with one importance vector: each expert has its own."""
    weights = imatrix.get(tensor.name)
    if weights is None:
        yield chunk.start, chunk.stop, None
        return
    height = tensor.reader.shape[-2] if len(tensor.reader.shape) > 1 else 1
    start = chunk.start
    while start < chunk.stop:
        matrix = start // height
        stop = min(chunk.stop, (matrix + 1) * height)
        yield start, stop, weights[matrix]
        start = stop


def _not_finite(n_bad: int, rows: NDArray[np.generic], dtype: str, wanted: str, length: int) -> str:
    """What is wrong with such weights: they were so, or they are too large for the type."""
    if dtype not in DTYPES:
        return f"{n_bad} values are not finite"
    values = to_f32(rows, dtype, length)
    if np.isfinite(values).all():
        largest = float(np.abs(values).max())
        return f"values up to {largest:g} are beyond {wanted}'s range; choose BF16 or F32"
    return f"{n_bad} values are NaN or infinite; the checkpoint is damaged"
