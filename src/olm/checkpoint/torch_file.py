"""Read PyTorch files: which of the formats it is, where the storages lie, and tensors as windows of them.

No torch is needed and no code of the file runs; what a pickle may say is in `torch_values`. The formats are those of
`torch/serialization.py`: the zip archive of 1.6 and later (`_save`), and the plain sequence of pickles and storages
before (`_legacy_save`), still written by `torch.save(..., _use_new_zipfile_serialization=False)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from olm.checkpoint.mapped import (
    FlatTensor,
    MappedFile,
    StridedTensor,
    checked_elements,
    checked_name,
)
from olm.checkpoint.pickle_stream import PickleStream
from olm.checkpoint.torch_values import NAMES, StorageRef, TensorRef, state_dict, storage_of_id
from olm.checkpoint.types import DTYPES
from olm.checkpoint.unpickle import unpickle
from olm.checkpoint.zip_directory import Entry, read_directory
from olm.errors import CheckpointError

__all__ = ["read_torch"]

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_VERSION: Final = 1001
_TAR_AT: Final = 257
_MAX_TENSORS: Final = 1 << 18
_MAX_SHARING: Final = 16
"""Tied weights share a storage, expanded ones repeat it; no checkpoint's tensors are many times its file..."""
_SHARING_FLOOR_BYTES: Final = 64 << 20
"""...except in small files, where a repeated scalar may be most of it."""
_MAX_STORAGE_BYTES: Final = 1 << 62


def read_torch(mapped: MappedFile) -> Sequence[FlatTensor | StridedTensor]:
    """Read and check a file's pickles; the tensors come in the order of their offsets.

    Raises:
        CheckpointError: not PyTorch's, truncated, hostile, or with what is not a tensor of a type of `DTYPES`.
    """
    head = mapped.bytes_at(0, min(mapped.size_bytes, _TAR_AT + 5))
    if head.startswith(b"PK\3\4"):
        tensors, storages = _read_zip(mapped)
    elif head.startswith(b"\x80"):
        tensors, storages = _read_legacy(mapped)
    elif head[_TAR_AT:] == b"ustar":
        raise CheckpointError(
            f"{mapped.name}: is a tar archive of PyTorch before 0.1.10, which is not supported; save it again"
        )
    else:
        raise CheckpointError(f"{mapped.name}: is not a PyTorch file")
    return _placed(mapped, tensors, storages)


def _read_zip(mapped: MappedFile) -> tuple[Mapping[str, TensorRef], Mapping[str, Entry]]:
    entries = read_directory(mapped)
    pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError(
            f"{mapped.name}: is a zip archive, but not PyTorch's: no data.pkl in it"
        )
    root = pickles[0].removesuffix("data.pkl")
    order = entries.get(f"{root}byteorder")
    if order is not None and mapped.bytes_at(order.offset, min(order.size_bytes, 16)) != b"little":
        raise CheckpointError(
            f"{mapped.name}: was saved on a big-endian machine, which is not supported"
        )
    entry = entries[pickles[0]]
    stream = PickleStream(mapped, entry.offset, entry.offset + entry.size_bytes)
    tensors = state_dict(unpickle(stream, NAMES, storage_of_id), mapped.name)
    prefix = f"{root}data/"
    return tensors, {
        name.removeprefix(prefix): entry
        for name, entry in entries.items()
        if name.startswith(prefix)
    }


def _read_legacy(mapped: MappedFile) -> tuple[Mapping[str, TensorRef], Mapping[str, Entry]]:
    """Five pickles (magic, version, machine, object, keys), then each key's storage: its length, its elements."""
    file = mapped.name
    stream = PickleStream(mapped, 0, mapped.size_bytes)
    if unpickle(stream, {}) != _MAGIC:
        raise CheckpointError(f"{file}: is a pickle, but not PyTorch's")
    version, machine = unpickle(stream, {}), unpickle(stream, {})
    if version != _VERSION or not isinstance(machine, dict):
        raise CheckpointError(f"{file}: has a PyTorch format that is not known, only {_VERSION} is")
    if machine.get("little_endian") is not True:
        raise CheckpointError(f"{file}: was saved on a big-endian machine, which is not supported")
    widths: dict[str, int] = {}

    def persistent(value: object) -> StorageRef:
        storage = storage_of_id(value)
        width = DTYPES[storage.dtype or "U8"].itemsize
        if widths.setdefault(storage.key, width) != width:
            raise ValueError(f"the storage {storage.key[:40]!r} has elements of two types")
        return storage

    tensors = state_dict(unpickle(stream, NAMES, persistent), file)
    keys = unpickle(stream, {})
    if not isinstance(keys, list) or not all(
        isinstance(key, str) and key in widths for key in keys
    ):
        raise CheckpointError(f"{file}: the list of its storages is malformed")
    return tensors, _legacy_storages(mapped, stream.at, keys, widths)


