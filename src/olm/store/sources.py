"""Where an archive's bytes come from: a tar file, a folder, or a stream that may be compressed. Blocking.

Files and folders are looked through first and then read at any place, by several threads; streams are read once, in
order. What the members mean, and whether they are wanted, is `importing`'s. Nothing here is trusted to be an archive.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Final, Protocol, cast

from olm.errors import InvalidRequest
from olm.store.archive import checked_path
from olm.store.disk import disk_errors
from olm.store.tar import Header, Read, n_padding, read_header

__all__ = ["Archive", "Folder", "Source", "Stream", "TarFile", "layout_members", "open_file"]

MAX_WINDOW_BYTES: Final = 128 << 20
"""What `zstd --long` uses by default; archives of more would only cost memory."""
MAX_MEMBERS: Final = 100_000
READ_BYTES: Final = 1 << 20

_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_FOREIGN: Final = (
    (b"\x1f\x8b", "compressed with gzip: only zstd is read; pipe it through gunzip"),
    (b"BZh", "compressed with bzip2: only zstd is read; pipe it through bunzip2"),
    (b"\xfd7zXZ\0", "compressed with xz: only zstd is read; pipe it through unxz"),
    (b"PK\x03\x04", "a zip file, not a tar archive: unpack it and import the folder"),
    (b"GGUF", "a GGUF file, not an archive: make a model of it with `olm create`"),
)
"""What people try, by its first bytes, and what to tell them."""
_HEAD_BYTES: Final = max(len(magic) for magic, _ in _FOREIGN)


class Archive(Protocol):
    """An image layout whose members can be read at any place, by several threads.

    Attributes:
        cut_in: the member in whose middle it ends; empty when it is whole.
    """

    cut_in: str

    def size(self, path: str) -> int | None:
        """The size of a member in bytes; None when there is none of that path. Raises InvalidRequest, StoreError."""

    def paths(self) -> Iterator[str]:
        """All members that must have been asked for; a folder may have whatever it likes."""

    def open(self, path: str) -> AbstractContextManager[tuple[int, int]]:
        """Open a member: a file's number, and where in it the bytes begin. Raises InvalidRequest, StoreError."""


class Source(Protocol):
    """Bytes in order."""

    def read(self, size: int) -> bytes:
        """Read `size` bytes; fewer only at the end."""

    def read_into(self, view: memoryview) -> int:
        """Fill a buffer; returns how many bytes, fewer only at the end."""


def layout_members(read: Read) -> Iterator[tuple[str, Header]]:
    """The plain files of a tar, with their paths in the layout. The caller passes over each one's content.

    Raises:
        InvalidRequest: the tar is damaged, has what is no part of a layout, something twice, or too much.
    """
    seen: set[str] = set()
    for _ in range(MAX_MEMBERS):
        header = read_header(read)
        if header is None:
            return
        path = checked_path(header.name, is_folder=header.is_folder)
        if header.is_folder:
            continue
        if path in seen:
            raise InvalidRequest(f"the archive has {path} twice")
        seen.add(path)
        yield path, header
    raise InvalidRequest(f"the archive has more than {MAX_MEMBERS} members")


# -- files and folders -----------------------------------------------------------------------------------------------


