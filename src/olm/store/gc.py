"""Which blobs may go, and the upkeep of a store at start (spec/ollama §6.3, with partial downloads kept).

Deletion takes a `Digest` and nothing else, so nothing outside `blobs/` can be removed. What a running job needs is
leased: it stays until the lease ends, and goes then if nobody wants it.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from olm.errors import CorruptStore
from olm.store.blobs import DAMAGED_PREFIX, BlobStore
from olm.store.catalog import Catalog
from olm.store.disk import TEMP_PREFIX, disk_errors, fsync_dir
from olm.store.links import Links
from olm.store.manifests import ManifestStore
from olm.store.names import Digest

__all__ = [
    "PARTIAL_KEPT_S",
    "UNREFERENCED_KEPT_S",
    "UPLOAD_LEASE_S",
    "Janitor",
    "is_leftover",
    "maintain",
]

UNREFERENCED_KEPT_S: Final = 3600.0
"""Younger blobs may belong to a create that has not written its manifest yet (Ollama's hour)."""
PARTIAL_KEPT_S: Final = 14 * 86400.0
"""How long an interrupted download can be resumed; Ollama drops it after an hour, which users complain about."""
UPLOAD_LEASE_S: Final = 3600.0
"""How long an upload waits for the create that will use it."""

_PARTIAL: Final = re.compile(r"sha256-[0-9a-f]{64}-partial(-\d+)?")
_DAMAGED: Final = re.compile(re.escape(DAMAGED_PREFIX) + r"sha256-[0-9a-f]{64}")
_COLON: Final = re.compile(r"sha256:[0-9a-f]{64}")
_log = logging.getLogger(__name__)


class Janitor:
    """Removes blobs that no manifest and no lease needs. Not thread safe: called from one thread at a time."""

    def __init__(
        self, blobs: BlobStore, catalog: Catalog, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._blobs = blobs
        self._catalog = catalog
        self._clock = clock
        self._leases: dict[str, set[Digest]] = {}
        self._uploads: dict[Digest, list[float]] = {}
        self._condemned: set[Digest] = set()

    def hold(self, owner: str, digests: Iterable[Digest]) -> None:
        """Keep more blobs until `owner` releases all of its own."""
        self._leases.setdefault(owner, set()).update(digests)

    def release(self, owner: str, leftovers: Iterable[Digest] = ()) -> list[Digest]:
        """End an owner's leases. What nobody wants now goes, if it is a leftover of the owner or was to be pruned
        meanwhile. Returns what went; doing it twice does no harm."""
        self._leases.pop(owner, None)
        return self.prune(self._condemned | set(leftovers))

    def touch(self, digest: Digest) -> None:
        """Keep a blob that was just uploaded, or found to be there, for the create that will follow.

        Each call stands for a create of its own: two that upload the same tokenizer wait for it both.
        """
        now = self._clock()
        running = {d: [end for end in ends if end > now] for d, ends in self._uploads.items()}
        self._uploads = {d: ends for d, ends in running.items() if ends}
        self._uploads.setdefault(digest, []).append(now + UPLOAD_LEASE_S)

    def settle(self, digests: Iterable[Digest]) -> None:
        """End one lease of each upload, that of a create which is over; others may be waiting for theirs."""
        for digest in digests:
            if ends := self._uploads.get(digest):
                ends.pop(0)

    def settle_all(self, digests: Iterable[Digest]) -> None:
        """End every lease of blobs that a model has by now: deleting the model shall free its disk space at once."""
        for digest in digests:
            self._uploads.pop(digest, None)

    def prune(self, candidates: Iterable[Digest]) -> list[Digest]:
        """Remove those candidates that nothing needs; returns them. A damaged manifest anywhere keeps everything."""
        wanted = set(candidates)
        if not wanted:
            return []
        try:
            entries = self._catalog.entries_or_raise()
        except CorruptStore as exc:
            _log.warning("blobs are kept, because a manifest cannot be read: %s", exc)
            return []
        for entry in entries:
            wanted -= entry.manifest.blobs()
        held = set().union(*self._leases.values()) & wanted
        now = self._clock()
        uploaded = {d for d in wanted if max(self._uploads.get(d, ()), default=now) > now}
        # An upload's lease ends by itself; if nobody uses the blob, a later start removes it.
        self._condemned = (self._condemned - wanted) | held
        gone = sorted(wanted - held - uploaded, key=str)
        for digest in gone:
            self._blobs.remove(digest)
        return gone


def maintain(
    manifests: ManifestStore,
    blobs: BlobStore,
    catalog: Catalog,
    *,
    prune: bool,
    now_s: float,
) -> list[str]:
    """Put a store in order at start; the caller holds its lock. Returns the names of the files removed.

    Args:
        prune: remove unreferenced blobs and stale files too, not only our own leftovers.
        now_s: seconds since 1970, to compare with the files' times.

    Raises:
        StoreError: the store cannot be read or written.
    """
    with disk_errors("tidy the model store"):
        _rename_colons(blobs.folder)
        removed = _sweep_temps(blobs.folder) + _sweep_temps(manifests.folder, deep=True)
        removed += _sweep_temps(blobs.folder.parent) + _sweep_temps(blobs.links.folder)
        if prune:
            removed += _sweep_blobs(blobs.folder, catalog, now_s)
            manifests.remove_empty_folders()
    return removed


def _rename_colons(folder: Path) -> None:
    """Very old Ollama versions named blobs with a colon."""
    for path in folder.iterdir():
        if _COLON.fullmatch(path.name):
            target = path.with_name(path.name.replace(":", "-"))
            if not target.exists():
                path.rename(target)


def _sweep_temps(folder: Path, *, deep: bool = False) -> list[str]:
    found = folder.rglob(f"{TEMP_PREFIX}*") if deep else folder.glob(f"{TEMP_PREFIX}*")
    removed = []
    for path in found:
        path.unlink(missing_ok=True)
        removed.append(path.name)
    return removed


def _sweep_blobs(folder: Path, catalog: Catalog, now_s: float) -> list[str]:
    try:
        needed = {
            digest.file_name
            for entry in catalog.entries_or_raise()
            for digest in entry.manifest.blobs()
        }
    except CorruptStore as exc:
        _log.warning("nothing is pruned, because a manifest cannot be read: %s", exc)
        return []
    removed: list[str] = []
    links = {Digest.parse(record.digest).file_name for record in Links(folder).records()}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in needed or not _is_ours(entry, links):
                continue
            with suppress(FileNotFoundError):
                age_s = now_s - entry.stat(follow_symlinks=False).st_mtime
                if age_s > _kept_s(entry.name):
                    os.unlink(entry.path)
                    removed.append(entry.name)
    if removed:
        fsync_dir(folder)
        _log.info("removed %d unused files from the model store", len(removed))
    return removed


def _is_ours(entry: os.DirEntry[str], links: set[str]) -> bool:
    """Files, and links that olm made; links of somebody else stay."""
    return entry.is_file(follow_symlinks=False) or (entry.is_symlink() and entry.name in links)


def _kept_s(name: str) -> float:
    is_of_use = _PARTIAL.fullmatch(name) or _DAMAGED.fullmatch(name)
    return PARTIAL_KEPT_S if is_of_use else UNREFERENCED_KEPT_S


def is_leftover(name: str) -> bool:
    """Whether a file of that name is nothing but a leftover of work that ended: never a blob, never a manifest."""
    patterns = (_PARTIAL, _DAMAGED)
    return name.startswith(TEMP_PREFIX) or any(pattern.fullmatch(name) for pattern in patterns)
