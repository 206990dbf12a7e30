"""Writing an export: copies into a file or folder, or one stream of bytes. Blocking, for threads.

A target appears under its name only when it is whole and on disk. The plan is `archive`'s.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, Protocol

import attrs

from olm.errors import CorruptStore, DiskFull, InvalidRequest, StoreError
from olm.store.archive import Member, Placed, archive_bytes
from olm.store.blobs import BlobStore
from olm.store.copying import SequentialFile, copy_range, pwrite_all
from olm.store.disk import TEMP_PREFIX, disk_errors, fsync_dir, shortage
from olm.store.tar import END, n_padding

__all__ = [
    "Piece",
    "Span",
    "Target",
    "compressed",
    "copy_span",
    "full_disk",
    "open_blob",
    "pieces",
    "spans",
    "write_stream",
]

SPAN_BYTES: Final = 64 << 20
PIECE_BYTES: Final = 4 << 20
FEED_BYTES: Final = 1 << 20
JOB_BYTES: Final = 2 << 20
LEVEL: Final = 3
"""zstd's own default: weights hardly compress, so more effort buys nothing."""


@attrs.frozen
class Span:
    """A part of a member, small enough that progress and cancellation need not wait long."""

    member: Member
    target: Path
    source_offset: int
    target_offset: int
    size: int