def open_file(path: Path, *, follow: bool = False) -> int:
    """Open an archive, for which links may be followed, or a file of one. Raises InvalidRequest, StoreError."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    with disk_errors(f"read {path}"):
        if path.is_symlink() and not follow:
            raise InvalidRequest(f"{path} is a link; only files are taken")
        try:
            fd = os.open(path, flags)
        except FileNotFoundError as exc:
            raise InvalidRequest(f"cannot read {path}: no such file or directory") from exc
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise InvalidRequest(f"{path} is not a plain file")
        return fd


class TarFile:
    """An uncompressed tar file. The caller keeps it open and closes it."""

    def __init__(self, fd: int) -> None:
        """Look through all headers. Raises InvalidRequest, OSError."""
        self._fd = fd
        self._at = 0
        self._places: dict[str, tuple[int, int]] = {}
        self.cut_in = ""
        n_bytes = os.fstat(fd).st_size
        for path, header in layout_members(self._read):
            place = (self._at, header.size)
            self._at += header.size + n_padding(header.size)
            if self._at > n_bytes:
                self.cut_in = path
                return
            self._places[path] = place

    def _read(self, size: int) -> bytes:
        data = os.pread(self._fd, size, self._at)
        self._at += len(data)
        return data

    def size(self, path: str) -> int | None:
        """The size of a member."""
        place = self._places.get(path)
        return place[1] if place else None

    def paths(self) -> Iterator[str]:
        """All members."""
        return iter(self._places)

    @contextmanager
    def open(self, path: str) -> Iterator[tuple[int, int]]:
        """Where a member is in the tar."""
        yield self._fd, self._places[path][0]


class Folder:
    """An image layout that is a folder. Only what is asked for is looked at."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.cut_in = ""

    def size(self, path: str) -> int | None:
        """The size of a file, which must be a plain one."""
        if not os.path.lexists(self._root / path):
            return None
        with self.open(path) as (fd, _):
            return os.fstat(fd).st_size

    def paths(self) -> Iterator[str]:
        """None that have to be known."""
        return iter(())

    @contextmanager
    def open(self, path: str) -> Iterator[tuple[int, int]]:
        """Open a file."""
        fd = open_file(self._root / path)
        try:
            yield fd, 0
        finally:
            os.close(fd)


# -- streams ---------------------------------------------------------------------------------------------------------


class Stream:
    """Pieces of any length, read as bytes in order. Looks at the first few to see what it is."""

    def __init__(self, next_piece: Callable[[], bytes]) -> None:
        self._next = next_piece
        self._rest = memoryview(b"")

    @classmethod
    def of_file(cls, fd: int) -> Stream:
        """Read a file from where it is."""
        return cls(lambda: os.read(fd, READ_BYTES))

    def read_into(self, view: memoryview) -> int:
        """Fill a buffer."""
        done = 0
        while done < len(view):
            if not self._rest:
                self._rest = memoryview(self._next())
                if not self._rest:
                    break
            n_bytes = min(len(self._rest), len(view) - done)
            view[done : done + n_bytes] = self._rest[:n_bytes]
            self._rest = self._rest[n_bytes:]
            done += n_bytes
        return done

    def read(self, size: int) -> bytes:
        """Read `size` bytes; fewer only at the end."""
        data = bytearray(size)
        n_bytes = self.read_into(memoryview(data))
        return bytes(data[:n_bytes])

    def is_compressed(self) -> bool:
        """Whether it begins as zstd does; nothing is taken. Raises InvalidRequest for what olm cannot read at all."""
        head = self.read(_HEAD_BYTES)
        self._rest = memoryview(head + self._rest)
        for magic, what in _FOREIGN:
            if head.startswith(magic):
                raise InvalidRequest(f"this is {what}")
        return head.startswith(_ZSTD)

    def plain(self) -> Source:
        """What is to be read as a tar, decompressed where needed. At the beginning only; raises as `is_compressed`."""
        return _Decompressed(self) if self.is_compressed() else self


class _Decompressed:
    """The content of a zstd stream, several frames included."""

    def __init__(self, packed: Stream) -> None:
        import zstandard  # 22 ms; see `exporting.compressed`

        self._error = zstandard.ZstdError
        file = cast(
            "IO[bytes]", packed
        )  # only `read` is called, and ours is never short but at the end
        self._plain = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).stream_reader(
            file, read_size=READ_BYTES, read_across_frames=True
        )

    def read_into(self, view: memoryview) -> int:
        """Fill a buffer. Raises InvalidRequest for damage."""
        done = 0
        try:
            while done < len(view) and (n_bytes := self._plain.readinto(view[done:])):
                done += n_bytes
        except self._error as exc:
            raise InvalidRequest(f"the archive is damaged: {exc}") from exc
        return done

    def read(self, size: int) -> bytes:
        """Read `size` bytes; fewer only at the end."""
        data = bytearray(size)
        n_bytes = self.read_into(memoryview(data))
        return bytes(data[:n_bytes])
