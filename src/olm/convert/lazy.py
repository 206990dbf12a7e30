"""Tensors made of tensors: cut, joined, permuted and recomputed a few rows at a time, so that none must fit into memory.

Every function takes and gives a `RowReader` (`olm.checkpoint.types`). None reads anything before it is asked to, none
keeps what it read, and all may be read by several threads. Changing bits into other bits is `olm.convert.values`'.

Two kinds of `dtype` occur: those of `DTYPES`, and packed ones, which are ggml's block types by name (`Q8_0`, `MXFP4`).
Of a packed tensor `shape` still counts elements, and `read` gives bytes: (rows, bytes of a row).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from olm.checkpoint.types import DTYPES, RowReader
from olm.convert.rows import Array, Taken, n_rows, read_all, row_length
from olm.convert.transposing import Swapped, transpose
from olm.convert.values import check_packed, to_f32
from olm.errors import CheckpointError

__all__ = [
    "Array",
    "columns",
    "concat",
    "constant",
    "map_values",
    "n_rows",
    "read_all",
    "reshape",
    "row_length",
    "split",
    "stack",
    "take",
    "transpose",
    "widen",
    "zeros",
]

# Under these names `olm.convert.factors` knows what a tensor was made with.
_Taken = Taken
_Swapped = Swapped
_Index = slice | Sequence[int] | NDArray[np.integer]


@attrs.frozen
class _Constant:
    values: Array
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def read(self, start: int, stop: int) -> Array:
        length = self.shape[-1] if self.shape else 1
        return self.values.reshape(-1, length)[start:stop]


def constant(values: Array) -> RowReader:
    """A tensor that is computed here, f32 (rope factors, an identity)."""
    return _Constant(np.ascontiguousarray(values, dtype=np.float32), "F32")


def zeros(shape: Sequence[int], dtype: str) -> RowReader:
    """A tensor of zeros of a dtype of `DTYPES` (rows that a checkpoint leaves out)."""
    return _Constant(np.zeros(shape, DTYPES[dtype]), dtype)


@attrs.frozen
class _Sliced:
    """A run of another tensor's rows."""

    source: RowReader
    shape: tuple[int, ...]
    first: int

    @property
    def dtype(self) -> str:
        return self.source.dtype

    def read(self, start: int, stop: int) -> Array:
        return self.source.read(self.first + start, self.first + stop)


