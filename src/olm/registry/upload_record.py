"""What is remembered of uploads between runs of the daemon: for each blob and repository, the address where it goes on.

Blocking. Losing a record costs an upload from its beginning and nothing else, so they are not synced.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs
import msgspec

from olm.log import get_logger
from olm.store.names import Digest

__all__ = ["UploadRecord"]

KEPT_S: Final = 7 * 86400.0
"""Registries drop uploads that nobody goes on with after about a week (distribution's `uploadpurging`: 168 h)."""
_MAX_BYTES: Final = 64 << 10
_log = get_logger("push")


class _Record(msgspec.Struct):
    base: str
    digest: str
    url: str


@attrs.frozen
class UploadRecord:
    """The record of one blob's upload to one repository, a small file in olm's home, readable by its user only."""

    folder: Path
    base: str
    digest: Digest

    @classmethod
    def of(cls, home: Path, base: str, digest: Digest) -> UploadRecord:
        """Name a record, whether or not there is one."""
        return cls(home / "uploads", base, digest)

    @property
    def path(self) -> Path:
        name = hashlib.sha256(f"{self.base} {self.digest}".encode()).hexdigest()[:32]
        return self.folder / f"{name}.json"

    def load(self) -> str:
        """Where the upload goes on; empty when nothing is known or it is too old."""
        try:
            with self.path.open("rb") as file:
                is_old = time.time() - os.fstat(file.fileno()).st_mtime > KEPT_S
                record = msgspec.json.decode(file.read(_MAX_BYTES), type=_Record)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return ""
        is_this = (record.base, record.digest) == (self.base, str(self.digest))
        return record.url if is_this and not is_old else ""

    def save(self, url: str) -> None:
        """Remember an address. A disk that is full is no reason to end an upload."""
        data = msgspec.json.encode(_Record(self.base, str(self.digest), url))
        temp = self.path.with_suffix(".tmp")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
            temp.replace(self.path)
        except OSError as exc:
            _log.warning("an upload is not noted: %s", os.strerror(exc.errno or 0).lower())

    def clear(self) -> None:
        """Forget it."""
        with suppress(OSError):
            self.path.unlink()

    @staticmethod
    def sweep(home: Path) -> None:
        """Remove records that no registry would go on with."""
        with suppress(OSError):
            for path in (home / "uploads").iterdir():
                if time.time() - path.stat().st_mtime > KEPT_S:
                    path.unlink()
