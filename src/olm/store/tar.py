"""Tar headers: writing those of an export, reading those of anybody's archive with suspicion. No files, no models.

Source of the format: POSIX.1-2017, pax, "ustar Interchange Format"; sizes from 8 GiB on are written in base 256 as GNU
tar, libarchive and Go do. Only plain files and folders are read: whatever could point elsewhere is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from olm.errors import InvalidRequest

__all__ = ["BLOCK", "END", "Header", "Read", "file_header", "n_padding", "read_header", "spacer"]

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)
"""Two empty blocks end an archive."""

Read = Callable[[int], bytes]
"""Reads up to so many bytes; empty at the end."""

_MAX_OCTAL: Final = 8**11 - 1
_MAX_SIZE: Final = 1 << 62
_MAX_PAX_BYTES: Final = 64 << 10
_MAX_PAX_HEADERS: Final = 16
_SIZE: Final = slice(124, 136)
_CHECKSUM: Final = slice(148, 156)
_KIND: Final = slice(156, 157)
_PREFIX: Final = slice(345, 500)
_FILES: Final = (b"0", b"\0", b"7")
_REFUSED: Final = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a FIFO",
    b"S": "a sparse file",
    b"L": "a long name",
    b"K": "a long link name",
}


@attrs.frozen
class Header:
    """One member: `name` as it is written, without trust; `size` of its content in bytes, 0 for a folder."""

    name: str
    size: int
    is_folder: bool


def n_padding(size: int) -> int:
    """How many bytes fill the last block of a content."""
    return -size % BLOCK


def file_header(name: str, size: int, kind: bytes = b"0") -> bytes:
    """The block before a plain file: readable by all, of nobody, of no date, so that equal exports are equal bytes."""
    raw = bytearray(BLOCK)
    encoded = name.encode("ascii")
    assert len(encoded) <= 100, "the names of an image layout are short"
    raw[: len(encoded)] = encoded
    raw[100:108], raw[108:116], raw[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    raw[_SIZE] = b"%011o\0" % size if size <= _MAX_OCTAL else b"\x80" + size.to_bytes(11, "big")
    raw[136:148] = b"00000000000\0"
    raw[_KIND] = kind
    raw[257:265] = b"ustar\x0000"
    raw[_CHECKSUM] = b"%06o\0 " % _checksum(raw)
    return bytes(raw)


def spacer(offset: int, alignment: int) -> bytes:
    """A pax header with a comment, so that a content behind one more header begins at a multiple of `alignment`.

    Empty where it does already. File systems can share extents (reflink) of aligned contents only.
    """
    if (offset + BLOCK) % alignment == 0:
        return b""
    n_bytes = -(offset + 2 * BLOCK) % alignment or alignment
    record = b"%d comment=" % n_bytes
    text = record + b" " * (n_bytes - len(record) - 1) + b"\n"
    return file_header("PaxHeaders/comment", n_bytes, b"x") + text


def read_header(read: Read) -> Header | None:
    """Read up to the content of the next member; None at the end of the archive.

    Raises:
        InvalidRequest: damaged, cut off, or a member that is no plain file or folder.
    """
    pax: dict[str, str] = {}
    for _ in range(_MAX_PAX_HEADERS):
        raw = read(BLOCK)
        if not raw or raw == bytes(BLOCK):
            if pax:
                raise InvalidRequest("the archive ends behind a header")
            return None
        if len(raw) < BLOCK:
            raise InvalidRequest("not a tar archive, or one that ends in the middle of a header")
        size = _check(raw)
        kind = raw[_KIND]
        if kind in (b"x", b"g"):
            # A global header is for what follows too; what olm would take from one, a name or a size, fits one member.
            found = _read_pax(read, size)
            pax |= found if kind == b"x" else {}
            continue
        return _header(raw, kind, size, pax)
    raise InvalidRequest("the archive has too many headers for one member")


def _header(raw: bytes, kind: bytes, size: int, pax: dict[str, str]) -> Header:
    name = pax.get("path", _name(raw))
    shown = ascii(name[:120])
    if kind in _REFUSED:
        raise InvalidRequest(f"the archive has {_REFUSED[kind]} at {shown}; only files are taken")
    if kind not in (*_FILES, b"5"):
        raise InvalidRequest(f"the archive has a member of unknown kind {kind!r} at {shown}")
    if "linkpath" in pax or any(key.startswith("GNU.sparse") for key in pax):
        raise InvalidRequest(f"the archive has a link or sparse file at {shown}")
    if "size" in pax:
        text = pax["size"]
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise InvalidRequest(f"the archive has a bad size at {shown}")
        size = int(text)
    if kind == b"5" and size:
        raise InvalidRequest(f"the archive has a folder with a content at {shown}")
    return Header(name, size, is_folder=kind == b"5")


def _check(raw: bytes) -> int:
    """Check a header's sum; returns the size it declares."""
    if _octal(raw[_CHECKSUM]) != _checksum(raw):
        raise InvalidRequest("not a tar archive, or a damaged one: a header's checksum is wrong")
    field = raw[_SIZE]
    size = int.from_bytes(field[1:], "big") if field[0] == 0x80 else _octal(field)
    if not 0 <= size < _MAX_SIZE:
        raise InvalidRequest("the archive has a member of an impossible size")
    return size


def _name(raw: bytes) -> str:
    name = raw[:100].split(b"\0", 1)[0]
    prefix = raw[_PREFIX].split(b"\0", 1)[0] if raw[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "replace")


def _octal(field: bytes) -> int:
    """A number of octal digits; -1 for anything else. Python's own `int` would take signs and underscores."""
    text = field.split(b"\0", 1)[0].strip(b" ")
    return -1 if text.strip(b"01234567") else int(text or b"0", 8)


def _checksum(raw: bytes | bytearray) -> int:
    """The sum of all bytes, the checksum's own eight counted as spaces."""
    return sum(raw) - sum(raw[_CHECKSUM]) + 8 * ord(" ")


def _read_pax(read: Read, size: int) -> dict[str, str]:
    if size > _MAX_PAX_BYTES:
        raise InvalidRequest("the archive has a header that is too long")
    raw = read(size + n_padding(size))
    if len(raw) < size + n_padding(size):
        raise InvalidRequest("the archive ends in the middle of a header")
    rest, found = raw[:size], dict[str, str]()
    while rest:
        digits, _, after = rest.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 6 else 0
        if length <= len(digits) + 1 or length > len(rest):
            raise InvalidRequest("the archive has a damaged extended header")
        key, _, value = after[: length - len(digits) - 2].partition(b"=")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        rest = rest[length:]
    return found
