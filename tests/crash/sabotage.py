"""Ways to break the store, to see that the crash test finds out. Each changes what a life calls, in its own process."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["SABOTAGES"]


def _is_dir(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def _without_file_syncs() -> None:
    """Bytes are not brought to the disk before a file gets its name."""
    real = os.fsync
    os.fsync = lambda fd: real(fd) if _is_dir(fd) else None
    os.fdatasync = lambda _: None


def _without_folder_syncs() -> None:
    """Names are not brought to the disk."""
    real = os.fsync
    os.fsync = lambda fd: None if _is_dir(fd) else real(fd)


def _in_place() -> None:
    """Files are written under their final name."""

    def replace(source: str, target: str) -> None:
        shutil.copyfile(source, target)
        os.unlink(source)

    os.replace = replace  # type: ignore[assignment] # it shall be wrong


def _manifest_first() -> None:
    """A pull's manifest appears before its blobs are there."""
    from olm.actors.pull import PullJob

    async def fetch(*_: object) -> None:
        return None

    PullJob._fetch = fetch  # type: ignore[method-assign] # it shall be wrong


SABOTAGES: Final[Mapping[str, Callable[[], None]]] = {
    "file-syncs": _without_file_syncs,
    "folder-syncs": _without_folder_syncs,
    "in-place": _in_place,
    "manifest-first": _manifest_first,
}
