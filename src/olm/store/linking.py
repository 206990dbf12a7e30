"""Taking a file into the store without copying it: a clone that shares its blocks, or else a link. Blocking, for threads.

A clone (FICLONE, on file systems such as btrfs and XFS) costs nothing and is an ordinary blob: what happens to the file
later is nothing to it. Everywhere else the file is hashed where it is and linked; see `olm.store.links`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from olm.errors import InvalidRequest, StoreError
from olm.gguf.reader import NOT_GGUF
from olm.store.blobs import BlobStore
from olm.store.disk import TEMP_PREFIX, disk_errors, fsync_dir
from olm.store.links import LinkRecord
from olm.store.names import Digest

__all__ = ["InPlace", "begins_as_gguf", "checked_link"]

_FICLONE: Final = 0x40049409
"""Linux, `include/uapi/linux/fs.h`: `_IOW(0x94, 9, int)`; Python has a name for it from 3.12 on."""
_MAGIC: Final = b"GGUF"
_PIECE_BYTES: Final = 4 << 20


def checked_link(text: str, root: Path) -> Path:
    """Find the file that a request names, links on its way followed once and for all.

    Args:
        text: an absolute path on this machine.
        root: the store's folder; what is in it is a blob or nothing.

    Raises:
        InvalidRequest: not absolute, not there, or inside the store.
    """
    if "\0" in text or not os.path.isabs(text):
        raise InvalidRequest(f"the path of a linked file must be absolute: {text!a}")
    try:
        path = Path(text).resolve(strict=True)
    except FileNotFoundError as exc:
        raise InvalidRequest(
            f"the server does not see the file {text}; without a link it is uploaded"
        ) from exc
    except (OSError, RuntimeError) as exc:
        raise InvalidRequest(f"the server cannot use the file {text}: {_reason(exc)}") from exc
    if path.is_relative_to(root.resolve()):
        raise InvalidRequest(f"{path} is inside the model store")
    return path


def begins_as_gguf(path: Path) -> bool:
    """Whether a file begins as a GGUF does; not when it cannot be opened, or is no plain file. Links are followed."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode) and os.pread(fd, len(_MAGIC), 0) == _MAGIC
    except OSError:
        return False
    finally:
        os.close(fd)


class InPlace:
    """A file on its way into the store: open it, `hash` it, `place` it, leave. Used by one thread at a time.

    Attributes:
        path: the file, absolute and without links.
        size_bytes: of the file.
        is_clone: whether it could be cloned; its bytes are then safe from changes from here on.
    """

    def __init__(self, blobs: BlobStore, path: Path) -> None:
        """Open the file and clone it if possible. Raises InvalidRequest, StoreError."""
        self.path = path
        self._blobs = blobs
        self._temp: Path | None = None
        self._digest: Digest | None = None
        self._fd = _open_gguf(path)
        try:
            self._status = os.fstat(self._fd)
            self.size_bytes = self._status.st_size
            self._clone()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def is_clone(self) -> bool:
        """Whether the blocks are shared instead of the file being linked."""
        return self._temp is not None

    def _clone(self) -> None:
        temp = self._blobs.folder / f"{TEMP_PREFIX}{secrets.token_hex(8)}"
        with disk_errors("write to the model store"):
            target = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            fcntl.ioctl(target, _FICLONE, self._fd)
        except OSError:
            # Another file system, or one that cannot share blocks: whatever it was, the link remains.
            os.close(target)
            with suppress(OSError):  # the next start sweeps it
                temp.unlink()
            return
        os.close(self._fd)
        self._fd, self._temp = target, temp

    def hash(self, on_bytes: Callable[[int], None]) -> Digest:
        """Hash the whole file.

        Args:
            on_bytes: is told how many bytes are done after each piece; may raise to end it.

        Raises:
            StoreError: the file cannot be read, or was changed meanwhile.
        """
        hasher, done = hashlib.sha256(), 0
        buffer = bytearray(_PIECE_BYTES)
        view = memoryview(buffer)
        with disk_errors(f"read {self.path}"):
            while n_bytes := os.preadv(self._fd, [buffer], done):
                hasher.update(view[:n_bytes])
                done += n_bytes
                on_bytes(done)
        if done != self.size_bytes or not (self.is_clone or self._is_unchanged()):
            raise StoreError(f"{self.path} was changed while it was read")
        self._digest = Digest(hasher.hexdigest())
        return self._digest

    def _is_unchanged(self) -> bool:
        now = os.fstat(self._fd)
        return (now.st_size, now.st_mtime_ns) == (self._status.st_size, self._status.st_mtime_ns)

    def place(self) -> str:
        """Make the blob, once it was hashed; says `exists`, `cloned` or `linked`. Raises DiskFull, StoreError.

        A blob that is there already stays. A link that is there gives way: the file was perhaps moved.
        """
        assert self._digest is not None, "it is hashed before it is placed"
        if self._blobs.is_whole(self._digest, self.size_bytes):
            return "exists"
        if self._temp is None:
            self._blobs.links.make(LinkRecord.of(self._digest, self.path, self._status))
            return "linked"
        with disk_errors("write to the model store"):
            os.fsync(self._fd)
            os.replace(self._temp, self._blobs.path(self._digest))
            fsync_dir(self._blobs.folder)
        return "cloned"

    def close(self) -> None:
        """Let the file go; a clone that was not placed is removed. Doing it twice does no harm."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        if self._temp is not None:
            with suppress(OSError):
                self._temp.unlink()


def _open_gguf(path: Path) -> int:
    """Open a plain file that begins as a GGUF does, before anything else is done with it. Raises InvalidRequest."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as exc:
        raise InvalidRequest(f"the server cannot read the file {path}: {_reason(exc)}") from exc
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidRequest(f"{path} is not a plain file")
        if os.pread(fd, len(_MAGIC), 0) != _MAGIC:
            raise InvalidRequest(f"{NOT_GGUF}: {path}")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _reason(exc: Exception) -> str:
    number = exc.errno if isinstance(exc, OSError) else errno.ELOOP
    return os.strerror(number or errno.EIO).lower()
