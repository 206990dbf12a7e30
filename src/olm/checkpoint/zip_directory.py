"""The directory of a zip archive whose entries are stored, so that each is a stretch of the archive itself.

Python's `zipfile` would inflate what it is given and allocate what a directory claims; here compressed entries are
refused, and nothing is read beyond the directory. The format is PKWARE's APPNOTE 6.3.10, with its zip64 records.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

import attrs

from olm.checkpoint.mapped import MappedFile
from olm.errors import CheckpointError

__all__ = ["Entry", "read_directory"]

_END: Final = struct.Struct("<4s4HLLH")
_END_64: Final = struct.Struct("<4sQHHLLQQQQ")
_LOCATOR: Final = struct.Struct("<4sLQL")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_EXTRA: Final = struct.Struct("<HH")
_U64: Final = struct.Struct("<Q")
_FULL_16: Final = 0xFFFF
_FULL_32: Final = 0xFFFFFFFF
_ENCRYPTED: Final = 1 | 1 << 6 | 1 << 13
_ZIP64: Final = 1
_MAX_COMMENT: Final = 0xFFFF
_MAX_ENTRIES: Final = 1 << 18
_MAX_DIRECTORY_BYTES: Final = 64 << 20


@attrs.frozen
class Entry:
    """A stored entry: `size_bytes` bytes of the archive from `offset` on, all inside."""

    offset: int
    size_bytes: int


@attrs.frozen
class _Listed:
    name: str
    header_at: int
    size_bytes: int


def read_directory(archive: MappedFile) -> Mapping[str, Entry]:
    """Read and check the directory, and the header before each entry.

    Raises:
        CheckpointError: no zip archive, truncated, hostile, compressed or encrypted.
    """
    begin, size, count = _find_directory(archive)
    if count > _MAX_ENTRIES or size > _MAX_DIRECTORY_BYTES:
        raise CheckpointError(f"{archive.name}: the zip directory is too large: {count} entries")
    if begin + size > archive.size_bytes:
        raise _damaged(archive, "its directory lies beyond its end")
    listed = _list(archive, archive.bytes_at(begin, size), count)
    entries: dict[str, Entry] = {}
    end = 0
    for one in sorted(listed, key=lambda one: one.header_at):
        if one.header_at < end:
            raise _damaged(archive, f"the entry {one.name!r} overlaps another")
        if one.name in entries:
            raise _damaged(archive, f"the entry {one.name!r} is there twice")
        entry = _located(archive, one)
        end = entry.offset + entry.size_bytes
        if end > begin:
            raise _damaged(archive, f"the entry {one.name!r} ends beyond the others' end")
        entries[one.name] = entry
    return entries


def _damaged(archive: MappedFile, why: str) -> CheckpointError:
    return CheckpointError(f"{archive.name}: the zip archive is damaged: {why}")


def _find_directory(archive: MappedFile) -> tuple[int, int, int]:
    """Offset, size and number of entries of the directory, from the record at the archive's end."""
    n_tail = min(archive.size_bytes, _MAX_COMMENT + _END.size)
    tail_at = archive.size_bytes - n_tail
    tail = archive.bytes_at(tail_at, n_tail)
    at = len(tail)
    while (at := tail.rfind(b"PK\5\6", 0, at)) >= 0:
        if at + _END.size <= len(tail):
            _, disk, _, _, count, size, begin, n_comment = _END.unpack_from(tail, at)
            if at + _END.size + n_comment == len(tail):
                break
    else:
        raise CheckpointError(
            f"{archive.name}: is truncated: the end of the zip archive is missing"
        )
    if _FULL_16 in (disk, count) or _FULL_32 in (size, begin):
        return _find_directory_64(archive, tail_at + at)
    if disk:
        raise _damaged(archive, "it is split over several files")
    return begin, size, count


