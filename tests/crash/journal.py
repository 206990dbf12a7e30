"""What the shim has written down: every change of the file system, in order, with its bytes. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

import attrs

__all__ = ["Kind", "Record", "note_record", "read_journal"]

_HEAD: Final = struct.Struct("<4H3QiI")


class Kind(IntEnum):
    """As in shim.c."""

    CREATE = 1
    WRITE = 2
    TRUNCATE = 3
    SYNC = 4
    MAKE_DIR = 5
    REMOVE_DIR = 6
    UNLINK = 7
    RENAME = 8
    LINK = 9
    NOTE = 10
    FAULT = 11
    SYMLINK = 12


@attrs.frozen
class Record:
    """One change, note or fault.

    Attributes:
        first, second: paths; a note's text; a fault's call and path; a symlink and where it leads.
        inode: of the file or folder.
        offset: where bytes went; the new size of TRUNCATE.
        error: of FAULT and of a SYNC that failed; else 0.
        step: how many changes had been begun.
    """

    kind: Kind
    first: str
    second: str
    inode: int
    offset: int
    data: memoryview = attrs.field(repr=False)
    error: int
    step: int


def read_journal(data: bytes) -> Iterator[Record]:
    """Take a journal apart. A record that death cut off is left out: its change was not over."""
    view, at = memoryview(data), 0
    while at + _HEAD.size <= len(view):
        kind, n_first, n_second, _, inode, offset, length, error, step = _HEAD.unpack_from(view, at)
        start = at + _HEAD.size
        middle = start + n_first
        end = middle + n_second
        at = end + length
        if at > len(view):
            return
        yield Record(
            Kind(kind),
            bytes(view[start:middle]).decode(),
            bytes(view[middle:end]).decode(),
            inode,
            offset,
            view[end:at],
            error,
            step,
        )


def note_record(text: str) -> bytes:
    """A note, as the shim would write it."""
    return _HEAD.pack(Kind.NOTE, len(text.encode()), 0, 0, 0, 0, 0, 0, 0) + text.encode()
