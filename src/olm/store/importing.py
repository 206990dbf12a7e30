"""Reading an archive of models into the store: each blob straight to its place, verified on the way. Blocking.

Nothing in an archive is trusted: members are matched against the few paths an image layout has, sizes against what was
announced and what the disk has room for, contents against their digests. Names are given out by the caller, at the end.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final, Protocol, cast

import attrs

from olm.errors import DigestMismatch, DiskFull, InvalidRequest, StoreError
from olm.store.archive import (
    INDEX,
    LAYOUT,
    MAX_INDEX_BYTES,
    Index,
    blob_of,
    decode_index,
    model_manifest,
    names_of,
)
from olm.store.blobs import BlobStore
from olm.store.disk import disk_errors
from olm.store.exporting import free_bytes
from olm.store.manifests import Manifest
from olm.store.names import Digest, ModelName
from olm.store.tar import Read, n_padding, read_header
from olm.units import human_bytes

__all__ = ["Hooks", "Importer", "Source", "open_file", "plain_reader"]

ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
MAX_WINDOW_BYTES: Final = 128 << 20
"""What `zstd --long` uses by default; archives of more would only cost memory."""
CHUNK_BYTES: Final = 1 << 20
REPORT_S: Final = 0.1
MAX_MEMBERS: Final = 100_000
_KEPT_FREE_BYTES: Final = 16 << 20
_IGNORED: Final = frozenset({"manifest.json", "repositories"})
"""What `docker save` adds for old versions of itself."""
_FOLDERS: Final = frozenset({"", ".", "blobs", "blobs/sha256"})


class Hooks(Protocol):
    """What an import asks of who runs it; called from its thread, may raise to end it."""

    def hold(self, digest: Digest) -> None:
        """Keep a blob from being pruned until the import is over."""

    def report(self, status: str, digest: str, total: int, completed: int) -> None:
        """Tell how far it is; bytes."""

    def check(self) -> None:
        """Called for each chunk; raises when the import was cancelled."""


@attrs.frozen
class Source:
    """Bytes of an archive. `skip` passes over so many without reading them where the source can; None where not."""

    read: Read
    skip: Callable[[int], None] | None = None


class Importer:
    """One import. Feed it an archive or folder, then `finish` tells what can be published."""

    def __init__(self, blobs: BlobStore, hooks: Hooks) -> None:
        self._created: set[Digest] = set()
        self._blobs = blobs
        self._hooks = hooks
        self._index: Index | None = None
        self._seen: set[str] = set()
        self._sizes: dict[Digest, int] = {}
        self._unread: set[Digest] = set()
        self._reported_s = 0.0

    @property
    def leftovers(self) -> set[Digest]:
        """Blobs to be removed when no model has them: what it made, and manifests that came as blobs, now or earlier."""
        return self._created | self._manifests()

    def feed_tar(self, source: Source) -> None:
        """Take in an uncompressed tar.

        Raises:
            InvalidRequest, DigestMismatch: the archive is damaged or hostile.
            DiskFull, StoreError: the store cannot take it.
        """
        while (header := read_header(source.read)) is not None:
            path = _checked_path(header.name, is_folder=header.is_folder)
            if header.is_folder:
                continue
            if path in self._seen:
                raise InvalidRequest(f"the archive has {path} twice")
            if len(self._seen) >= MAX_MEMBERS:
                raise InvalidRequest(f"the archive has more than {MAX_MEMBERS} members")
            self._seen.add(path)
            self._take(path, header.size, source)
            _pass(source, n_padding(header.size), path)

    def feed_folder(self, folder: Path) -> None:
        """Take in an image layout that is a folder. Raises as `feed_tar` does."""
        self._take_file(folder, INDEX)
        assert self._index is not None, "it was taken just now"
        for item in self._index.manifests:
            self._take_file(folder, f"blobs/sha256/{Digest.parse(item.digest).hex}")
        for digest in list(self._sizes):
            if self._blobs.size(digest) != self._sizes[digest]:
                self._take_file(folder, f"blobs/sha256/{digest.hex}")

    def finish(self, wanted: str = "") -> list[tuple[ModelName, bytes]]:
        """Check that every model is whole; returns names and manifests to publish, in the archive's order.

        Raises:
            InvalidRequest: no index, a name that is missing, a blob that is neither in the archive nor in the store.
        """
        if self._index is None:
            raise InvalidRequest(
                f"the archive has no {INDEX}: it is no OCI image layout, or it was cut off"
            )
        found: list[tuple[ModelName, bytes]] = []
        for name, digest in names_of(self._index, wanted):
            self._require(name.shortest, digest, None)
            data = self._blobs.read(digest, limit_bytes=MAX_INDEX_BYTES)
            manifest = model_manifest(data, name.shortest)
            for layer in (manifest.config, *manifest.layers):
                self._hooks.hold(layer.blob)
                self._require(name.shortest, layer.blob, layer.size)
            found.append((name, data))
        return found

    def _require(self, model: str, digest: Digest, size: int | None) -> None:
        actual = self._blobs.size(digest)
        if actual is None:
            raise InvalidRequest(
                f"model {model}, blob {digest}: it is neither in the archive nor in the store; was the archive cut off?"
            )
        if size is not None and actual != size:
            raise InvalidRequest(
                f"model {model}, blob {digest}: it has {actual} bytes instead of {size}"
            )

    def _take_file(self, folder: Path, path: str) -> None:
        if path in self._seen:
            return
        self._seen.add(path)
        file = open_file(folder / path)
        with file:
            size = os.fstat(file.fileno()).st_size
            self._take(path, size, Source(file.read))

    def _take(self, path: str, size: int, source: Source) -> None:
        digest = blob_of(path)
        if digest is not None:
            self._take_blob(digest, size, source)
        elif path == INDEX:
            self._index = decode_index(_small(source.read, size, path))
            self._unread = {Digest.parse(item.digest) for item in self._index.manifests}
            for blob in list(self._unread):
                self._learn(blob)
        else:
            _small(source.read, size, path)

    def _take_blob(self, digest: Digest, size: int, source: Source) -> None:
        self._check_blob(digest, size)
        self._hooks.hold(digest)
        if self._blobs.size(digest) == size:
            _pass(source, size, str(digest))
            self._report(digest, size, size)
        else:
            self._check_room(digest, size)
            self._store(digest, size, source.read)
        self._learn(digest)

    def _check_blob(self, digest: Digest, size: int) -> None:
        """Compare with what the manifests say, as far as they have come: ours come first."""
        expected = self._sizes.get(digest)
        if expected is not None and expected != size:
            raise InvalidRequest(
                f"blob {digest}: the archive has {size} bytes, the manifest says {expected}"
            )
        is_known = expected is not None or digest in self._manifests()
        if self._index is not None and not self._unread and not is_known:
            raise InvalidRequest(f"blob {digest} of the archive belongs to no model in it")

    def _manifests(self) -> set[Digest]:
        return (
            {Digest.parse(item.digest) for item in self._index.manifests} if self._index else set()
        )

    def _check_room(self, digest: Digest, size: int) -> None:
        """Refuse at once what the disk has no room for: this blob, and the others known by now."""
        others = (
            length
            for blob, length in self._sizes.items()
            if blob != digest and self._blobs.size(blob) != length
        )
        needed = size + sum(others)
        with disk_errors("look at the model store's disk"):
            free = free_bytes(self._blobs.folder)
        if needed + _KEPT_FREE_BYTES > free:
            raise DiskFull(
                f"cannot import blob {digest}: no space left on device: "
                f"{human_bytes(needed)} are needed, {human_bytes(free)} are free"
            )

    def _store(self, digest: Digest, size: int, read: Read) -> None:
        try:
            with self._blobs.create(digest) as pending:
                while pending.size_bytes < size:
                    self._hooks.check()
                    data = read(min(CHUNK_BYTES, size - pending.size_bytes))
                    if not data:
                        raise InvalidRequest(f"the archive ends in the middle of blob {digest}")
                    pending.write(data)
                    self._report(digest, size, pending.size_bytes)
                # Noted before it appears: whatever happens then, somebody looks after it.
                self._created.add(digest)
                pending.commit()
        except DigestMismatch as exc:
            raise DigestMismatch(f"blob {digest} of the archive is damaged: {exc.message}") from exc
        except DiskFull as exc:
            with disk_errors("look at the model store's disk"):
                free = free_bytes(self._blobs.folder)
            raise DiskFull(
                f"blob {digest}: {exc.message}: {human_bytes(size)} are needed, {human_bytes(free)} are free"
            ) from exc
        except StoreError as exc:
            raise StoreError(f"blob {digest}: {exc.message}") from exc

    def _learn(self, digest: Digest) -> None:
        """Read a manifest that has come, for the sizes and digests of what follows."""
        if digest not in self._unread or self._blobs.size(digest) is None:
            return
        data = self._blobs.read(digest, limit_bytes=MAX_INDEX_BYTES)
        manifest: Manifest = model_manifest(data, str(digest))
        self._unread.discard(digest)
        self._sizes |= {layer.blob: layer.size for layer in (manifest.config, *manifest.layers)}

    def _report(self, digest: Digest, total: int, completed: int) -> None:
        now = time.monotonic()
        if completed >= total or now - self._reported_s >= REPORT_S:
            self._reported_s = now
            self._hooks.report(f"importing {digest.hex[:12]}", str(digest), total, completed)


def _checked_path(name: str, *, is_folder: bool) -> str:
    """Match a member's name against what a layout may have; never used as a path of the file system."""
    path = name.removeprefix("./")
    if is_folder:
        if path.rstrip("/") in _FOLDERS:
            return path
    elif path in (INDEX, LAYOUT) or path in _IGNORED or blob_of(path) is not None:
        return path
    raise InvalidRequest(f"the archive has {name[:200]!a}, which is no part of an OCI image layout")


