"""Importance matrices: how much each column of a weight matters, from files of llama.cpp's `llama-imatrix`.

GGUF files hold sums of squared activations and counts for each tensor; the old `.dat` files sums only. The arithmetic is that of
`llama-quantize` (tools/quantize/quantize.cpp), in f32, so that its quantized bytes are ours.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs
import numpy as np
from numpy.typing import NDArray

from olm.convert.gguf_source import GgufSource
from olm.convert.lazy import read_all
from olm.convert.model_file import ModelFile, OutTensor
from olm.errors import CheckpointError

__all__ = ["ImportanceMatrix", "read_imatrix"]

_SUMS, _COUNTS = ".in_sum2", ".counts"
_MAX_ENTRIES: Final = 1 << 16
_MAX_NAME: Final = 256
_MAX_VALUES: Final = 1 << 26


@attrs.frozen
class ImportanceMatrix:
    """Importance by tensor name.

    Attributes:
        name: the file's.
        entries: [n values] f32: columns, one matrix after another.
        dataset: what it was computed on, "" if unknown.
        n_chunks: of how many pieces of text, 0 if unknown.
    """

    name: str
    entries: Mapping[str, NDArray[np.float32]]
    dataset: str = ""
    n_chunks: int = 0

    def weights_of(self, tensor: OutTensor) -> NDArray[np.float32] | None:
        """The importance of a tensor's columns, [n_matrices, columns]; None when it is not in the file.

        Raises:
            CheckpointError: it was computed on a tensor of another shape, so on another model.
        """
        values = self.entries.get(tensor.name)
        if values is None:
            return None
        *outer, _, columns = (
            (1, *tensor.reader.shape) if len(tensor.reader.shape) == 1 else tensor.reader.shape
        )
        wanted = columns * int(np.prod(outer, dtype=np.int64))
        if len(values) != wanted:
            if tensor.name in ("token_embd.weight", "per_layer_token_embd.weight"):
                return None  # as llama-quantize has it
            raise CheckpointError(
                f"{self.name}: has {len(values)} weights for {tensor.name!r}, which needs {wanted}: it is of another model"
            )
        return values.reshape(-1, columns)


def read_imatrix(path: Path, name: str = "") -> ImportanceMatrix:
    """Read an importance matrix. Blocking. `name`: what it is called, if not as its file is.

    Raises:
        CheckpointError, GgufError: it is damaged, or holds NaN or infinities.
    """
    try:
        with path.open("rb") as file:
            is_gguf = file.read(4) == b"GGUF"
        name = name or path.name
        found = _from_gguf(path, name) if is_gguf else _from_legacy(name, path.read_bytes())
    except OSError as exc:
        raise CheckpointError(f"{name or path.name}: cannot be read: {exc.strerror}") from exc
    for tensor, values in found.entries.items():
        if not np.isfinite(values).all():
            raise CheckpointError(f"{found.name}: the weights of {tensor!r} are not finite")
    return found


def _from_gguf(path: Path, label: str) -> ImportanceMatrix:
    with GgufSource([path], arrays=True) as source:
        file = source.file
        tensors = {tensor.name: tensor for tensor in file.tensors}
        entries: dict[str, NDArray[np.float32]] = {}
        for name, tensor in tensors.items():
            if not name.endswith(_SUMS):
                continue
            stem = name.removesuffix(_SUMS)
            counts = tensors.get(stem + _COUNTS)
            if counts is None or {tensor.type_name, counts.type_name} != {"F32"}:
                raise CheckpointError(
                    f"{label}: sums and counts of {stem!r} do not belong together"
                )
            entries[stem] = _normalized(label, stem, _flat(tensor), _flat(counts))
        dataset, n_chunks = _origin(file)
    if not entries:
        raise CheckpointError(f"{label}: holds no importance matrix")
    return ImportanceMatrix(label, entries, dataset, n_chunks)


def _origin(file: ModelFile) -> tuple[str, int]:
    datasets = file.metadata.get("imatrix.datasets")
    named = isinstance(datasets, tuple) and datasets and isinstance(datasets[0], str)
    return (str(datasets[0]) if named else ""), file.metadata.integer("imatrix.chunk_count")  # type: ignore[index]  # a tuple, see above


def _flat(tensor: OutTensor) -> NDArray[np.float32]:
    return np.array(read_all(tensor.reader), dtype=np.float32).reshape(-1)


def _normalized(
    file: str, name: str, sums: NDArray[np.float32], counts: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Mean of squares for each matrix; ones for an expert that was never chosen."""
    if not len(counts) or len(sums) % len(counts):
        raise CheckpointError(f"{file}: {len(sums)} sums and {len(counts)} counts of {name!r}")
    rows = sums.reshape(len(counts), -1)
    rounded = np.rint(counts).astype(np.float32)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.where(rounded > 0, rows / rounded, np.float32(1))
    return np.ascontiguousarray(means, dtype=np.float32).reshape(-1)


class _Bytes:
    def __init__(self, name: str, data: bytes) -> None:
        self._name = name
        self._data = data
        self._at = 0

    @property
    def n_left(self) -> int:
        return len(self._data) - self._at

    def take(self, n_bytes: int) -> bytes:
        if not 0 <= n_bytes <= self.n_left:
            raise CheckpointError(f"{self._name}: is no importance matrix, or is truncated")
        self._at += n_bytes
        return self._data[self._at - n_bytes : self._at]

    def number(self, limit: int) -> int:
        value: int = struct.unpack("<i", self.take(4))[0]
        if not 0 <= value <= limit:
            raise CheckpointError(f"{self._name}: is no importance matrix")
        return value


def _from_legacy(name: str, data: bytes) -> ImportanceMatrix:
    """The format before GGUF: count, then name, calls and values of each; then chunks and dataset."""
    cursor = _Bytes(name, data)
    n_entries = cursor.number(_MAX_ENTRIES)
    entries: dict[str, NDArray[np.float32]] = {}
    for _ in range(n_entries):
        tensor = cursor.take(cursor.number(_MAX_NAME)).decode(errors="replace")
        n_calls = cursor.number(1 << 30)
        values = np.frombuffer(cursor.take(4 * cursor.number(_MAX_VALUES)), "<f4")
        scale = np.float32(max(n_calls, 1))
        entries[tensor] = np.asarray(values / scale, dtype=np.float32)
    if not entries:
        raise CheckpointError(f"{name}: is no importance matrix")
    n_chunks = cursor.number(1 << 30) if cursor.n_left >= 4 else 0
    dataset = (
        cursor.take(cursor.number(_MAX_NAME)).decode(errors="replace") if cursor.n_left >= 4 else ""
    )
    return ImportanceMatrix(name, entries, dataset, n_chunks)
