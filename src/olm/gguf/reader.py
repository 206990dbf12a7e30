"""Read a GGUF header with every number checked before it is used: the daemon's only contact with model files.

Model files are hostile. Counts, lengths, types, dimensions and extents are compared with what the file can hold in
Python's unbounded integers, nothing is allocated beyond what the file really contains, and work is bounded by
the limits below: any 1 MiB input takes under 50 ms and 20 MiB. Reading goes through `pread`, not `mmap`: a file that
shrinks under a mapping would kill the process with SIGBUS.

The rules are llama.cpp's own (`ggml/src/gguf.cpp`, ggml 0.25.3) and stricter where a lie could hurt later.
"""

from __future__ import annotations

import math
import os
import stat
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from olm.errors import GgufError
from olm.gguf.types import (
    SCALARS,
    TENSOR_TYPES,
    TYPE_ARRAY,
    TYPE_BOOL,
    TYPE_FLOAT32,
    TYPE_STRING,
    TYPE_UINT32,
    Array,
    Header,
    Scalar,
    Tensor,
    Value,
)

__all__ = ["NOT_GGUF", "read_header"]

NOT_GGUF: Final = "supplied file was not in GGUF format"

_WINDOW_BYTES: Final = 1 << 20
_MAX_HEADER_BYTES: Final = 128 << 20  # the largest vocabularies of 2026 make headers of 16 MiB
_MAX_PAIRS: Final = 1 << 13  # real files have under 200
_MAX_TENSORS: Final = 1 << 16  # real files have under 5,000
_MAX_STRING_BYTES: Final = 16 << 20  # chat templates and licences stay under 1 MiB
_MAX_ELEMENT_BYTES: Final = 64 << 10  # one vocabulary piece or merge
_MAX_KEY_BYTES: Final = (1 << 16) - 1  # GGUF specification
_MAX_ARRAY: Final = 1 << 22
_MAX_NAME_BYTES: Final = 63  # GGML_MAX_NAME less the NUL
_MAX_DIMS: Final = 4
_SMALL_ARRAY: Final = (
    1 << 10
)  # numbers that are read even when arrays are not asked for: one for each layer
_INT64_MAX: Final = (1 << 63) - 1
_ALIGNMENT: Final = "general.alignment"
_MIN_ALIGNMENT: Final = 8
_F32_MAX: Final = 3.4028234663852886e38

_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_HEAD: Final = struct.Struct("<4sIQQ")
_TAILS: Final = tuple(struct.Struct(f"<{n}QIQ") for n in range(_MAX_DIMS + 1))  # dims, type, offset
_TENSOR_ROOM: Final = 8 + _MAX_NAME_BYTES + 4 + 8 * _MAX_DIMS + 12


class _Cursor:
    """A position in the file with a window of its bytes; `data[pos:]` is what comes next."""

    __slots__ = ("_base", "_fd", "data", "pos", "size")

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self.size = size
        self._base = 0
        self.data = b""
        self.pos = 0

    @property
    def at(self) -> int:
        """The position in the file."""
        return self._base + self.pos

    def seek(self, at: int, n_bytes: int = 0) -> None:
        """Go to `at` and have `n_bytes` from there, or what the file has, in the window."""
        if at > self.size:
            raise GgufError("GGUF file is truncated: it ends inside its header")
        if at > _MAX_HEADER_BYTES:
            raise GgufError(f"GGUF header is larger than {_MAX_HEADER_BYTES >> 20} MiB")
        self._base, self.pos = at, 0
        self.data = os.pread(self._fd, max(n_bytes, _WINDOW_BYTES), at)

    def ensure(self, n_bytes: int) -> None:
        """Have the next `n_bytes`, or all there is, in the window."""
        if len(self.data) - self.pos < n_bytes:
            self.seek(self.at, n_bytes)

    def need(self, n_bytes: int) -> None:
        """Have the next `n_bytes` in the window. Raises GgufError when the file ends before."""
        if n_bytes > self.size - self.at:
            raise GgufError("GGUF file is truncated: it ends inside its header")
        self.ensure(n_bytes)
        if len(self.data) - self.pos < n_bytes:  # it shrank while we read
            raise GgufError("GGUF file is truncated: it ends inside its header")

    def unpack(self, layout: struct.Struct) -> int:
        """Read one number."""
        self.need(layout.size)
        value: int = layout.unpack_from(self.data, self.pos)[0]
        self.pos += layout.size
        return value

    def take(self, n_bytes: int) -> bytes:
        """Read bytes; the caller has bounded `n_bytes`."""
        self.need(n_bytes)
        piece = self.data[self.pos : self.pos + n_bytes]
        self.pos += n_bytes
        return piece


