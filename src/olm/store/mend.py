"""Mending what a check found: by the owner of the store, one mend at a time, each looked at again before it is done.

A check reads while others work, so what it saw may have changed: a mend does nothing unless its reason still holds.
Nothing a model needs is removed while it is whole.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import assert_never

from olm.store.builtin import ensure_builtin
from olm.store.disk import disk_errors, fsync_dir
from olm.store.gc import is_leftover
from olm.store.library import Library
from olm.store.names import Digest
from olm.store.problems import Mend, Prune, Remove, Restore, SetAside

__all__ = ["mend"]


def mend(library: Library, what: Mend, *, now_s: float) -> tuple[bool, str]:
    """Do one mend.

    Returns:
        whether that is in order now, and what was done in words, empty for nothing.

    Raises:
        DiskFull, StoreError: the disk said no.
    """
    match what:
        case SetAside():
            return _set_aside(library, what)
        case Prune():
            is_gone = what.digest in library.janitor.prune([what.digest])
            return (True, "removed") if is_gone else (False, "kept: a job holds it")
        case Remove():
            is_gone = _remove(library.root, what, now_s)
            return is_gone, "removed" if is_gone else ""
        case Restore():
            is_back = _restore(library, what.digest, what.size_bytes)
            return is_back, "put back: it is the built-in model's" if is_back else ""
        case _:
            assert_never(what)


def _set_aside(library: Library, what: SetAside) -> tuple[bool, str]:
    size = library.blobs.size(what.digest)
    aside = library.blobs.set_aside(what.digest, what.inode)
    if aside is None:
        return False, ""
    done = f"set aside as {aside}"
    if size is not None and _restore(library, what.digest, None):
        return True, f"{done}, and put back: it is the built-in model's"
    return False, done


def _restore(library: Library, digest: Digest, size_bytes: int | None) -> bool:
    ensure_builtin(library.root, library.blobs, library.manifests)
    size = library.blobs.size(digest)
    return size is not None and size_bytes in (None, size)


def _remove(root: Path, what: Remove, now_s: float) -> bool:
    """Remove a leftover; the name comes from a check, and is held to what leftovers are called all the same."""
    path = root / what.path
    parts = PurePosixPath(what.path).parts
    assert ".." not in parts, "the name comes from a look through this very folder"
    assert is_leftover(path.name), "only leftovers are removed by name"
    with disk_errors(f"remove {what.path} from the model store"):
        try:
            if now_s - path.lstat().st_mtime < what.min_age_s:
                return False
            os.unlink(path)
            for record in path.parent.glob(f"{path.name}-*"):  # what a partial download had
                if is_leftover(record.name):
                    record.unlink(missing_ok=True)
        except FileNotFoundError:
            return True
        fsync_dir(path.parent)
    return True