class Target:
    """A file or folder on its way: written beside its place, then moved there.

    Attributes:
        temp: where it is until then.
    """

    def __init__(self, path: Path, *, is_folder: bool) -> None:
        """Begin a target; `path` must not be there, or be an empty folder. Raises InvalidRequest, StoreError."""
        self.path = path
        self.is_folder = is_folder
        self.temp = path.with_name(f"{TEMP_PREFIX}{secrets.token_hex(8)}")
        if os.path.lexists(path) and not (is_folder and path.is_dir()):
            raise InvalidRequest(f"{path} exists already")
        if is_folder and path.is_dir() and any(path.iterdir()):
            raise InvalidRequest(
                f"{path} exists already, with something in it; name a file, or a new folder"
            )
        with disk_errors(f"write {path}"):
            if is_folder:
                (self.temp / "blobs" / "sha256").mkdir(parents=True)
            else:
                os.close(
                    os.open(self.temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
                )

    def file_of(self, member: Member) -> Path:
        """Where a member's bytes go."""
        return self.temp / member.path if self.is_folder else self.temp

    def write_heads(self, placed: Sequence[Placed]) -> None:
        """Write everything but the blobs: headers, small members, the end."""
        if self.is_folder:
            for item in placed:
                self.file_of(item.member).write_bytes(item.member.data)
            return
        fd = os.open(self.temp, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, archive_bytes(placed))
            for item in placed:
                data = item.head + item.member.data
                pwrite_all(fd, data, item.offset - len(item.head))
        finally:
            os.close(fd)

    def publish(self) -> None:
        """Sync and move into place. Raises InvalidRequest when something came there meanwhile, OSError."""
        for file in (self.temp, *(self.temp.rglob("*") if self.is_folder else ())):
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        if self.is_folder:
            os.rename(self.temp, self.path)  # fails where a folder with something in it is
        else:
            _move_new(self.temp, self.path)
        fsync_dir(self.path.parent)

    def discard(self) -> None:
        """Remove what was not published; doing it twice does no harm."""
        if self.is_folder:
            shutil.rmtree(self.temp, ignore_errors=True)
        else:
            with suppress(OSError):
                self.temp.unlink()


def _move_new(temp: Path, path: Path) -> None:
    """Give a file its name unless that is taken. Raises InvalidRequest when it is, OSError."""
    try:
        os.link(temp, path)  # unlike a rename, it replaces nothing
    except FileExistsError as exc:
        raise InvalidRequest(f"{path} exists already") from exc
    except OSError:
        # FAT has no links. Somebody may come in between here; that is the best it can do.
        if os.path.lexists(path):
            raise InvalidRequest(f"{path} exists already") from None
        os.rename(temp, path)
    else:
        temp.unlink()


def spans(placed: Sequence[Placed], target: Target) -> Iterator[Span]:
    """Cut the blobs of an export into parts that threads can copy side by side."""
    for item in placed:
        if item.member.digest is None:
            continue
        base = 0 if target.is_folder else item.offset
        for offset in range(0, item.member.size, SPAN_BYTES):
            size = min(SPAN_BYTES, item.member.size - offset)
            yield Span(item.member, target.file_of(item.member), offset, base + offset, size)


def copy_span(blobs: BlobStore, span: Span) -> int:
    """Copy one part, by the kernel (sharing extents where the file system can); returns its size.

    Raises:
        CorruptStore, DiskFull, StoreError: naming model and blob.
    """
    with disk_errors(_doing(span.member)):
        source = open_blob(blobs, span.member)
        try:
            target = os.open(span.target, os.O_WRONLY | os.O_CLOEXEC)
            try:
                at, to = span.source_offset, span.target_offset
                if copy_range(source, target, at, to, span.size) < span.size:
                    raise StoreError(_shorter(span.member))
            finally:
                os.close(target)
        finally:
            os.close(source)
    return span.size


def open_blob(blobs: BlobStore, member: Member) -> int:
    """Open a blob to be copied. Raises CorruptStore when it is missing or of another size, OSError."""
    assert member.digest is not None, "only blobs are opened"
    where = f"model {member.model}, blob {member.digest}"
    link = blobs.links.record(member.digest)
    if link is not None and (trouble := link.trouble()):
        raise CorruptStore(f"{where}: {trouble}")
    try:
        fd = os.open(blobs.path(member.digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as exc:
        raise CorruptStore(f"{where}: it is missing from the store") from exc
    size = os.fstat(fd).st_size
    if size != member.size:
        os.close(fd)
        raise CorruptStore(f"{where}: it has {size} bytes instead of {member.size}")
    return fd


def _shorter(member: Member) -> str:
    return f"cannot {_doing(member)}: it became shorter while it was read"


def _doing(member: Member) -> str:
    return f"export model {member.model}, blob {member.digest}"


# -- as one stream ---------------------------------------------------------------------------------------------------


@attrs.frozen
class Piece:
    """Bytes of the archive, and whose they are; `n_raw` counts the blob's bytes among them, uncompressed."""

    data: bytes = attrs.field(repr=False)
    member: Member | None
    n_raw: int = 0


def pieces(blobs: BlobStore, placed: Sequence[Placed]) -> Iterator[Piece]:
    """Read the whole tar in order. Raises as `copy_span` does."""
    for item in placed:
        member = item.member
        yield Piece(item.head + member.data, member if member.digest else None)
        if member.digest is not None:
            with disk_errors(_doing(member)):
                yield from _blob_pieces(blobs, member)
        yield Piece(bytes(n_padding(member.size)), None)
    yield Piece(END, None)


def _blob_pieces(blobs: BlobStore, member: Member) -> Iterator[Piece]:
    fd = open_blob(blobs, member)
    try:
        left = member.size
        while left:
            data = os.read(fd, min(left, PIECE_BYTES))
            if not data:
                raise StoreError(_shorter(member))
            left -= len(data)
            yield Piece(data, member, len(data))
    finally:
        os.close(fd)


class _Chunker(Protocol):
    def compress(self, data: bytes) -> Iterator[bytes]: ...
    def finish(self) -> Iterator[bytes]: ...


def compressed(plain: Iterator[Piece], size: int, n_threads: int) -> Iterator[Piece]:
    """Compress a tar of `size` bytes with zstd, in threads of its own; memory is bounded by their number.

    With zstd's own jobs of 8 MiB two threads take 80 MB; with ours they take 28, and sixteen take 68. Sizes are the same.
    """
    import zstandard  # 22 ms; most daemons never compress

    n_threads = min(n_threads, os.cpu_count() or 1)
    how = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, threads=n_threads, job_size=JOB_BYTES, write_checksum=True
    )
    work: _Chunker = zstandard.ZstdCompressor(compression_params=how).chunker(
        size=size, chunk_size=FEED_BYTES
    )
    for piece in plain:
        made: list[bytes] = []
        for at in range(0, len(piece.data), FEED_BYTES):
            made += work.compress(piece.data[at : at + FEED_BYTES])
        yield Piece(b"".join(made), piece.member, piece.n_raw)
    for data in work.finish():
        yield Piece(data, None)


def write_stream(target: Target, archive: Iterator[Piece]) -> Generator[Piece, None, None]:
    """Write an archive to its file, one piece for each step. Raises as `pieces` does, and OSError.

    Has a thread until it is closed.
    """
    fd = os.open(target.temp, os.O_WRONLY | os.O_CLOEXEC)
    try:
        with closing(SequentialFile(fd)) as file:
            for piece in archive:
                file.write(piece.data)
                yield piece
            file.finish()
    finally:
        os.close(fd)


def full_disk(exc: DiskFull, needed: int, folder: Path) -> DiskFull:
    """Add to a full disk's message how much would have been needed."""
    return DiskFull(f"{exc.message}: {shortage(needed, folder)}")
