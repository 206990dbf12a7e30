"""The order of a lazy tensor's dimensions. As long as the last one stays, only rows move; else matrices are turned, which costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs
import numpy as np

from olm.checkpoint.types import DTYPES, RowReader
from olm.convert.rows import Array, Taken, n_rows
from olm.convert.values import check_packed
from olm.errors import CheckpointError

__all__ = ["Swapped", "transpose"]

# Rows read at once where a source must be gone through as a whole.
_BLOCK_ROWS: Final = 256


@attrs.frozen
class Swapped:
    """The last two dimensions exchanged, one matrix after the other.

    Rows of the result are columns of the source, so each read goes through a whole matrix of it, `_BLOCK_ROWS` rows at a
    time. Of mapped files that costs page cache only; of a recomputed source it costs the computation once for each read.
    """

    source: RowReader
    shape: tuple[int, ...]

    @property
    def dtype(self) -> str:
        return self.source.dtype

    def read(self, start: int, stop: int) -> Array:
        height, width = self.shape[-2:]  # of a matrix of the result
        out = np.empty((stop - start, width), dtype=DTYPES[self.dtype])
        at = start
        while at < stop:
            matrix, first = divmod(at, height)
            last = min(height, first + stop - at)
            for row in range(0, width, _BLOCK_ROWS):
                end = min(row + _BLOCK_ROWS, width)
                block = self.source.read(matrix * width + row, matrix * width + end)
                out[at - start : at - start + last - first, row:end] = block[:, first:last].T
            at += last - first
        return out


def transpose(reader: RowReader, axes: Sequence[int] | None = None) -> RowReader:
    """Permute dimensions as numpy does; without `axes` the last two are exchanged.

    As long as the last dimension stays the last one only rows move; otherwise see `Swapped` for the cost.
    """
    ndim = len(reader.shape)
    if axes is None:
        axes = (*range(ndim - 2), ndim - 1, ndim - 2)
    order = tuple(axis % ndim for axis in axes)
    if sorted(order) != list(range(ndim)):
        raise CheckpointError(f"{tuple(axes)} is no order of the dimensions of {reader.shape}")
    if order[-1] == ndim - 1:
        return _rows_permuted(reader, order)
    check_packed(reader.dtype, "packed tensors cannot be transposed")
    # Bring the dimension that becomes the last one beside the last one, exchange the two, and put the rest in order.
    leading = [axis for axis in range(ndim - 1) if axis != order[-1]]
    before = (*leading, order[-1], ndim - 1)
    swapped_order = (*leading, ndim - 1, order[-1])
    near = _rows_permuted(reader, before)
    swapped = Swapped(near, (*near.shape[:-2], near.shape[-1], near.shape[-2]))
    return _rows_permuted(swapped, tuple(swapped_order.index(axis) for axis in order))


def _rows_permuted(reader: RowReader, order: tuple[int, ...]) -> RowReader:
    if order == tuple(range(len(order))):
        return reader
    rows = np.arange(n_rows(reader), dtype=np.int64).reshape(reader.shape[:-1])
    shape = tuple(reader.shape[axis] for axis in order)
    return Taken(reader, shape, np.ascontiguousarray(rows.transpose(order[:-1])).reshape(-1))