def _numbers(index: _Index, length: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """The places that `index` means in a dimension of `length`. Raises CheckpointError for one outside."""
    if isinstance(index, slice):
        return np.arange(*index.indices(length), dtype=np.int64)
    numbers = np.asarray(index, dtype=np.int64)
    if len(numbers) and not (numbers.min() >= 0 and numbers.max() < length):
        raise CheckpointError(f"{numbers.min()} to {numbers.max()} asked of a tensor of {shape}")
    return numbers


def take(reader: RowReader, index: _Index) -> RowReader:
    """Take entries of the first dimension, by slice or by number: `tensor[index]` of numpy.

    A vector is read whole, for it is one row.

    Raises:
        CheckpointError: an entry lies outside.
    """
    if not reader.shape:
        raise CheckpointError("a scalar has no rows to take")
    numbers = _numbers(index, reader.shape[0], reader.shape)
    shape = (len(numbers), *reader.shape[1:])
    if len(reader.shape) == 1:
        return columns(reader, numbers)
    inner = math.prod(reader.shape[1:-1])
    if len(numbers) and np.array_equal(numbers, np.arange(numbers[0], numbers[0] + len(numbers))):
        return _Sliced(reader, shape, int(numbers[0]) * inner)
    rows = (numbers[:, None] * inner + np.arange(inner)).reshape(-1)
    return _Taken(reader, shape, rows)


@attrs.frozen
class _Columns:
    source: RowReader
    shape: tuple[int, ...]
    index: slice | NDArray[np.int64]

    @property
    def dtype(self) -> str:
        return self.source.dtype

    def read(self, start: int, stop: int) -> Array:
        return np.ascontiguousarray(self.source.read(start, stop)[:, self.index])


def columns(reader: RowReader, index: _Index) -> RowReader:
    """Take entries of the last dimension: `tensor[..., index]`. Not of packed tensors."""
    check_packed(reader.dtype, "columns cannot be taken")
    numbers = _numbers(index, row_length(reader), reader.shape)
    # A slice of numpy's is a view, a gather a copy.
    columns_of = index if isinstance(index, slice) else numbers
    return _Columns(reader, (*reader.shape[:-1], len(numbers)), columns_of)


@attrs.frozen
class _Joined:
    """Tensors under one another. `starts` are their first rows, and the end."""

    parts: tuple[RowReader, ...]
    shape: tuple[int, ...]
    dtype: str
    starts: NDArray[np.int64]

    def read(self, start: int, stop: int) -> Array:
        pieces = []
        at = max(int(np.searchsorted(self.starts, start, side="right")) - 1, 0)
        while at < len(self.parts) and self.starts[at] < stop:
            first = max(start - int(self.starts[at]), 0)
            last = min(stop, int(self.starts[at + 1])) - int(self.starts[at])
            pieces.append(self.parts[at].read(first, last))
            at += 1
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else self.parts[0].read(0, 0)


@attrs.frozen
class _Beside:
    """Tensors beside one another: their rows are joined."""

    parts: tuple[RowReader, ...]
    shape: tuple[int, ...]
    dtype: str

    def read(self, start: int, stop: int) -> Array:
        return np.concatenate([part.read(start, stop) for part in self.parts], axis=1)


def _same_dtype(readers: Sequence[RowReader]) -> tuple[RowReader, ...]:
    """The readers themselves if they agree in dtype, else all of them as f32."""
    if not readers:
        raise CheckpointError("no tensors to join")
    if len({reader.dtype for reader in readers}) == 1:
        return tuple(readers)
    return tuple(widen(reader) for reader in readers)


def _joined(parts: tuple[RowReader, ...], shape: tuple[int, ...]) -> RowReader:
    starts = np.cumsum([0, *(n_rows(part) for part in parts)], dtype=np.int64)
    return _Joined(parts, shape, parts[0].dtype, starts)


def stack(readers: Sequence[RowReader]) -> RowReader:
    """Put tensors of one shape under one another in a new first dimension (the experts of a layer).

    Those of different dtypes become f32. Raises CheckpointError if their shapes differ.
    """
    parts = _same_dtype(readers)
    shapes = {part.shape for part in parts}
    if len(shapes) > 1:
        raise CheckpointError(f"tensors of different shapes cannot be stacked: {sorted(shapes)}")
    if len(parts[0].shape) < 1:
        raise CheckpointError("scalars cannot be stacked")
    return _joined(parts, (len(parts), *parts[0].shape))


def concat(readers: Sequence[RowReader], axis: int = 0) -> RowReader:
    """Join tensors along the first (0) or the last (-1) dimension; those of different dtypes become f32.

    Raises:
        CheckpointError: their other dimensions differ.
    """
    parts = _same_dtype(readers)
    ndim = len(parts[0].shape)
    if axis not in (0, -1) and axis != ndim - 1:
        raise CheckpointError(
            f"tensors are joined along the first or the last dimension, not {axis}"
        )
    is_last = axis != 0 or ndim == 1
    others = {part.shape[:-1] if is_last else part.shape[1:] for part in parts}
    if len(others) > 1 or len({len(part.shape) for part in parts}) > 1:
        raise CheckpointError(f"these shapes cannot be joined: {[part.shape for part in parts]}")
    if is_last:
        check_packed(parts[0].dtype, "rows cannot be joined")
        shape = (*parts[0].shape[:-1], sum(part.shape[-1] for part in parts))
        return _Beside(parts, shape, parts[0].dtype)
    return _joined(parts, (sum(part.shape[0] for part in parts), *parts[0].shape[1:]))


def split(reader: RowReader, sizes: Sequence[int], axis: int = 0) -> tuple[RowReader, ...]:
    """Cut a tensor along the first (0) or the last (-1) dimension into parts of `sizes` (fused q, k and v).

    Raises:
        CheckpointError: the sizes do not add up.
    """
    length = reader.shape[axis] if reader.shape else 0
    if sum(sizes) != length or min(sizes, default=0) < 0:
        raise CheckpointError(
            f"a tensor of {reader.shape} cannot be cut into {list(sizes)} along dimension {axis}"
        )
    starts = np.cumsum([0, *sizes])
    cut = columns if axis == -1 else take
    return tuple(cut(reader, slice(int(a), int(b))) for a, b in itertools.pairwise(starts))


@attrs.frozen
class _Reshaped:
    source: RowReader
    shape: tuple[int, ...]

    @property
    def dtype(self) -> str:
        return self.source.dtype

    def read(self, start: int, stop: int) -> Array:
        length = self.shape[-1] if self.shape else 1
        old = row_length(self.source)
        if old == length:
            return self.source.read(start, stop)
        first, end = start * length, stop * length
        low = first // old
        flat = self.source.read(low, -(-end // old)).reshape(-1)
        return flat[first - low * old : end - low * old].reshape(-1, length)


def reshape(reader: RowReader, shape: Sequence[int]) -> RowReader:
    """The same elements in the same order under other dimensions; one may be -1, as in numpy.

    Raises:
        CheckpointError: the number of elements is another one.
    """
    n_elements = math.prod(reader.shape)
    wanted = tuple(shape)
    known = math.prod(size for size in wanted if size != -1)
    if wanted.count(-1) == 1 and known:
        wanted = tuple(n_elements // known if size == -1 else size for size in wanted)
    if math.prod(wanted) != n_elements or min(wanted, default=1) < 0:
        raise CheckpointError(f"a tensor of {reader.shape} cannot become {tuple(shape)}")
    if wanted and wanted[-1] != row_length(reader):
        check_packed(reader.dtype, "rows cannot change their length")
    return _Reshaped(reader, wanted)


@attrs.frozen
class _Mapped:
    source: RowReader
    function: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    def read(self, start: int, stop: int) -> Array:
        values = to_f32(self.source.read(start, stop), self.source.dtype, row_length(self.source))
        return values if self.function is None else self.function(values)


def widen(reader: RowReader) -> RowReader:
    """The same values as f32, whatever the type was."""
    return reader if reader.dtype == "F32" else _Mapped(reader, None)


def map_values(
    reader: RowReader, function: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> RowReader:
    """Apply `function` to each element, as f32: `map_values(norm, lambda x: x + 1)`.

    It gets rows, [n, row length] f32, perhaps a few of many, and returns as many of the same length.
    """
    return _Mapped(reader, function)
