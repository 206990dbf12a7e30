"""Files that models run in place: a symlink `blobs/sha256-<hex>` and a record of what the file was when it was hashed.

The record (`olm-links/sha256-<hex>` beside `blobs/`) holds path, size, time and inode, so that a change is noticed by one
`stat` instead of hashing gigabytes again. A link without a record, or one that leads elsewhere, is not ours: somebody keeps
his blobs on another disk, and it is followed like any file. Making links is `olm.store.linking`.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import attrs
import msgspec

from olm.errors import CorruptStore, InvalidName, StoreError
from olm.store.disk import (
    TEMP_PREFIX,
    disk_errors,
    fsync_dir,
    make_dirs,
    read_small,
    write_durably,
)
from olm.store.names import Digest

__all__ = ["FOLDER", "LinkRecord", "LinkState", "Links"]

FOLDER: Final = "olm-links"
_MAX_RECORD_BYTES: Final = 1 << 16
_log = logging.getLogger(__name__)

LinkState = Literal["ok", "changed", "missing"]


class LinkRecord(msgspec.Struct, frozen=True):
    """What a linked file was when it was hashed. `path` is absolute and has no links in it; times in ns since 1970."""

    digest: str
    path: str
    size: int
    mtime_ns: int
    device: int
    inode: int

    @classmethod
    def of(cls, digest: Digest, path: Path, status: os.stat_result) -> LinkRecord:
        """Describe a file by its `stat`."""
        return cls(
            str(digest),
            str(path),
            status.st_size,
            status.st_mtime_ns,
            status.st_dev,
            status.st_ino,
        )

    def state(self) -> LinkState:
        """Look at the file: whether it is still the one that was hashed."""
        try:
            status = os.stat(self.path)
        except OSError:
            return "missing"  # gone, or no longer to be reached: the same for who wants to read it
        # Not the device: its number may be another after every boot.
        same = (status.st_size, status.st_mtime_ns, status.st_ino) == (
            self.size,
            self.mtime_ns,
            self.inode,
        )
        return "ok" if same and stat.S_ISREG(status.st_mode) else "changed"

    def trouble(self) -> str:
        """One line on what is wrong with the file, and what to do; empty when nothing is."""
        match self.state():
            case "ok":
                return ""
            case "changed":
                return f"the linked file {self.path} changed since the model was made; create the model again"
            case "missing":
                return (
                    f"the linked file {self.path} is gone; put it back, or create the model again"
                )


@attrs.frozen
class Links:
    """The links of one store. Holds no state, so threads may share it.

    Attributes:
        blobs: the folder `blobs` of the store.
    """

    blobs: Path

    @property
    def folder(self) -> Path:
        """Where the records are; it is made with the first link."""
        return self.blobs.parent / FOLDER

    def record(self, digest: Digest) -> LinkRecord | None:
        """The record of a blob that is a link of ours; None for any other blob, be it a link or not."""
        try:
            target = os.readlink(self.blobs / digest.file_name)
        except OSError:
            return None  # not there, or no link
        found = self._read(digest)
        return found if found is not None and found.path == target else None

    def records(self) -> Iterator[LinkRecord]:
        """Every link, in no order. Raises StoreError."""
        try:
            with disk_errors("read the model store"):
                names = os.listdir(self.folder)
        except StoreError as exc:
            if isinstance(exc.__cause__, FileNotFoundError):
                return
            raise
        for name in names:
            with suppress(InvalidName):
                record = self.record(Digest.parse(name.replace("-", ":", 1)))
                if record is not None:
                    yield record

    def state(self, digest: Digest) -> LinkState | None:
        """Whether a linked file is as it was; None for a blob that is no link of ours."""
        record = self.record(digest)
        return None if record is None else record.state()

    def make(self, record: LinkRecord) -> None:
        """Put a link in the place of a blob, durably. Raises DiskFull, StoreError.

        The record comes first: stopped in between, there is a record of nothing, which says nothing.
        """
        digest = Digest.parse(record.digest)
        with disk_errors("write to the model store"):
            make_dirs(self.folder, self.blobs.parent)
            self._sweep()
            write_durably(self.folder / digest.file_name, msgspec.json.encode(record))
            temp = self.blobs / f"{TEMP_PREFIX}{secrets.token_hex(8)}"
            os.symlink(record.path, temp)
            try:
                os.replace(temp, self.blobs / digest.file_name)
            except BaseException:
                with suppress(OSError):
                    temp.unlink()
                raise
            fsync_dir(self.blobs)

    def forget(self, digest: Digest) -> None:
        """Remove the record of a link that was removed; none is fine. Raises StoreError."""
        with disk_errors("remove from the model store"), suppress(FileNotFoundError):
            (self.folder / digest.file_name).unlink()

    def _read(self, digest: Digest) -> LinkRecord | None:
        try:
            data = read_small(self.folder / digest.file_name, _MAX_RECORD_BYTES)
            record = msgspec.json.decode(data, type=LinkRecord)
        except FileNotFoundError:
            return None
        except (OSError, CorruptStore, ValueError, RecursionError) as exc:
            # Nothing is known of the file then: it is followed, as a link that somebody else made.
            _log.warning("the record of the linked blob %s cannot be read: %s", digest, exc)
            return None
        return record if record.digest == str(digest) else None

    def _sweep(self) -> None:
        """Remove records whose link is gone or was replaced by a blob. There are few, and links are made seldom."""
        for name in os.listdir(self.folder):
            if not os.path.islink(self.blobs / name):
                with suppress(OSError):
                    (self.folder / name).unlink()