def _legacy_storages(
    mapped: MappedFile, at: int, keys: Sequence[str], widths: Mapping[str, int]
) -> Mapping[str, Entry]:
    """Where each storage lies; those beyond the file's end are left out, and missed when a tensor wants them."""
    storages: dict[str, Entry] = {}
    for key in keys:
        if at + 8 > mapped.size_bytes:
            break
        count = int.from_bytes(mapped.bytes_at(at, 8), "little", signed=True)
        size_bytes = count * widths[key]
        if not 0 <= size_bytes <= _MAX_STORAGE_BYTES or key in storages:
            raise CheckpointError(f"{mapped.name}: the storage {key[:40]!r} is malformed")
        if at + 8 + size_bytes > mapped.size_bytes:
            break
        storages[key] = Entry(at + 8, size_bytes)
        at += 8 + size_bytes
    return storages


def _placed(
    mapped: MappedFile, tensors: Mapping[str, TensorRef], storages: Mapping[str, Entry]
) -> Sequence[FlatTensor | StridedTensor]:
    file = mapped.name
    if len(tensors) > _MAX_TENSORS:
        raise CheckpointError(f"{file}: has {len(tensors)} tensors, more than {_MAX_TENSORS}")
    placed = [
        _place(mapped, checked_name(name, file), ref, storages.get(ref.storage.key))
        for name, ref in tensors.items()
    ]
    claimed = sum(math.prod(one.shape) * DTYPES[one.dtype].itemsize for one in placed)
    if claimed > max(_SHARING_FLOOR_BYTES, _MAX_SHARING * mapped.size_bytes):
        raise CheckpointError(
            f"{file}: its tensors claim {claimed} bytes, the file has {mapped.size_bytes}"
        )
    return sorted(placed, key=lambda one: one.offset)


def _place(
    mapped: MappedFile, name: str, ref: TensorRef, storage: Entry | None
) -> FlatTensor | StridedTensor:
    """Check that the storage holds the tensor, and find out whether its elements lie one after another."""
    what = f"{mapped.name}: tensor {name!r}"
    if storage is None:
        raise CheckpointError(
            f"{what}: its storage {ref.storage.key[:40]!a} is missing, is the file truncated?"
        )
    width = DTYPES[ref.dtype].itemsize
    begin = ref.storage.begin * (DTYPES[ref.storage.dtype].itemsize if ref.storage.dtype else 1)
    begin += ref.offset * width
    reach = width * (
        1 + sum((n - 1) * step for n, step in zip(ref.shape, ref.strides, strict=True))
    )
    if checked_elements(ref.shape, what) and begin + reach > storage.size_bytes:
        raise CheckpointError(
            f"{what}: needs {begin + reach} bytes of its storage, which has {storage.size_bytes}"
        )
    if not math.prod(ref.shape):
        begin = 0  # nothing will be read; an offset beyond the storage does no harm
    offset = storage.offset + begin
    if _is_flat(ref.shape, ref.strides):
        return FlatTensor(name=name, dtype=ref.dtype, shape=ref.shape, offset=offset, mapped=mapped)
    return StridedTensor(
        name=name,
        dtype=ref.dtype,
        shape=ref.shape,
        strides=ref.strides,
        offset=offset,
        mapped=mapped,
    )


def _is_flat(shape: Sequence[int], strides: Sequence[int]) -> bool:
    if not math.prod(shape):
        return True
    expected = 1
    for n, step in zip(reversed(shape), reversed(strides), strict=True):
        if n != 1 and step != expected:
            return False
        expected *= n
    return True
