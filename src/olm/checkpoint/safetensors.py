"""Read safetensors files: a header that is checked whole before anything relies on it, then tensors by offset.

The format is https://huggingface.co/docs/safetensors (8 bytes of length, JSON, data); the rules are those of its
reference reader: names once, no byte of the data unused, none used twice, every tensor as large as its shape says.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from olm.checkpoint.jsons import parse_json
from olm.checkpoint.mapped import FlatTensor, MappedFile, checked_elements, checked_name
from olm.checkpoint.types import DTYPES
from olm.errors import CheckpointError

__all__ = ["read_safetensors"]

_LENGTH: Final = struct.Struct("<Q")
_MAX_HEADER_BYTES: Final = 100_000_000  # the reference reader's limit
_MAX_TENSORS: Final = 1 << 18
_METADATA: Final = "__metadata__"


class _Entry(NamedTuple):
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_safetensors(mapped: MappedFile) -> list[FlatTensor]:
    """Read and check the header; the tensors come in the order of their offsets.

    Raises:
        CheckpointError: not safetensors, truncated, hostile, or with elements of a type that `DTYPES` lacks.
    """
    file = mapped.name
    header, data_offset = _header(mapped)
    if len(header) > _MAX_TENSORS:
        raise CheckpointError(f"{file}: has {len(header)} tensors, more than {_MAX_TENSORS}")
    entries = [
        _entry(checked_name(name, file), value, file)
        for name, value in header.items()
        if name != _METADATA
    ]
    entries.sort(key=lambda entry: (entry.begin, entry.end))
    _check_extents(entries, mapped.size_bytes - data_offset, file)
    return [
        FlatTensor(
            name=entry.name,
            dtype=entry.dtype,
            shape=entry.shape,
            offset=data_offset + entry.begin,
            mapped=mapped,
        )
        for entry in entries
    ]


def _header(mapped: MappedFile) -> tuple[Mapping[str, object], int]:
    """The header's object, and where the data begins."""
    file, size = mapped.name, mapped.size_bytes
    if size < _LENGTH.size:
        raise CheckpointError(f"{file}: is truncated: {size} bytes are no safetensors file")
    (length,) = _LENGTH.unpack(mapped.bytes_at(0, _LENGTH.size))
    if length > _MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{file}: is not safetensors: its header would have {length} bytes, more than {_MAX_HEADER_BYTES}"
        )
    if length > size - _LENGTH.size:
        raise CheckpointError(f"{file}: is truncated: it ends inside its header")
    data = mapped.bytes_at(_LENGTH.size, length)
    if not data.startswith(b"{"):
        raise CheckpointError(f"{file}: is not safetensors: its header is no JSON object")
    header = parse_json(data, f"{file}: the header", strict=True)
    assert isinstance(header, dict), "JSON that begins with a brace is an object"
    return header, _LENGTH.size + length


def _entry(name: str, value: object, file: str) -> _Entry:
    match value:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]} if (
            _are_sizes(shape) and _are_sizes([begin, end])
        ):
            pass
        case _:
            raise CheckpointError(f"{file}: tensor {name!r}: its entry in the header is malformed")
    if dtype not in DTYPES:
        raise CheckpointError(
            f"{file}: tensor {name!r}: elements of the type {dtype[:40]!r} are not supported"
        )
    size_bytes = checked_elements(shape, f"{file}: tensor {name!r}") * DTYPES[dtype].itemsize
    if begin > end or end - begin != size_bytes:
        raise CheckpointError(
            f"{file}: tensor {name!r}: {dtype} of shape {shape} takes {size_bytes} bytes, "
            f"its offsets {begin} to {end} say otherwise"
        )
    return _Entry(name, dtype, tuple(shape), begin, end)


def _are_sizes(numbers: list[object]) -> bool:
    """Whether all are integers from 0 to what 64 bits hold (JSON's true is an int to Python)."""
    return all(type(n) is int and 0 <= n < 1 << 63 for n in numbers)


def _check_extents(entries: list[_Entry], data_bytes: int, file: str) -> None:
    """Sorted by offset, the tensors cover the data from its first byte to its last, and nothing twice."""
    end, before = 0, ""
    for entry in entries:
        if entry.begin < end:
            raise CheckpointError(f"{file}: tensors {before!r} and {entry.name!r} overlap")
        if entry.begin > end:
            raise CheckpointError(
                f"{file}: tensor {entry.name!r}: {entry.begin - end} bytes before it belong to no tensor"
            )
        end, before = entry.end, entry.name
        if end > data_bytes:
            raise CheckpointError(
                f"{file}: is truncated: tensor {entry.name!r} ends at byte {end} of the data, which has {data_bytes}"
            )
    if end != data_bytes:
        raise CheckpointError(f"{file}: {data_bytes - end} bytes at its end belong to no tensor")