def _find_directory_64(archive: MappedFile, end_at: int) -> tuple[int, int, int]:
    at = end_at - _LOCATOR.size
    if at < 0:
        raise _damaged(archive, "its zip64 record is missing")
    mark, _, record_at, _ = _LOCATOR.unpack(archive.bytes_at(at, _LOCATOR.size))
    if mark != b"PK\6\7" or record_at + _END_64.size > at:
        raise _damaged(archive, "its zip64 record is missing")
    mark, _, _, _, disk, _, _, count, size, begin = _END_64.unpack(
        archive.bytes_at(record_at, _END_64.size)
    )
    if mark != b"PK\6\6" or disk:
        raise _damaged(archive, "its zip64 record is malformed")
    return begin, size, count


def _list(archive: MappedFile, directory: bytes, count: int) -> Sequence[_Listed]:
    listed: list[_Listed] = []
    at = 0
    for _ in range(count):
        if at + _CENTRAL.size > len(directory):
            raise _damaged(archive, "its directory is too short")
        fields = _CENTRAL.unpack_from(directory, at)
        mark, flags, method, packed, size = fields[0], fields[3], fields[4], fields[8], fields[9]
        n_name, n_extra, n_comment, header_at = fields[10], fields[11], fields[12], fields[16]
        at += _CENTRAL.size
        if mark != b"PK\1\2" or at + n_name + n_extra + n_comment > len(directory):
            raise _damaged(archive, "its directory is malformed")
        name = _entry_name(archive, directory[at : at + n_name])
        extra = directory[at + n_name : at + n_name + n_extra]
        size, packed, header_at = _widened(archive, name, extra, [size, packed, header_at])
        if flags & _ENCRYPTED:
            raise CheckpointError(f"{archive.name}: the entry {name!r} is encrypted")
        if method or packed != size:
            raise CheckpointError(
                f"{archive.name}: the entry {name!r} is compressed, which PyTorch never does; save it again with torch.save"
            )
        listed.append(_Listed(name, header_at, size))
        at += n_name + n_extra + n_comment
    return listed


def _entry_name(archive: MappedFile, raw: bytes) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError as exc:
        raise _damaged(archive, "the name of an entry is not UTF-8") from exc
    parts = PurePosixPath(name).parts
    if not name.isprintable() or not parts or "\\" in name or parts[0] == "/" or ".." in parts:
        raise _damaged(archive, f"an entry is named {name[:80]!a}")
    return name


def _widened(archive: MappedFile, name: str, extra: bytes, fields: list[int]) -> list[int]:
    """Replace the 32-bit fields that are full by those of the zip64 record, which has only these, in order."""
    if _FULL_32 not in fields:
        return fields
    at = 0
    while at + _EXTRA.size <= len(extra):
        kind, size = _EXTRA.unpack_from(extra, at)
        at += _EXTRA.size
        if kind == _ZIP64:
            wide = [n for (n,) in _U64.iter_unpack(extra[at : at + size // 8 * 8])]
            if len(wide) >= fields.count(_FULL_32):
                return [wide.pop(0) if field == _FULL_32 else field for field in fields]
        at += size
    raise _damaged(archive, f"the entry {name!r} has no zip64 record")


def _located(archive: MappedFile, one: _Listed) -> Entry:
    """Step over the header that precedes the entry's bytes; it must be of the same name."""
    raw_name = one.name.encode()
    if one.header_at + _LOCAL.size + len(raw_name) > archive.size_bytes:
        raise _damaged(archive, f"the entry {one.name!r} lies beyond its end")
    header = archive.bytes_at(one.header_at, _LOCAL.size + len(raw_name))
    mark, *_, n_name, n_extra = _LOCAL.unpack_from(header)
    if mark != b"PK\3\4" or n_name != len(raw_name) or header[_LOCAL.size :] != raw_name:
        raise _damaged(archive, f"the entry {one.name!r} is not where the directory says")
    return Entry(one.header_at + _LOCAL.size + n_name + n_extra, one.size_bytes)