def read_header(path: Path, *, arrays: bool = False) -> Header:
    """Read and check the header of a GGUF file.

    Blocking: run it in a thread. A model with 152,000 tokens takes some 50 ms.

    Args:
        path: a regular file; anything else is refused without being read.
        arrays: read long arrays (vocabularies) too, which costs memory.

    Raises:
        GgufError: not GGUF, truncated, hostile, or of an unsupported version.
        OSError: the file cannot be opened or read.
    """
    # O_NONBLOCK: a FIFO must not hang us before fstat can tell what it is.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise GgufError(NOT_GGUF)
        return _parse(_Cursor(fd, status.st_size), arrays=arrays)
    finally:
        os.close(fd)


def _parse(cursor: _Cursor, *, arrays: bool) -> Header:
    version, n_tensors, n_pairs = _read_head(cursor)
    values: dict[str, Value] = {}
    for _ in range(n_pairs):
        key = _key(cursor)
        if key in values:
            raise GgufError(f"GGUF key {key!r} appears twice")
        kind = cursor.unpack(_U32)
        if key == _ALIGNMENT and kind != TYPE_UINT32:
            raise GgufError(f"GGUF key {key!r} has the type {kind}, it must be {TYPE_UINT32} (u32)")
        values[key] = _value(cursor, key, kind, arrays=arrays)
    alignment = _alignment(values)
    _check_layers(values)
    tensors = [_tensor(cursor) for _ in range(n_tensors)]
    data_offset = -(-cursor.at // alignment) * alignment
    _check_extents(tensors, data_offset, alignment, cursor.size)
    return Header(version, values, tuple(tensors), data_offset, cursor.size)


def _read_head(cursor: _Cursor) -> tuple[int, int, int]:
    cursor.ensure(_HEAD.size)
    if cursor.data[:4] != b"GGUF":
        raise GgufError(NOT_GGUF)
    if len(cursor.data) < _HEAD.size:
        raise GgufError("GGUF file is truncated: it ends inside its header")
    _, version, n_tensors, n_pairs = _HEAD.unpack_from(cursor.data)
    cursor.pos = _HEAD.size
    if version & 0xFFFF == 0:
        raise GgufError("big-endian GGUF files are not supported")
    if version not in (2, 3):
        raise GgufError(f"GGUF version {version} is not supported, only 2 and 3 are")
    if n_pairs > _MAX_PAIRS:
        raise GgufError(f"GGUF file claims {n_pairs} keys, more than {_MAX_PAIRS}")
    if n_tensors > _MAX_TENSORS:
        raise GgufError(f"GGUF file claims {n_tensors} tensors, more than {_MAX_TENSORS}")
    # A pair takes 14 bytes at least, a tensor 24: refuse a lie before looping over it.
    if n_pairs * 14 + n_tensors * 24 > cursor.size - cursor.at:
        raise GgufError("GGUF file is truncated: it ends inside its header")
    return version, n_tensors, n_pairs


def _key(cursor: _Cursor) -> str:
    length = cursor.unpack(_U64)
    if not 0 < length <= _MAX_KEY_BYTES:
        raise GgufError(f"GGUF key of {length} bytes, 1 to {_MAX_KEY_BYTES} are allowed")
    try:
        return cursor.take(length).decode()
    except UnicodeDecodeError as exc:
        raise GgufError("GGUF key is not UTF-8") from exc


def _value(cursor: _Cursor, key: str, kind: int, *, arrays: bool) -> Value:
    if kind == TYPE_STRING:
        length = cursor.unpack(_U64)
        if length > _MAX_STRING_BYTES:
            raise GgufError(f"GGUF key {key!r}: a string of {length} bytes is too long")
        return cursor.take(length).decode(errors="replace")
    if kind == TYPE_ARRAY:
        return _array(cursor, key, arrays=arrays)
    if kind not in SCALARS:
        raise GgufError(f"GGUF key {key!r} has the unknown type {kind}")
    code, size = SCALARS[kind]
    raw = cursor.take(size)
    if kind == TYPE_BOOL:
        return raw != b"\0"
    value: Scalar = struct.unpack(f"<{code}", raw)[0]
    return _shortest(value) if kind == TYPE_FLOAT32 and isinstance(value, float) else value


def _shortest(value: float) -> float:
    """The double with the fewest digits that is the same f32: 1e-05, not 9.999999747378752e-06 (as Go prints it)."""
    if not math.isfinite(value):
        return value
    for digits in range(6, 9):
        rounded = float(f"{value:.{digits}g}")
        # Rounding up at the very top of the range would overflow f32; such a value stays as it is.
        if abs(rounded) <= _F32_MAX and struct.pack("<f", rounded) == struct.pack("<f", value):
            return rounded
    return value


def _array(cursor: _Cursor, key: str, *, arrays: bool) -> Array:
    kind = cursor.unpack(_U32)
    count = cursor.unpack(_U64)
    if kind == TYPE_STRING:
        if count > _MAX_ARRAY:
            raise GgufError(f"GGUF key {key!r}: an array of {count} strings is too long")
        if count * 8 > cursor.size - cursor.at:
            raise GgufError(f"GGUF file is truncated: it ends inside the array {key!r}")
        if arrays:
            return Array(count, _strings(cursor, key, count))
        _skip(cursor, key, count)
        return Array(count, None)
    if kind not in SCALARS:
        raise GgufError(f"GGUF key {key!r} is an array of the unsupported type {kind}")
    code, size = SCALARS[kind]
    if count * size > cursor.size - cursor.at:
        raise GgufError(f"GGUF file is truncated: it ends inside the array {key!r}")
    if count <= (_MAX_ARRAY if arrays else _SMALL_ARRAY):
        raw = cursor.take(count * size)
        if kind == TYPE_BOOL:
            return Array(count, tuple(byte != 0 for byte in raw))
        return Array(count, struct.unpack(f"<{count}{code}", raw))
    cursor.seek(cursor.at + count * size)
    return Array(count, None)


def _skip(cursor: _Cursor, key: str, count: int) -> None:
    """Step over strings: the hot loop of the reader, some 0.1 µs a string."""
    unpack = _U64.unpack_from
    data, pos, left = cursor.data, cursor.pos, count
    while left:
        try:
            while left:
                (length,) = unpack(data, pos)
                if length > _MAX_ELEMENT_BYTES:
                    raise GgufError(f"GGUF key {key!r}: an element of {length} bytes is too long")
                pos += length + 8
                left -= 1
        except struct.error as exc:  # the window ends here
            cursor.pos = pos
            if cursor.size - cursor.at < 8:
                raise GgufError(
                    f"GGUF file is truncated: it ends inside the array {key!r}"
                ) from exc
            cursor.seek(cursor.at)
            if len(cursor.data) < 8:
                raise GgufError("GGUF file is truncated: it shrank while being read") from exc
            data, pos = cursor.data, 0
    cursor.pos = pos
    if cursor.pos > len(cursor.data):
        cursor.seek(cursor.at)


def _strings(cursor: _Cursor, key: str, count: int) -> Sequence[str]:
    items: list[str] = []
    for _ in range(count):
        length = cursor.unpack(_U64)
        if length > _MAX_ELEMENT_BYTES:
            raise GgufError(f"GGUF key {key!r}: an element of {length} bytes is too long")
        items.append(cursor.take(length).decode(errors="replace"))
    return items


def _alignment(values: dict[str, Value]) -> int:
    alignment = values.get(_ALIGNMENT, 32)
    assert isinstance(alignment, int), "the key's type was checked when it was read"
    # The specification wants a multiple of 8; llama.cpp takes any power of two and aborts later at unaligned data.
    if alignment < _MIN_ALIGNMENT or alignment & (alignment - 1):
        raise GgufError(
            f"GGUF alignment of {alignment} is not a power of two from {_MIN_ALIGNMENT} up"
        )
    return alignment


def _check_layers(values: dict[str, Value]) -> None:
    """llama.cpp keeps per-layer figures in arrays of 512 (LLAMA_MAX_LAYERS) and has trusted this number before."""
    architecture = values.get("general.architecture")
    layers = values.get(f"{architecture}.block_count", 0)
    if isinstance(layers, int) and not 0 <= layers <= 512:
        raise GgufError(f"GGUF file claims {layers} layers, more than 512")


def _tensor(cursor: _Cursor) -> Tensor:
    cursor.ensure(_TENSOR_ROOM)
    data, pos = cursor.data, cursor.pos
    try:
        (length,) = _U64.unpack_from(data, pos)
        if not 0 < length <= _MAX_NAME_BYTES:
            raise GgufError(f"GGUF tensor name of {length} bytes, 1 to {_MAX_NAME_BYTES} allowed")
        pos += 8 + length
        name = data[pos - length : pos].decode(errors="replace")
        (n_dims,) = _U32.unpack_from(data, pos)
        if n_dims > _MAX_DIMS:
            raise GgufError(f"GGUF tensor {name!r} has {n_dims} dimensions, more than {_MAX_DIMS}")
        tail = _TAILS[n_dims]
        *dims, kind, offset = tail.unpack_from(data, pos + 4)
    except struct.error as exc:
        raise GgufError("GGUF file is truncated: it ends inside its tensor table") from exc
    cursor.pos = pos + 4 + tail.size
    return _sized(name, kind, tuple(dims), offset)


def _sized(name: str, kind: int, shape: tuple[int, ...], offset: int) -> Tensor:
    info = TENSOR_TYPES.get(kind)
    if info is None:
        raise GgufError(f"GGUF tensor {name!r} has the unknown type {kind}")
    n_elements = 1
    for n in shape:
        if not 0 < n <= _INT64_MAX:
            raise GgufError(f"GGUF tensor {name!r} has a dimension of {n}")
        n_elements *= n
    if n_elements > _INT64_MAX:
        raise GgufError(f"GGUF tensor {name!r} has too many elements: {n_elements}")
    if (shape[0] if shape else 1) % info.block:
        raise GgufError(
            f"GGUF tensor {name!r}: rows of {shape[0] if shape else 1} are not a multiple of {info.name}'s {info.block}"
        )
    size_bytes = n_elements // info.block * info.size_bytes
    return Tensor(name, info.name, shape, offset, size_bytes, n_elements)


def _check_extents(
    tensors: Sequence[Tensor], data_offset: int, alignment: int, file_bytes: int
) -> None:
    """Every tensor lies inside the file, aligned, and none shares a byte with another; names are unique."""
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise GgufError("GGUF file names a tensor twice")
    end, before = 0, ""
    for tensor in sorted(tensors, key=lambda t: t.offset):
        if tensor.offset % alignment:
            raise GgufError(f"GGUF tensor {tensor.name!r} is not aligned to {alignment} bytes")
        if tensor.offset < end:
            raise GgufError(f"GGUF tensors {before!r} and {tensor.name!r} overlap")
        end, before = tensor.offset + tensor.size_bytes, tensor.name
        if data_offset + end > file_bytes:
            raise GgufError(
                f"GGUF file is truncated: tensor {tensor.name!r} ends at byte {data_offset + end}, "
                f"the file at {file_bytes}"
            )
