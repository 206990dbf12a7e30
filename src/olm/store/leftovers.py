"""What lies in a store's folders and is no model's: orphans, partial downloads, leftovers of writes, foreign files.

Part of `check`. Reads only. What is younger than an hour may belong to a job and is passed over.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import attrs

from olm.errors import InvalidName
from olm.store.blobs import DAMAGED_PREFIX
from olm.store.disk import TEMP_PREFIX
from olm.store.gc import PARTIAL_KEPT_S, UNREFERENCED_KEPT_S
from olm.store.names import Digest, ModelName
from olm.store.partials import partial_bytes
from olm.store.problems import Problem, Prune, Remove, age_text, printable
from olm.units import human_bytes

__all__ = ["BLOB", "files_in", "odd_files", "temps", "unneeded"]

BLOB: Final = re.compile(r"sha256-([0-9a-f]{64})")
"""The file name of a blob."""
_PARTIAL: Final = re.compile(r"sha256-([0-9a-f]{64})-partial")
_RECORD: Final = re.compile(r"sha256-([0-9a-f]{64})-partial-\d+")
_DAMAGED: Final = re.compile(re.escape(DAMAGED_PREFIX) + r"sha256-([0-9a-f]{64})")


@attrs.frozen
class _File:
    """A file of `blobs/`; `path` is named from the store's folder."""

    root: Path
    name: str
    size_bytes: int
    age_s: float
    is_regular: bool

    @property
    def path(self) -> str:
        return os.path.join("blobs", self.name)

    def has_beside_it(self, name: str) -> bool:
        return (self.root / "blobs" / name).exists()


def files_in(folder: Path) -> list[tuple[str, os.stat_result]]:
    """Everything in a folder but folders, by name; of links the link itself. Raises OSError; a missing folder is empty."""
    found: list[tuple[str, os.stat_result]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    if not entry.is_dir(follow_symlinks=False):
                        found.append((entry.name, entry.stat(follow_symlinks=False)))
                except FileNotFoundError:
                    continue  # it ended while we looked
    except FileNotFoundError:
        return []
    return sorted(found, key=lambda item: item[0])


def temps(root: Path, folder: str, now_s: float) -> Iterator[Problem]:
    """Our own leftovers, in one folder, of writes that a crash ended."""
    for name, status in files_in(root / folder):
        if name.startswith(TEMP_PREFIX):
            yield from _temp(os.path.join(folder, name), status.st_size, now_s - status.st_mtime)


def _temp(path: str, size_bytes: int, age_s: float) -> Iterator[Problem]:
    if age_s > UNREFERENCED_KEPT_S:
        detail = f"left over from a write that was cut off {age_text(age_s)} ago"
        yield _stray(path, detail, size_bytes, Remove(path, UNREFERENCED_KEPT_S))


def odd_files(root: Path, now_s: float) -> Iterator[Problem]:
    """Files in the tree of manifests that are none, by their place or kind, and leftovers there."""
    top = root / "manifests"
    for text, folders, files in os.walk(top):
        folder = Path(text)
        yield from temps(root, str(folder.relative_to(root)), now_s)
        for name in sorted([*files, *(f for f in folders if (folder / f).is_symlink())]):
            path = folder / name
            what = printable(str(path.relative_to(root)))
            if path.is_symlink():
                yield _stray(
                    what, "is a link, which is not followed; nothing is pruned because of it"
                )
            elif not name.startswith(TEMP_PREFIX) and not _is_name(path.relative_to(top).parts):
                yield _stray(what, "is no model by its name; blobs that only it names are pruned")


def _is_name(parts: tuple[str, ...]) -> bool:
    try:
        host, namespace, model, tag = parts
        ModelName(host, namespace, model, tag)
    except (ValueError, InvalidName):
        return False
    return True


def unneeded(
    root: Path, name: str, status: os.stat_result, now_s: float, *, can_prune: bool
) -> Iterator[Problem]:
    """What is to be said of a file in `blobs/` that no model needs."""
    is_regular = stat.S_ISREG(status.st_mode)
    file = _File(root, name, status.st_size, now_s - status.st_mtime, is_regular)
    if name.startswith(TEMP_PREFIX):
        yield from _temp(file.path, file.size_bytes, file.age_s)
        return
    for pattern, tell in _TELLERS:
        if is_regular and (match := pattern.fullmatch(name)) is not None:
            yield from tell(file, Digest(match[1]), can_prune)
            return
    detail = (
        "is no blob; a start removes it after an hour, unless it is a link or OLM_NOPRUNE is set"
    )
    yield _stray(printable(file.path), detail, file.size_bytes)


def _orphan(file: _File, digest: Digest, can_prune: bool) -> Iterator[Problem]:
    if file.age_s <= UNREFERENCED_KEPT_S or not file.has_beside_it(file.name):
        return
    why = "" if can_prune else ", kept because a manifest cannot be read"
    yield Problem(
        kind="orphan",
        what=str(digest),
        detail=f"no model needs it; {age_text(file.age_s)} old{why}",
        size_bytes=file.size_bytes,
        mend=Prune(digest) if can_prune else None,
    )


def _partial(file: _File, digest: Digest, _can_prune: bool) -> Iterator[Problem]:
    held = partial_bytes(file.root / "blobs", digest, file.size_bytes)
    if file.has_beside_it(digest.file_name):
        detail, min_age_s = "the blob is here by now", UNREFERENCED_KEPT_S
    else:
        here = f"{human_bytes(held)} of {human_bytes(file.size_bytes)}"
        detail, min_age_s = f"{here} are here; a pull goes on from there", PARTIAL_KEPT_S
    is_stale = file.age_s > min_age_s
    if is_stale:
        detail += f"; untouched for {age_text(file.age_s)}"
    yield Problem(
        kind="partial",
        what=str(digest),
        detail=detail,
        size_bytes=held,
        mend=Remove(file.path, min_age_s) if is_stale else None,
    )


def _record(file: _File, digest: Digest, _can_prune: bool) -> Iterator[Problem]:
    is_alone = not file.has_beside_it(f"{digest.file_name}-partial")
    if is_alone and file.age_s > UNREFERENCED_KEPT_S:
        detail = "the record of a download whose bytes are gone"
        yield _stray(file.path, detail, file.size_bytes, Remove(file.path, UNREFERENCED_KEPT_S))


def _set_aside(file: _File, digest: Digest, _can_prune: bool) -> Iterator[Problem]:
    detail = f"a damaged blob, set aside {age_text(file.age_s)} ago; "
    if file.has_beside_it(digest.file_name):
        detail, min_age_s = detail + "there is another by now", 0.0
    else:
        detail, min_age_s = detail + "remove it yourself to have its room", PARTIAL_KEPT_S
    is_stale = file.age_s >= min_age_s
    yield _stray(
        file.path, detail, file.size_bytes, Remove(file.path, min_age_s) if is_stale else None
    )


_Teller = Callable[[_File, Digest, bool], Iterator[Problem]]
_TELLERS: Final[tuple[tuple[re.Pattern[str], _Teller], ...]] = (
    (BLOB, _orphan),
    (_PARTIAL, _partial),
    (_RECORD, _record),
    (_DAMAGED, _set_aside),
)


def _stray(path: str, detail: str, size_bytes: int = 0, mend: Remove | None = None) -> Problem:
    return Problem(kind="stray", what=path, detail=detail, size_bytes=size_bytes, mend=mend)
