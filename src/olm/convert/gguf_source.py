"""A GGUF, or all parts of a split one, as a `ModelFile`: to quantize it, to merge it, to copy it.

The header is checked by `olm.gguf`; what is copied from it keeps its bytes and its place.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import attrs
import numpy as np
from numpy.typing import NDArray

from olm.checkpoint.mapped import MappedFile, Residency, open_regular
from olm.checkpoint.types import DTYPES
from olm.convert.metadata import Metadata, Pair
from olm.convert.model_file import ModelFile, OutTensor
from olm.convert.values import row_bytes
from olm.errors import GgufError
from olm.gguf import Array, Header, Tensor, read_header
from olm.gguf.types import SCALARS, TYPE_ARRAY, TYPE_STRING

__all__ = ["GgufSource"]

# Keys that say how a file was laid out, which the new one is not.
_LAYOUT_KEYS: Final = ("general.alignment", "split.no", "split.count", "split.tensors.count")
_U64: Final = struct.Struct("<Q")
_U32: Final = struct.Struct("<I")
_HEAD_BYTES: Final = 24  # magic, version, tensors, pairs


@attrs.frozen
class _GgufTensor:
    """A tensor of a GGUF: rows are views of the mapping."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    mapped: MappedFile = attrs.field(repr=False)

    def read(self, start: int, stop: int) -> NDArray[np.generic]:
        length = self.shape[-1]
        n_bytes = row_bytes(self.dtype, length)
        kind = self.dtype if self.dtype in DTYPES else "U8"
        count = (stop - start) * n_bytes // DTYPES[kind].itemsize
        at = self.offset + start * n_bytes
        flat = self.mapped.elements(kind, at, count, (stop - start) * n_bytes)
        return flat.reshape(stop - start, -1) if stop > start else flat.reshape(0, length)


class GgufSource:
    """Open GGUF files; a context manager that closes them.

    Args:
        paths: one file, or all parts of a split model in their order.
        arrays: keep the values of long arrays too, not only their bytes.

    Raises:
        GgufError: not GGUF, damaged, parts that do not belong together.
        CheckpointError: a file cannot be opened.
    """

    def __init__(self, paths: Sequence[Path], *, arrays: bool = False) -> None:
        self._mapped: list[MappedFile] = []
        residency = Residency()
        tensors: dict[str, OutTensor] = {}
        headers = []
        try:
            for path in paths:
                real = path.resolve()  # a blob of the store may be a link to a file elsewhere
                header = read_header(real, arrays=arrays)
                mapped = MappedFile(open_regular(real, path.name), path, residency)
                self._mapped.append(mapped)
                headers.append(header)
                for tensor in header.tensors:
                    if tensor.name in tensors:
                        raise GgufError(
                            f"{path.name}: tensor {tensor.name!r} is in another part too"
                        )
                    tensors[tensor.name] = _out_tensor(tensor, header, mapped)
            _check_parts(headers)
            self.metadata = _metadata(self._mapped[0], headers[0])
        except BaseException:
            self.close()
            raise
        self._tensors = tuple(tensors.values())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def file(self) -> ModelFile:
        """The model, every tensor in the type it has."""
        general = self.metadata.get("general.type")
        is_clip = self.metadata.architecture == "clip"
        if general == "adapter":
            return ModelFile("adapter", self.metadata, self._tensors)
        return ModelFile("projector" if is_clip else "model", self.metadata, self._tensors)

    def close(self) -> None:
        """Let files and mappings go."""
        for mapped in self._mapped:
            mapped.close()


def _out_tensor(tensor: Tensor, header: Header, mapped: MappedFile) -> OutTensor:
    shape = tuple(reversed(tensor.shape)) or (1,)
    reader = _GgufTensor(tensor.type_name, shape, header.data_offset + tensor.offset, mapped)
    return OutTensor(tensor.name, reader, tensor.type_name)


def _check_parts(headers: Sequence[Header]) -> None:
    """All parts of a split model, each once and in order."""
    wanted = max(headers[0].integer("split.count"), 1)
    if len(headers) != wanted:
        raise GgufError(f"this model has {wanted} parts, {len(headers)} are here")
    for place, header in enumerate(headers):
        if wanted > 1 and header.integer("split.no", -1) != place:
            raise GgufError(f"part {place + 1} of {wanted} is missing or out of order")
    said = headers[0].integer("split.tensors.count", -1)
    found = sum(len(header.tensors) for header in headers)
    if wanted > 1 and said not in (-1, found):
        raise GgufError(f"the parts hold {found} tensors, {said} were announced")


def _metadata(mapped: MappedFile, header: Header) -> Metadata:
    """Every pair with its own bytes; values only where the reader kept them."""
    meta = Metadata(header.text("general.architecture"))
    raw = mapped.bytes_at(0, min(header.data_offset, mapped.size_bytes))
    for key, kind, payload in _pairs(raw):
        value = header.values.get(key)
        if isinstance(value, Array):
            value = None if value.values is None else tuple(value.values)  # type: ignore[assignment]  # of numbers or strings
        if key not in _LAYOUT_KEYS:
            meta.put(key, Pair(kind, payload, value))
    return meta


def _pairs(raw: bytes) -> Iterator[tuple[str, int, bytes]]:
    """(key, type, bytes of the value). The header was checked, so nothing here is."""
    (n_pairs,) = _U64.unpack_from(raw, 16)
    at = _HEAD_BYTES
    for _ in range(n_pairs):
        (length,) = _U64.unpack_from(raw, at)
        key = raw[at + 8 : at + 8 + length].decode()
        (kind,) = _U32.unpack_from(raw, at + 8 + length)
        start = at + 12 + length
        at = _end(raw, start, kind)
        yield key, kind, raw[start:at]


def _end(raw: bytes, at: int, kind: int) -> int:
    """Where a value that begins at `at` ends."""
    if kind == TYPE_STRING:
        return at + 8 + int(_U64.unpack_from(raw, at)[0])
    if kind != TYPE_ARRAY:
        return at + SCALARS[kind][1]
    (item,), (count,) = _U32.unpack_from(raw, at), _U64.unpack_from(raw, at + 4)
    at += 12
    if item != TYPE_STRING:
        return at + int(count) * SCALARS[item][1]
    unpack = _U64.unpack_from
    for _ in range(count):
        at += 8 + unpack(raw, at)[0]
    return at
