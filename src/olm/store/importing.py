"""Reading an archive of models into the store: each blob straight to its place, verified on the way. Blocking.

Nothing in an archive is trusted: sizes are held against what was announced and what the disk has room for, contents
against their digests. A file or folder is surveyed first, so that nothing is written of one that cannot be imported,
and its blobs may then be taken by several threads. A stream is taken as it comes. Names are given out by the caller,
at the end. How archives are read is `sources`', how blobs are written `incoming`'s.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from olm.errors import DigestMismatch, DiskFull, InvalidRequest, StoreError
from olm.store.archive import (
    INDEX,
    MAX_INDEX_BYTES,
    Index,
    blob_of,
    blob_path,
    decode_index,
    model_manifest,
    names_of,
)
from olm.store.blobs import BlobStore
from olm.store.disk import disk_errors, free_bytes, shortage
from olm.store.incoming import CHUNK_BYTES, IncomingBlob
from olm.store.names import Digest, ModelName
from olm.store.sources import Archive, Source, layout_members
from olm.store.tar import n_padding

__all__ = ["Hooks", "Importer"]

REPORT_S: Final = 0.1
_KEPT_FREE_BYTES: Final = 16 << 20

_Fill = Callable[[memoryview], int]


class Hooks(Protocol):
    """What an import asks of who runs it; called from its threads, may raise to end it."""

    def hold(self, *digests: Digest) -> None:
        """Keep blobs from being pruned until the import is over."""

    def report(self, digest: Digest, total: int, completed: int) -> None:
        """Tell how far a blob is; bytes."""

    def check(self) -> None:
        """Called for each chunk; raises when the import was cancelled."""


class Importer:
    """One import: `survey` and `take` each blob, or `take_stream`; then `finish` tells what can be published."""

    def __init__(self, blobs: BlobStore, hooks: Hooks, wanted: str = "") -> None:
        """Begin an import.

        Args:
            wanted: what the only model of the archive is to be called; empty for the names it has.
        """
        self._blobs = blobs
        self._hooks = hooks
        self._wanted = wanted
        self._index: Index | None = None
        self._names: list[tuple[ModelName, Digest]] = []
        self._manifests: dict[Digest, bytes | None] = {}  # in the index; None: not come yet
        self._sizes: dict[Digest, int] = {}
        self._models: dict[Digest, str] = {}  # who needs a blob, for messages
        self._created: set[Digest] = set()

    @property
    def leftovers(self) -> set[Digest]:
        """Blobs to be removed when no model has them: what it made, and manifests that came as blobs, now or earlier."""
        return self._created | set(self._manifests)

    # -- files and folders -------------------------------------------------------------------------------------------

    def survey(self, archive: Archive) -> list[Digest]:
        """See that every model is whole and fits; returns the blobs to `take`, the largest first.

        Raises:
            InvalidRequest, DigestMismatch: the archive is damaged, hostile or not whole.
            DiskFull, StoreError: the store cannot take it.
        """
        size = archive.size(INDEX)
        if size is None:
            raise InvalidRequest(_cut_off(archive.cut_in) if archive.cut_in else _NO_INDEX)
        with archive.open(INDEX) as (fd, offset):
            self._learn_index(_small(_reader(fd, offset), size, INDEX))
        for digest in list(self._manifests):
            self._hooks.hold(digest)
            self._find_manifest(archive, digest)
        self._refuse_strangers(archive)
        if archive.cut_in:
            cut = blob_of(archive.cut_in)
            raise InvalidRequest(_cut_off(self._what(cut) if cut else archive.cut_in))
        self._hooks.hold(*self._sizes)
        waiting = [digest for digest in self._sizes if self._is_missing(digest)]
        for digest, total in self._sizes.items():
            found = archive.size(blob_path(digest))
            if found is not None:
                self._check_blob(digest, found)
            elif digest in waiting:
                raise InvalidRequest(self._missing(digest))
            if digest not in waiting:
                self._hooks.report(digest, total, total)
        self._check_room(waiting)
        return sorted(waiting, key=lambda digest: -self._sizes[digest])

    def take(self, archive: Archive, digest: Digest) -> None:
        """Bring one blob of a surveyed archive into the store. Several threads may, each another blob.

        Raises:
            DigestMismatch: it is damaged; nothing of it is kept.
            DiskFull, StoreError, InvalidRequest: reading or writing failed; nothing of it is kept.
        """
        with (
            self._blob_errors(digest),
            archive.open(blob_path(digest)) as (fd, offset),
            IncomingBlob(self._blobs.folder, digest, self._sizes[digest]) as incoming,
        ):
            fill = incoming.clone(fd, offset)
            self._fill(incoming, digest, fill or _filler(incoming, fd, offset))

    def _find_manifest(self, archive: Archive, digest: Digest) -> None:
        size = archive.size(blob_path(digest))
        if size is not None:
            with archive.open(blob_path(digest)) as (fd, offset):
                data = _small(_reader(fd, offset), size, str(digest))
        elif self._blobs.size(digest) is not None:
            data = self._blobs.read(digest, limit_bytes=MAX_INDEX_BYTES)
        else:
            raise InvalidRequest(self._missing(digest))
        self._learn_manifest(digest, data)

    def _refuse_strangers(self, archive: Archive) -> None:
        for path in archive.paths():
            digest = blob_of(path)
            if digest is not None and digest not in self._sizes and digest not in self._manifests:
                raise InvalidRequest(_stranger(digest))

    # -- streams -----------------------------------------------------------------------------------------------------

    def take_stream(self, source: Source) -> None:
        """Take in an uncompressed tar.

        Raises:
            InvalidRequest, DigestMismatch: the archive is damaged or hostile.
            DiskFull, StoreError: the store cannot take it.
        """
        for path, header in layout_members(source.read):
            self._hooks.check()
            digest = blob_of(path)
            if path == INDEX:
                self._learn_index(_small(source.read, header.size, path))
                for known in list(self._manifests):
                    self._learn_stored(known)
            elif digest is None:
                _small(source.read, header.size, path)
            else:
                self._hooks.hold(digest)
                self._take_member(digest, header.size, source)
            if len(source.read(n_padding(header.size))) < n_padding(header.size):
                raise InvalidRequest(_cut_off(path))

    def _take_member(self, digest: Digest, size: int, source: Source) -> None:
        self._check_blob(digest, size)
        if digest in self._manifests:
            self._learn_manifest(digest, _small(source.read, size, str(digest)))
        elif self._blobs.size(digest) == size:
            self._pass_over(digest, size, source)
        else:
            self._check_room([digest, *filter(self._is_missing, self._sizes)], digest, size)
            with (
                self._blob_errors(digest, size),
                IncomingBlob(self._blobs.folder, digest, size) as incoming,
            ):
                self._fill(incoming, digest, source.read_into)

    def _pass_over(self, digest: Digest, size: int, source: Source) -> None:
        view = memoryview(bytearray(min(size, CHUNK_BYTES)))
        left = size
        while left:
            self._hooks.check()
            n_bytes = source.read_into(view[: min(left, len(view))])
            if not n_bytes:
                raise InvalidRequest(_cut_off(self._what(digest)))
            left -= n_bytes
        self._hooks.report(digest, size, size)

    def _learn_stored(self, digest: Digest) -> None:
        """Read a manifest that is a blob of the store already: because it came before the index."""
        if self._blobs.size(digest) is not None:
            self._learn_manifest(digest, self._blobs.read(digest, limit_bytes=MAX_INDEX_BYTES))

    # -- both --------------------------------------------------------------------------------------------------------

    def finish(self) -> list[tuple[ModelName, bytes]]:
        """Check that every model is whole; returns names and manifests to publish, in the archive's order.

        Raises:
            InvalidRequest: no index, or a blob that is neither in the archive nor in the store.
        """
        if self._index is None:
            raise InvalidRequest(_NO_INDEX)
        found: list[tuple[ModelName, bytes]] = []
        for name, digest in self._names:
            data = self._manifests[digest]
            if data is None:
                raise InvalidRequest(self._missing(digest))
            found.append((name, data))
        self._hooks.hold(*self._sizes)
        for blob, size in self._sizes.items():
            actual = self._blobs.size(blob)
            if actual is None:
                raise InvalidRequest(self._missing(blob))
            if actual != size:
                raise InvalidRequest(
                    f"{self._what(blob)}: it has {actual} bytes in the store instead of {size}"
                )
        return found

    def _learn_index(self, data: bytes) -> None:
        self._index = decode_index(data)
        self._names = names_of(self._index, self._wanted)
        self._manifests = {digest: None for _, digest in self._names}
        for name, digest in self._names:
            self._models.setdefault(digest, name.shortest)

    def _learn_manifest(self, digest: Digest, data: bytes) -> None:
        """Take a manifest, for the sizes and digests of what follows."""
        if Digest.of(data) != digest:
            raise DigestMismatch(
                f'{self._what(digest)}: damaged in the archive: digest mismatch, got "{Digest.of(data)}"'
            )
        model = self._models[digest]
        manifest = model_manifest(data, model)
        for layer in (manifest.config, *manifest.layers):
            if self._sizes.setdefault(layer.blob, layer.size) != layer.size:
                raise InvalidRequest(f"model {model}: two sizes are given for blob {layer.digest}")
            self._models.setdefault(layer.blob, model)
        self._manifests[digest] = data

    def _check_blob(self, digest: Digest, size: int) -> None:
        """Compare with what the manifests say, as far as they have come: ours come first."""
        expected = self._sizes.get(digest)
        if expected is not None and expected != size:
            raise InvalidRequest(
                f"{self._what(digest)}: the archive has {size} bytes, the manifest says {expected}"
            )
        is_known = expected is not None or digest in self._manifests
        if self._index is not None and None not in self._manifests.values() and not is_known:
            raise InvalidRequest(_stranger(digest))

    def _check_room(
        self, needed: list[Digest], unknown: Digest | None = None, size: int = 0
    ) -> None:
        """Refuse at once what the disk has no room for: blobs of the manifests, and one of `size` bytes."""
        sizes = {digest: self._sizes.get(digest, size) for digest in needed}
        n_bytes = sum(sizes.values())
        if sizes and n_bytes + _KEPT_FREE_BYTES > free_bytes(self._blobs.folder):
            what = self._what(unknown or max(sizes, key=lambda digest: sizes[digest]))
            raise DiskFull(
                f"cannot import {what}: no space left on device: {shortage(n_bytes, self._blobs.folder)}"
            )

    def _fill(self, incoming: IncomingBlob, digest: Digest, fill: _Fill) -> None:
        total, reported_s = incoming.n_left, time.monotonic()
        while incoming.n_left:
            self._hooks.check()
            n_bytes = fill(incoming.room())
            if not n_bytes:
                raise InvalidRequest(_cut_off(self._what(digest)))
            incoming.advance(n_bytes)
            now = time.monotonic()
            if incoming.n_left and now - reported_s >= REPORT_S:
                reported_s = now
                self._hooks.report(digest, total, incoming.n_taken)
        # Noted before it appears: whatever happens then, somebody looks after it.
        self._created.add(digest)
        incoming.commit()
        self._hooks.report(digest, total, total)

    @contextmanager
    def _blob_errors(self, digest: Digest, size: int = 0) -> Iterator[None]:
        """Say of which model and blob an error is, and what a full disk would have needed."""
        what = self._what(digest)
        try:
            yield
        except DigestMismatch as exc:
            raise DigestMismatch(f"{what}: damaged in the archive: {exc.message}") from exc
        except DiskFull as exc:
            lack = shortage(self._sizes.get(digest, size), self._blobs.folder)
            raise DiskFull(f"{what}: {exc.message}: {lack}") from exc
        except StoreError as exc:
            raise StoreError(f"{what}: {exc.message}") from exc

    def _is_missing(self, digest: Digest) -> bool:
        return self._blobs.size(digest) != self._sizes[digest]

    def _what(self, digest: Digest) -> str:
        """Name a blob for a message, with the model that needs it as far as that is known."""
        model = self._models.get(digest)
        return f"model {model}, blob {digest}" if model else f"blob {digest}"

    def _missing(self, digest: Digest) -> str:
        return (
            f"{self._what(digest)}: it is neither in the archive nor in the store; "
            "was the archive cut off?"
        )


_NO_INDEX: Final = f"the archive has no {INDEX}: it is no OCI image layout, or it was cut off"


def _cut_off(what: str) -> str:
    return f"the archive ends in the middle of {what}"


def _stranger(digest: Digest) -> str:
    return f"blob {digest} of the archive belongs to no model in it"


def _small(read: Callable[[int], bytes], size: int, what: str) -> bytes:
    if size > MAX_INDEX_BYTES:
        raise InvalidRequest(f"the archive's {what} has {size} bytes, more than {MAX_INDEX_BYTES}")
    data = read(size) if size else b""
    if len(data) < size:
        raise InvalidRequest(_cut_off(what))
    return data


def _reader(fd: int, offset: int) -> Callable[[int], bytes]:
    return lambda size: os.pread(fd, size, offset)


def _filler(incoming: IncomingBlob, fd: int, offset: int) -> _Fill:
    """Read a member into whatever room the blob has."""

    def fill(view: memoryview) -> int:
        with disk_errors("read the archive"):
            return os.preadv(fd, [view], offset + incoming.n_taken)

    return fill
