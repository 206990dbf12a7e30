"""Content-addressed files: `blobs/sha256-<hex>`, written once, verified while they are written, never changed.

A blob appears under its name only when it is whole, on disk and has that digest. Nothing here knows what is in a blob.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

import attrs

from olm.errors import CorruptStore, DigestMismatch, StoreError
from olm.store.disk import TEMP_PREFIX, disk_errors, fsync_dir, read_small
from olm.store.links import Links
from olm.store.names import Digest

__all__ = ["DAMAGED_PREFIX", "BlobStore", "PendingBlob"]

DAMAGED_PREFIX: Final = ".olm-damaged-"
"""Before the name of a blob that was found damaged: out of the way of a new one, and there if the user wants it."""


class PendingBlob:
    """A blob on its way in: write, then commit or discard. Used by one thread at a time."""

    def __init__(self, folder: Path, expected: Digest | None) -> None:
        self._folder = folder
        self._expected = expected
        self._hash = hashlib.sha256()
        self._path = folder / f"{TEMP_PREFIX}{secrets.token_hex(8)}"
        self._size = 0
        with disk_errors("write to the model store"):
            self._fd = os.open(
                self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.discard()

    @property
    def size_bytes(self) -> int:
        """Bytes written so far."""
        return self._size

    @property
    def digest(self) -> Digest:
        """Of the bytes written so far."""
        return Digest(self._hash.hexdigest())

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append and hash. Raises DiskFull, StoreError; the blob can then only be discarded."""
        if self._fd < 0:
            raise StoreError("cannot write to the model store: the upload has ended")
        self._hash.update(data)
        view = memoryview(data)
        with disk_errors("write to the model store"):
            while view:
                written = os.write(self._fd, view)
                self._size += written
                view = view[written:]

    def commit(self) -> tuple[Digest, bool]:
        """Publish the blob durably; returns its digest and whether the store did not have it before.

        Raises:
            DigestMismatch: the bytes are not what was announced; nothing is kept.
            DiskFull, StoreError: the disk said no; nothing is kept.
        """
        if self._fd < 0:
            raise StoreError("cannot write to the model store: the upload has ended")
        digest = Digest(self._hash.hexdigest())
        try:
            if self._expected is not None and digest != self._expected:
                raise DigestMismatch(
                    f'digest mismatch, expected "{self._expected}", got "{digest}"'
                )
            final = self._folder / digest.file_name
            is_new = not _is_regular(final, self._size)
            # What is there may have rotted; these bytes were verified a moment ago. Who has it open keeps it.
            with disk_errors("write to the model store"):
                os.fsync(self._fd)
                os.replace(self._path, final)
                fsync_dir(self._folder)
            return digest, is_new
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove what was written, unless it was committed; doing it twice does no harm."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
            with suppress(
                OSError
            ):  # after a commit the name is gone; a leftover is swept at the next start
                self._path.unlink()


@attrs.frozen
class BlobStore:
    """The folder `blobs` of a store. Holds no state, so threads may share it."""

    folder: Path

    def path(self, digest: Digest) -> Path:
        """Where a blob is, whether or not it is there."""
        return self.folder / digest.file_name

    @property
    def links(self) -> Links:
        """Blobs that are files elsewhere."""
        return Links(self.folder)

    def size(self, digest: Digest) -> int | None:
        """The size of a blob in bytes; None when it is not in the store.

        A linked file that is not as it was is no blob of that digest any more, so that a pull or an import brings one.
        """
        size, is_link = _size_of(self.path(digest))
        if is_link and self.links.state(digest) in ("changed", "missing"):
            return None
        return size

    def is_whole(self, digest: Digest, size_bytes: int) -> bool:
        """Whether the store has the bytes themselves, not a link to them."""
        return _is_regular(self.path(digest), size_bytes)

    def create(self, expected: Digest | None = None) -> PendingBlob:
        """Begin a blob. Raises DiskFull, StoreError."""
        return PendingBlob(self.folder, expected)

    def put(self, data: bytes) -> tuple[Digest, bool]:
        """Store a small blob; returns its digest and whether it is new. Raises DiskFull, StoreError."""
        digest = Digest.of(data)
        if self.size(digest) == len(data):
            return digest, False
        with self.create(digest) as pending:
            pending.write(data)
            return pending.commit()

    def adopt(self, temp: Path, digest: Digest, size_bytes: int) -> bool:
        """Make a blob of a file in this folder that was written and hashed by somebody else; True when it is new.

        Afterwards `temp` is gone, whatever happens. Raises DiskFull, StoreError.
        """
        final = self.path(digest)
        try:
            # As in `PendingBlob.commit`, the new one takes the place of one that may have rotted.
            is_new = not _is_regular(final, size_bytes)
            with disk_errors("write to the model store"):
                fd = os.open(temp, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    if os.fstat(fd).st_size != size_bytes:
                        raise StoreError("cannot write to the model store: a new blob was cut")
                    os.fsync(fd)
                finally:
                    os.close(fd)
                os.replace(temp, final)
                fsync_dir(self.folder)
            return is_new
        finally:
            with suppress(OSError):  # after the rename the name is gone
                temp.unlink()

    def read(self, digest: Digest, *, limit_bytes: int = 16 << 20) -> bytes:
        """Read a small blob whole. Raises CorruptStore when it is missing, odd or larger than `limit_bytes`."""
        try:
            with disk_errors("read from the model store"):
                return read_small(self.path(digest), limit_bytes)
        except StoreError as exc:
            if isinstance(exc.__cause__, FileNotFoundError):
                raise CorruptStore(f"blob {digest} is missing from the store") from exc
            raise

    def set_aside(self, digest: Digest, inode: int) -> str | None:
        """Rename a damaged blob durably, if it still is the file with that inode; returns its new name, else None.

        The name's time is that of the setting aside, from which its keeping is counted. Raises DiskFull, StoreError.
        """
        path, aside = self.path(digest), f"{DAMAGED_PREFIX}{digest.file_name}"
        with disk_errors(f"set the damaged blob {digest} aside"):
            try:
                if path.lstat().st_ino != inode:
                    return None
                os.utime(path)
                os.replace(path, self.folder / aside)
            except FileNotFoundError:
                return None
            fsync_dir(self.folder)
        return aside

    def remove(self, digest: Digest) -> None:
        """Remove a blob; a missing one is fine. Of a link the link goes, and never the file. Raises StoreError."""
        path = self.path(digest)
        with disk_errors("remove from the model store"), suppress(FileNotFoundError):
            is_link = path.is_symlink()
            path.unlink()
            if is_link:
                self.links.forget(digest)


def _size_of(path: Path) -> tuple[int | None, bool]:
    """The size of a plain file, None of anything else; and whether a link led to it."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None, False
    except OSError as exc:
        raise StoreError(f"cannot read the model store: {os.strerror(exc.errno or 0)}") from exc
    is_link = stat.S_ISLNK(status.st_mode)
    if is_link:
        try:
            status = path.stat()
        except OSError:
            return None, True  # it leads nowhere, or where we may not go
    return (status.st_size if stat.S_ISREG(status.st_mode) else None), is_link


def _is_regular(path: Path, size_bytes: int) -> bool:
    size, is_link = _size_of(path)
    return size == size_bytes and not is_link
