"""A look through a whole store: what is wrong with it. Reads only; `mend` puts it in order.

`survey` reads folders and manifests and tells at once what needs no reading of blobs; `examine` hashes one blob. Both
may run beside a working store: what a job has not finished is passed over, and what changed meanwhile is not told.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from olm.errors import StoreError
from olm.store.blobs import BlobStore
from olm.store.builtin import BUILTIN
from olm.store.disk import disk_errors
from olm.store.leftovers import BLOB, files_in, odd_files, temps, unneeded
from olm.store.manifests import Manifest, ManifestFile, ManifestStore, decode_manifest
from olm.store.names import DEFAULT_HOST, Digest, ModelName
from olm.store.problems import Kind, Mend, Problem, Restore, SetAside, Survey, Suspect
from olm.store.tree import ManifestTree

__all__ = ["examine", "is_still_missing", "survey"]

QUICK_BYTES: Final = 1 << 20
"""A quick look reads blobs up to this size: configs, templates, licences, but no weights."""
_CHUNK_BYTES: Final = 4 << 20
"""Read and hashed in one go: some 5 ms, so that a cancelled check ends soon."""


@attrs.frozen
class _Read:
    """A readable manifest. `is_pulled`: a registry has it."""

    name: ModelName
    manifest: Manifest
    is_pulled: bool


@attrs.frozen
class _Need:
    """A blob as manifests speak of it."""

    size_bytes: int
    models: tuple[str, ...]
    advice: str
    is_builtin: bool


def survey(root: Path, *, now_s: float, quick: bool = False) -> Survey:
    """Read the folders and manifests of a store.

    Args:
        now_s: seconds since 1970.
        quick: suspect small blobs only.

    Raises:
        StoreError: a folder cannot be read.
    """
    blobs, store = BlobStore(root / "blobs"), ManifestStore(root / "manifests")
    with disk_errors("read the model store"):
        # Blobs before manifests: a model that appears in between has its blobs young, and lacks none.
        files = files_in(blobs.folder)
        listed = sorted(ManifestTree(store).walk(), key=lambda file: str(file.name))
        read, problems = _read_manifests(store, listed)
        problems += odd_files(root, now_s)
        problems += temps(root, "", now_s)
        needs = _needs(read)
        problems += _missing(needs, blobs)
        can_prune = not any(problem.kind == "manifest" for problem in problems)
        suspects: list[Suspect] = []
        for name, status in files:
            match = BLOB.fullmatch(name)
            digest = Digest(match[1]) if match else None
            if digest is None or digest not in needs:
                problems += unneeded(root, name, status, now_s, can_prune=can_prune)
                continue
            suspect = _suspect(digest, needs[digest], blobs)
            if suspect is None:
                continue
            if not quick or suspect.size_bytes <= QUICK_BYTES:
                suspects.append(suspect)
            elif suspect.size_bytes != suspect.wanted_bytes:
                problems.append(_damaged(suspect, _sizes(suspect, suspect.size_bytes), None))
    suspects.sort(key=lambda suspect: -suspect.size_bytes)
    return Survey(tuple(problems), tuple(suspects), len(read))


def examine(blobs: BlobStore, suspect: Suspect, on_bytes: Callable[[int], None]) -> Problem | None:
    """Hash one blob.

    Args:
        on_bytes: told how many bytes were read, every few milliseconds; what it raises ends the reading.
    """
    path = blobs.path(suspect.digest)
    try:
        with path.open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            actual = _hash(file.fileno(), on_bytes)
    except FileNotFoundError:
        return None  # deleted meanwhile; a dangling link was told by `survey`
    except OSError as exc:
        reason = os.strerror(exc.errno).lower() if exc.errno else str(exc)
        return _damaged(suspect, f"cannot be read: {reason}", None)
    if actual == suspect.digest.hex:
        if status.st_size == suspect.wanted_bytes:
            return None
        said = f"is whole, but a manifest says {suspect.wanted_bytes} bytes, not {status.st_size}"
        return _problem(suspect, "manifest", said, suspect.advice)
    if not _is_same_file(path, status):
        return None  # replaced while it was read, by somebody who verified what is there now
    if path.is_symlink():
        said = f"the file it is a link to has changed: {path.readlink()}"
        return _problem(suspect, "link", said, "create the model again")
    words = "does not have the bytes of its name"
    if status.st_size != suspect.wanted_bytes:
        words = _sizes(suspect, status.st_size)
    return _damaged(suspect, words, SetAside(suspect.digest, status.st_ino))


def is_still_missing(root: Path, digest: Digest) -> bool:
    """Whether a blob found missing is so still, and somebody still needs it: a delete may have come between."""
    if BlobStore(root / "blobs").size(digest) is not None:
        return False
    store = ManifestStore(root / "manifests")
    read, _ = _read_manifests(store, list(ManifestTree(store).walk()))
    return any(digest in item.manifest.blobs() for item in read)


def _hash(fd: int, on_bytes: Callable[[int], None]) -> str:
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    hashed, buffer = hashlib.sha256(), memoryview(bytearray(_CHUNK_BYTES))
    while n_bytes := os.readv(fd, [buffer]):
        hashed.update(buffer[:n_bytes])
        on_bytes(n_bytes)
    return hashed.hexdigest()


def _is_same_file(path: Path, status: os.stat_result) -> bool:
    try:
        now = path.stat()
    except FileNotFoundError:
        return False
    return (now.st_ino, now.st_size, now.st_mtime_ns) == (
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
    )


def _read_manifests(
    store: ManifestStore, files: Sequence[ManifestFile]
) -> tuple[list[_Read], list[Problem]]:
    read: list[_Read] = []
    problems: list[Problem] = []
    spellings: dict[tuple[str, ...], str] = {}
    for file in files:
        shortest = file.name.shortest
        other = spellings.setdefault(file.name.folded, shortest)
        if other != shortest:
            detail = f"the same name as {other} but for case: only one of them can be asked for"
            problems.append(Problem(kind="stray", what=shortest, detail=detail))
        try:
            data = store.read(file)
            is_pulled = _is_pulled(file.name, data)
            read.append(_Read(file.name, decode_manifest(data), is_pulled))
        except StoreError as exc:
            if isinstance(exc.__cause__, FileNotFoundError):
                continue  # deleted meanwhile
            advice = f"'olm rm {shortest}' removes it, and until then no blob is pruned"
            problems.append(
                Problem(
                    kind="manifest",
                    what=shortest,
                    detail=str(exc),
                    advice=advice,
                    models=(shortest,),
                )
            )
    return read, problems


def _is_pulled(name: ModelName, data: bytes) -> bool:
    """Whether a registry has the model: what olm and Ollama create ends with a newline, what registries send does not."""
    return name.host.lower() != DEFAULT_HOST or not data.endswith(b"\n")


def _needs(read: Sequence[_Read]) -> Mapping[Digest, _Need]:
    """Who needs which blob. Where manifests differ about a size, the first is believed: the digest decides."""
    owners: dict[Digest, dict[ModelName, _Read]] = {}
    sizes: dict[Digest, int] = {}
    for item in read:
        for layer in (item.manifest.config, *item.manifest.layers):
            owners.setdefault(layer.blob, {})[item.name] = item
            sizes.setdefault(layer.blob, layer.size)
    return {
        digest: _Need(
            sizes[digest],
            tuple(name.shortest for name in items),
            _advice(list(items.values())),
            any(name.same_as(BUILTIN) for name in items),
        )
        for digest, items in owners.items()
    }


def _advice(owners: Sequence[_Read]) -> str:
    """How the user gets a blob again."""
    pulled = next((item.name for item in owners if item.is_pulled), None)
    if pulled is not None:
        return f"'olm pull {pulled.shortest}' fetches it again"
    if any(item.name.same_as(BUILTIN) for item in owners):
        return "a restart of the server puts it back, or 'olm doctor --repair'"
    return f"create or import {owners[0].name.shortest} again"


def _missing(needs: Mapping[Digest, _Need], blobs: BlobStore) -> Iterator[Problem]:
    for digest, need in needs.items():
        path = blobs.path(digest)
        if blobs.size(digest) is not None:
            continue
        kind: Kind = "missing"
        detail, advice, mend = "is not in the store", need.advice, None
        if path.is_symlink():
            record = blobs.links.record(digest)
            kind, advice = "link", "put it back, or create the model again"
            detail = f"is a link to {path.readlink()}, which is gone"
            if record is not None and (trouble := record.trouble()):
                detail, advice = trouble, ""
        elif need.is_builtin:
            mend = Restore(digest, need.size_bytes)
        yield Problem(
            kind=kind,
            what=str(digest),
            detail=detail,
            advice=advice,
            models=need.models,
            size_bytes=need.size_bytes,
            mend=mend,
        )


def _suspect(digest: Digest, need: _Need, blobs: BlobStore) -> Suspect | None:
    size = blobs.size(digest)
    if size is None:
        return None  # a dangling link or no file: told as missing
    return Suspect(digest, size, need.size_bytes, need.models, need.advice)


def _problem(
    suspect: Suspect, kind: Kind, detail: str, advice: str, mend: Mend | None = None
) -> Problem:
    return Problem(
        kind=kind,
        what=str(suspect.digest),
        detail=detail,
        advice=advice,
        models=suspect.models,
        size_bytes=suspect.size_bytes,
        mend=mend,
    )


def _damaged(suspect: Suspect, words: str, mend: Mend | None) -> Problem:
    return _problem(suspect, "damaged", words, suspect.advice, mend)


def _sizes(suspect: Suspect, size_bytes: int) -> str:
    return f"has {size_bytes} bytes, not {suspect.wanted_bytes}"
