"""Durable file operations and the one place where the store's OSErrors become olm's errors.

Every write is temp file, fsync, rename, fsync of the folder: after a crash at any point a file is wholly there or not
there. Messages name what was being done, not where, since they reach API clients; the path is logged with them.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from olm.errors import CorruptStore, DiskFull, OlmError, StoreError, StoreLocked
from olm.units import human_bytes

__all__ = [
    "TEMP_PREFIX",
    "StoreLock",
    "disk_errors",
    "free_bytes",
    "fsync_dir",
    "is_unwritable",
    "make_dirs",
    "read_small",
    "shortage",
    "write_durably",
]

TEMP_PREFIX: Final = ".olm-tmp-"
"""Names of files on their way; whoever holds the store's lock may remove them at start.

The leading dot makes them no valid tag and no valid digest, for us and for Ollama."""

_UNWRITABLE: Final = frozenset((errno.EACCES, errno.EPERM, errno.EROFS))
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_log = logging.getLogger(__name__)


@contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Turn OSError into StoreError or DiskFull that says what was being done ("cannot write the manifest of x:latest: …")."""
    try:
        yield
    except OSError as exc:
        _log.debug("%s: %s", doing, exc)
        reason = os.strerror(exc.errno).lower() if exc.errno else str(exc)
        kind = DiskFull if exc.errno in _FULL else StoreError
        raise kind(f"cannot {doing}: {reason}") from exc


def is_unwritable(error: StoreError) -> bool:
    """Whether an error of `disk_errors` says that we may not write there, now or later: no rights, or a read-only mount."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in _UNWRITABLE


def free_bytes(folder: Path) -> int:
    """How much an unprivileged process may still write there. Raises StoreError."""
    with disk_errors("look at the disk"):
        status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def shortage(needed_bytes: int, folder: Path) -> str:
    """What a full disk lacks, for the end of a message. Raises StoreError."""
    return f"{human_bytes(needed_bytes)} needed, {human_bytes(free_bytes(folder))} free"


def fsync_dir(folder: Path) -> None:
    """Make renames and unlinks in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_dirs(folder: Path, above: Path) -> None:
    """Create a folder below `above`, which exists, and make each new entry durable."""
    if folder == above or folder.is_dir():
        return
    make_dirs(folder.parent, above)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o755)
    fsync_dir(folder.parent)


def write_durably(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace a small file: after a crash it holds the old bytes or the new ones. Raises OSError."""
    temp = path.with_name(f"{TEMP_PREFIX}{secrets.token_hex(8)}")
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temp, path)
    except BaseException:
        with suppress(OSError):
            temp.unlink()
        raise
    fsync_dir(path.parent)


def read_small(path: Path, limit_bytes: int) -> bytes:
    """Read a regular file of at most `limit_bytes`; FIFOs, devices and the like are refused without being read.

    Raises:
        CorruptStore: not a regular file, or too large.
        OSError: as open and read do.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise CorruptStore(f"{path.name} in the store is not a regular file")
        if status.st_size > limit_bytes:
            raise CorruptStore(
                f"{path.name} in the store has {status.st_size} bytes, more than {limit_bytes}"
            )
        with os.fdopen(os.dup(fd), "rb") as file:
            return file.read(limit_bytes + 1)
    finally:
        os.close(fd)


class StoreLock:
    """The advisory lock that keeps a second daemon out of a store. It dies with the process, however that ends."""

    def __init__(self, root: Path) -> None:
        """Take the lock. Raises StoreLocked when somebody has it, StoreError when the store cannot be written."""
        path = root / "olm.lock"
        with disk_errors(f"use the model store {root}"):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as exc:
            error = _lock_error(root, self._fd, exc)
            self.close()
            raise error from exc

    def close(self) -> None:
        """Let the lock go; doing it twice does no harm."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _lock_error(root: Path, fd: int, exc: OSError) -> OlmError:
    if exc.errno in (errno.EWOULDBLOCK, errno.EACCES):
        owner = os.pread(fd, 32, 0).decode(errors="replace").strip()
        who = f" (process {owner})" if owner.isdigit() else ""
        return StoreLocked(f"another olm daemon{who} is using the model store {root}")
    reason = os.strerror(exc.errno or 0).lower()
    kind = DiskFull if exc.errno in _FULL else StoreError
    return kind(f"cannot use the model store {root}: {reason}")
