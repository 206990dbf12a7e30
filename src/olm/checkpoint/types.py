"""What a checkpoint is to a converter: named tensors that are read a few rows at a time, and the JSON files beside them.

Formats are the business of the readers in this package; what becomes of the tensors is `olm.convert`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["DTYPES", "Checkpoint", "RowReader", "Source"]

DTYPES: Final[Mapping[str, np.dtype[np.generic]]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F8_E4M3": np.dtype("u1"),
    "F8_E5M2": np.dtype("u1"),
    "F8_E8M0": np.dtype("u1"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("u1"),
}
"""Element types by their names in safetensors, and the numpy types that carry their bits (numpy has no BF16 and no F8)."""


class RowReader(Protocol):
    """A tensor that gives its elements a few rows at a time, so that no tensor must fit into memory.

    Seen as a matrix: the last dimension is a row, all others together are the rows; a vector or a scalar is one row.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions in numpy's order: the last one is contiguous. (GGUF and ggml write them the other way round.)"""

    @property
    def dtype(self) -> str:
        """A key of `DTYPES`: how the bits that `read` gives are meant."""

    def read(self, start: int, stop: int) -> NDArray[np.generic]:
        """Rows `start` to `stop`, shape (stop - start, row length), C order, of numpy type `DTYPES[dtype]`.

        May be a view of mapped memory: not to be written to. Threads may read at the same time.

        Raises:
            CheckpointError: the file is shorter than it said, or cannot be read.
        """


class Source(RowReader, Protocol):
    """A tensor as it lies in a checkpoint's file."""

    @property
    def name(self) -> str:
        """Its name in the checkpoint."""

    @property
    def file(self) -> Path:
        """The file it is in, for messages."""


class Checkpoint(Protocol):
    """A folder of weights and the files that describe them. Open files and mappings live as long as it does."""

    @property
    def folder(self) -> Path:
        """Where it is."""

    @property
    def config(self) -> Mapping[str, object]:
        """`config.json`; NaN and infinities are let pass."""

    @property
    def tensors(self) -> Mapping[str, Source]:
        """All tensors by name, in the order of files and offsets."""

    def json(self, name: str) -> object | None:
        """Another JSON file of the folder; None when it is not there. Raises CheckpointError for one that is damaged."""

    def text(self, name: str) -> str | None:
        """A text file of the folder; None when it is not there."""

    def part(self, name: str) -> Checkpoint:
        """A folder one level down (`2_Dense`) as a checkpoint; closed with this one. Raises CheckpointError when it is not there."""

    def close(self) -> None:
        """Let files and mappings go."""