def _small(read: Read, size: int, path: str) -> bytes:
    if size > MAX_INDEX_BYTES:
        raise InvalidRequest(f"the archive's {path} has {size} bytes, more than {MAX_INDEX_BYTES}")
    data = read(size) if size else b""
    if len(data) < size:
        raise InvalidRequest(f"the archive ends in the middle of {path}")
    return data


def _pass(source: Source, size: int, what: str) -> None:
    """Pass over bytes."""
    if source.skip is not None:
        source.skip(size)
        return
    while size:
        data = source.read(min(size, CHUNK_BYTES))
        if not data:
            raise InvalidRequest(f"the archive ends in the middle of {what}")
        size -= len(data)


# -- sources ---------------------------------------------------------------------------------------------------------


def open_file(path: Path) -> IO[bytes]:
    """Open a file of an archive. Raises InvalidRequest for what is no plain file, StoreError."""
    with disk_errors(f"read {path}"):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise InvalidRequest(f"{path} is not a plain file")
        return open(fd, "rb", buffering=0)


class _Exact:
    """Makes reads whole: fewer bytes than asked for come only at the end. Looks at the first few beforehand."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._pending = b""

    def peek(self, size: int) -> bytes:
        head = self.read(size)
        self._pending = head + self._pending
        return head

    def read(self, size: int = -1) -> bytes:
        parts, left = [], size if size >= 0 else CHUNK_BYTES
        while left:
            data, self._pending = (self._pending, b"") if self._pending else (self._read(left), b"")
            if not data:
                break
            if len(data) > left:
                data, self._pending = data[:left], data[left:]
            parts.append(data)
            left -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def plain_reader(read: Read, file: IO[bytes] | None = None) -> Source:
    """Read an archive, decompressing zstd where it is that.

    Args:
        file: what `read` reads from, when that is a file in which one can skip.
    """
    exact = _Exact(read)
    if exact.peek(len(ZSTD_MAGIC)) != ZSTD_MAGIC:
        if file is None:
            return Source(exact.read)
        file.seek(0)
        return Source(_Exact(file.read).read, _Skipper(file).skip)
    import zstandard  # 22 ms; see `exporting.compressed`

    packed = cast("IO[bytes]", exact)  # only `read` is called
    plain = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).stream_reader(
        packed, read_size=CHUNK_BYTES, read_across_frames=True
    )

    def checked(size: int) -> bytes:
        try:
            return plain.read(size)
        except zstandard.ZstdError as exc:
            raise InvalidRequest(f"the archive is damaged: {exc}") from exc

    return Source(_Exact(checked).read)


class _Skipper:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size

    def skip(self, size: int) -> None:
        if self._file.tell() + size > self._size:
            raise InvalidRequest("the archive ends in the middle of a member")
        self._file.seek(size, os.SEEK_CUR)
