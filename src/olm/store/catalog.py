"""What models a store has: manifests with their configs, cached by what `stat` says of each file.

A second look at an unchanged store costs one `stat` a model and a folder, and reads nothing, in a new process too: what
was read is kept on disk (`snapshot`). No weights are opened here.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import msgspec

from olm.errors import CorruptStore, StoreError
from olm.store import tree
from olm.store.blobs import BlobStore
from olm.store.manifests import (
    ImageConfig,
    Manifest,
    ManifestFile,
    ManifestStore,
    decode_manifest,
)
from olm.store.names import Digest, ModelName
from olm.store.snapshot import Kept, read_snapshot, write_snapshot

__all__ = ["Catalog", "Entry"]

_MAX_CONFIG_BYTES = 1 << 20
_WORTH_SAVING = 16
"""So many new entries are worth a write while the store is open; the rest waits for its end."""
_log = logging.getLogger(__name__)


@attrs.frozen
class Entry:
    """One model as its manifest says. `digest` is the manifest file's SHA-256, 64 hex digits."""

    name: ModelName
    digest: str
    modified_ns: int
    manifest: Manifest
    data: bytes = attrs.field(repr=False)
    """The manifest byte for byte, as copies keep it."""


@attrs.frozen
class _Known:
    """An entry in memory. `is_settled`: the file's stamp tells every later change."""

    stamp: tuple[int, int, int, int]
    is_settled: bool
    entry: Entry


class Catalog:
    """The models of one store. Not thread safe: its owner calls it from one thread at a time."""

    def __init__(
        self,
        manifests: ManifestStore,
        blobs: BlobStore,
        kept: Path | None = None,
        *,
        go_template: bool | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`kept`: the file with what was read before; None to read everything. `go_template`: OLM_GO_TEMPLATE."""
        self._manifests = manifests
        self._tree = tree.ManifestTree(manifests, clock_ns)
        self._blobs = blobs
        self._path = kept
        self._go_template = go_template
        self._clock_ns = clock_ns
        self._entries: dict[ModelName, _Known] = {}
        self._configs: dict[str, ImageConfig] = {}
        self._capabilities: dict[str, tuple[str, ...]] = {}
        self._n_learnt = 0
        self._kept = read_snapshot(kept, go_template=go_template) if kept is not None else {}

    def entries(self) -> list[Entry]:
        """All readable models, newest first; damaged manifests are logged and left out. Raises StoreError."""
        return self._read_all(strict=False)

    def entries_or_raise(self) -> list[Entry]:
        """All models; raises CorruptStore if one may be there that cannot be read, so that nothing it needs is pruned."""
        return self._read_all(strict=True)

    def _read_all(self, *, strict: bool) -> list[Entry]:
        found: list[Entry] = []
        for file in self._tree.walk(strict=strict):
            try:
                entry = self._entry(file)
            except CorruptStore as exc:
                if strict:
                    raise
                _log.warning("%s", exc)
                continue
            if entry is not None:
                found.append(entry)
        known = {entry.name for entry in found}
        self._entries = {name: item for name, item in self._entries.items() if name in known}
        return sorted(found, key=lambda e: (-e.modified_ns, e.name.shortest))

    def names(self) -> Sequence[ModelName]:
        """The names of all manifests, readable or not."""
        return self._tree.names()

    def file(self, name: ModelName) -> ManifestFile | None:
        """The manifest of that name, ignoring case, readable or not. Looks at the folders on its way and no others."""
        return self._tree.find(name)

    def find(self, name: ModelName) -> Entry | None:
        """Look a model up: the exact name first, then ignoring case.

        Raises:
            CorruptStore: its manifest is damaged.
        """
        file = self._tree.find(name)
        return None if file is None else self._entry(file)

    def in_stored_case(self, name: ModelName) -> ModelName:
        """The name under which a model is, or would be, stored."""
        file = self._tree.find(name)
        if file is None:
            return name.in_stored_case(self.names())
        return attrs.evolve(file.name, scheme=name.scheme)

    def config(self, entry: Entry) -> ImageConfig:
        """The config blob of a model. Raises CorruptStore when it is missing or damaged."""
        digest = entry.manifest.config.digest
        config = self._configs.get(digest)
        if config is None:
            data = self._blobs.read(Digest.parse(digest), limit_bytes=_MAX_CONFIG_BYTES)
            try:
                config = msgspec.json.decode(data, type=ImageConfig)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
                raise CorruptStore(
                    f"the config of {entry.name.shortest} is damaged: {exc}"
                ) from exc
            self._configs[digest] = config
        return config

    def capabilities(
        self, entry: Entry, work_out: Callable[[], tuple[str, ...]]
    ) -> tuple[str, ...]:
        """What a model can do, worked out once for each manifest: blobs never change."""
        found = self._capabilities.get(entry.digest)
        if found is None:
            found = self._capabilities[entry.digest] = work_out()
            self._n_learnt += 1
        return found

    def save(self, *, at_end: bool = False) -> None:
        """Keep what was read for the next process, if that is worth a write. Raises DiskFull, StoreError."""
        if self._path is None or self._n_learnt < (1 if at_end else _WORTH_SAVING):
            return
        settled = {name: item for name, item in self._entries.items() if item.is_settled}
        kept = {str(name): self._keep(item) for name, item in settled.items()}
        write_snapshot(self._path, kept, go_template=self._go_template)
        self._n_learnt = 0

    def _keep(self, item: _Known) -> Kept:
        entry = item.entry
        config = self._configs.get(entry.manifest.config.digest)
        capabilities = self._capabilities.get(entry.digest)
        return Kept(item.stamp, entry.digest, entry.data, entry.manifest, config, capabilities)

    def _entry(self, file: ManifestFile) -> Entry | None:
        """The entry of a manifest; None when it was removed since it was looked at. Raises CorruptStore, StoreError."""
        known = self._entries.get(file.name)
        if known is not None and known.is_settled and known.stamp == file.stamp:
            return known.entry
        kept = self._kept.get(str(file.name))
        if kept is not None and kept.stamp == file.stamp:
            return self._recall(file, kept)
        is_settled = self._clock_ns() - file.changed_ns > tree.RACY_NS
        try:
            data = self._manifests.read(file)
        except StoreError as exc:
            if isinstance(exc.__cause__, FileNotFoundError):
                return None
            raise
        digest = hashlib.sha256(data).hexdigest()
        try:
            manifest = decode_manifest(data)
        except CorruptStore as exc:
            raise CorruptStore(f"model '{file.name.shortest}': {exc}") from exc
        entry = Entry(file.name, digest, file.modified_ns, manifest, data)
        self._entries[file.name] = _Known(file.stamp, is_settled, entry)
        self._n_learnt += is_settled
        return entry

    def _recall(self, file: ManifestFile, kept: Kept) -> Entry:
        entry = Entry(file.name, kept.digest, file.modified_ns, kept.manifest, kept.data)
        self._entries[file.name] = _Known(file.stamp, True, entry)
        if kept.config is not None:
            self._configs.setdefault(kept.manifest.config.digest, kept.config)
        if kept.capabilities is not None:
            self._capabilities.setdefault(kept.digest, kept.capabilities)
        return entry
