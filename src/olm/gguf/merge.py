"""Putting the parts of a split GGUF together again: one header, then every tensor at its new place.

The keys are the first part's, byte for byte, less `split.*`; the tensors are those of all parts in order. That is what
llama.cpp's `gguf-split --merge` gives, but for `split.count`, which it keeps as 0. Blocking; writes to a function.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import attrs

from olm.errors import GgufError
from olm.gguf.reader import read_header
from olm.gguf.types import SCALARS, TYPE_ARRAY, TYPE_STRING, Header

__all__ = ["Merge", "plan_merge"]

_PIECE_BYTES: Final = 4 << 20
_HEAD: Final = struct.Struct("<4sIQQ")
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_DEFAULT_ALIGNMENT: Final = 32


class _Copy(NamedTuple):
    """Bytes of one part that go to the end of what is written, `n_padding` zeros before them."""

    path: Path
    offset: int
    size: int
    n_padding: int


@attrs.frozen
class Merge:
    """A merge that can be done: `head` is the header with its padding, `size_bytes` what will be written in all."""

    head: bytes = attrs.field(repr=False)
    size_bytes: int
    _copies: Sequence[_Copy] = attrs.field(repr=False)

    def pieces(self) -> Iterator[bytes]:
        """The file from its beginning to its end, in pieces of at most 4 MiB behind the header.

        Raises:
            OSError: as reading does.
            GgufError: a part became shorter.
        """
        yield self.head
        fds: dict[Path, int] = {}
        try:
            for copy in self._copies:
                if copy.path not in fds:
                    fds[copy.path] = os.open(copy.path, os.O_RDONLY | os.O_CLOEXEC)
                yield bytes(copy.n_padding)
                yield from _read(fds[copy.path], copy)
        finally:
            for fd in fds.values():
                os.close(fd)


def _read(fd: int, copy: _Copy) -> Iterator[bytes]:
    done = 0
    while done < copy.size:
        data = os.pread(fd, min(copy.size - done, _PIECE_BYTES), copy.offset + done)
        if not data:
            raise GgufError("a part of the split GGUF became shorter while it was read")
        done += len(data)
        yield data


def plan_merge(paths: Sequence[Path]) -> Merge:
    """Read the headers of the parts, in order, and lay the merged file out.

    Raises:
        GgufError: a part is no sound GGUF, or two have a tensor of the same name.
        OSError: a part cannot be read.
    """
    headers = [read_header(path) for path in paths]
    alignment = headers[0].integer("general.alignment", _DEFAULT_ALIGNMENT)
    infos, copies, end = _place(paths, headers, alignment)
    keys = _keys(_raw_header(paths[0], headers[0]))
    kept = [raw for key, raw in keys if not key.startswith("split.")]
    head = _HEAD.pack(b"GGUF", 3, len(infos), len(kept)) + b"".join(kept) + b"".join(infos)
    head += bytes(-len(head) % alignment)
    return Merge(head, len(head) + end, copies)


def _place(
    paths: Sequence[Path], headers: Sequence[Header], alignment: int
) -> tuple[list[bytes], list[_Copy], int]:
    """Give every tensor its place; returns their table, what is to be copied, and the size of the data."""
    infos: dict[str, bytes] = {}
    copies: list[_Copy] = []
    end = 0
    for path, header in zip(paths, headers, strict=True):
        table = _table(_raw_header(path, header), len(header.tensors))
        for tensor, (name, kind) in zip(header.tensors, table, strict=True):
            if tensor.name in infos:
                raise GgufError(f"two parts of the split GGUF have the tensor {tensor.name!r}")
            n_padding = -end % alignment
            n_dims = len(tensor.shape)
            infos[tensor.name] = (
                _U64.pack(len(name))
                + name
                + struct.pack(f"<I{n_dims}QIQ", n_dims, *tensor.shape, kind, end + n_padding)
            )
            source = header.data_offset + tensor.offset
            copies.append(_Copy(path, source, tensor.size_bytes, n_padding))
            end += n_padding + tensor.size_bytes
    return list(infos.values()), copies, end


def _raw_header(path: Path, header: Header) -> bytes:
    """The bytes up to the data of a header that was checked."""
    with path.open("rb") as file:
        return file.read(header.data_offset)


def _keys(data: bytes) -> list[tuple[str, bytes]]:
    """The keys of a checked header, each with its bytes: name, type and value."""
    (_magic, _version, _n_tensors, n_pairs), pos = _HEAD.unpack_from(data), _HEAD.size
    found: list[tuple[str, bytes]] = []
    for _ in range(n_pairs):
        begin = pos
        (length,) = _U64.unpack_from(data, pos)
        key = data[pos + 8 : pos + 8 + length].decode()
        pos = _after_value(data, pos + 8 + length)
        found.append((key, data[begin:pos]))
    return found


def _after_value(data: bytes, pos: int) -> int:
    """Where a value ends whose type is at `pos`."""
    kind: int = _U32.unpack_from(data, pos)[0]
    pos += 4
    if kind == TYPE_STRING:
        length: int = _U64.unpack_from(data, pos)[0]
        return pos + 8 + length
    if kind != TYPE_ARRAY:
        return pos + SCALARS[kind][1]
    kind = _U32.unpack_from(data, pos)[0]
    count: int = _U64.unpack_from(data, pos + 4)[0]
    pos += 12
    if kind != TYPE_STRING:
        return pos + count * SCALARS[kind][1]
    unpack = _U64.unpack_from
    for _ in range(count):
        pos += 8 + unpack(data, pos)[0]
    return pos


def _table(data: bytes, n_tensors: int) -> list[tuple[bytes, int]]:
    """Names and type numbers of a checked header's tensors, as they are in the file."""
    pos = _HEAD.size + sum(len(raw) for _, raw in _keys(data))
    found: list[tuple[bytes, int]] = []
    for _ in range(n_tensors):
        (length,) = _U64.unpack_from(data, pos)
        name = data[pos + 8 : pos + 8 + length]
        (n_dims,) = _U32.unpack_from(data, pos + 8 + length)
        pos += 8 + length + 4 + 8 * n_dims
        found.append((name, _U32.unpack_from(data, pos)[0]))
        pos += 12
    return found
