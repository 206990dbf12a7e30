"""Rows of a `RowReader`: how many, how long, all of them, or some of them by number. What the other lazy tensors are made with."""

from __future__ import annotations

import math
from typing import Final

import attrs
import numpy as np
from numpy.typing import NDArray

from olm.checkpoint.types import DTYPES, RowReader

__all__ = ["Array", "Taken", "n_rows", "read_all", "row_length"]

Array = NDArray[np.generic]

# A gather reads one span if at most this many times its rows lie in it (mapped rows that are skipped cost nothing), else row by row.
_SPARSE: Final = 8


def row_length(reader: RowReader) -> int:
    """Elements of a row: the last dimension; 1 for a scalar."""
    return reader.shape[-1] if reader.shape else 1


def n_rows(reader: RowReader) -> int:
    """Number of rows: the product of all dimensions but the last."""
    return math.prod(reader.shape[:-1])


def read_all(reader: RowReader) -> Array:
    """Read a tensor whole, in its own shape. For small ones: norms, biases, scales."""
    flat = reader.read(0, n_rows(reader))
    return flat if reader.dtype not in DTYPES else flat.reshape(reader.shape)


@attrs.frozen
class Taken:
    """Rows of another tensor by number: `index` has one entry for each row of this one."""

    source: RowReader
    shape: tuple[int, ...]
    index: NDArray[np.int64]

    @property
    def dtype(self) -> str:
        return self.source.dtype

    def read(self, start: int, stop: int) -> Array:
        wanted = self.index[start:stop]
        if not len(wanted):
            return self.source.read(0, 0)
        low, high = int(wanted.min()), int(wanted.max()) + 1
        if high - low <= _SPARSE * len(wanted):
            span = self.source.read(low, high)
            return span[wanted - low]
        return np.concatenate([self.source.read(int(row), int(row) + 1) for row in wanted])
