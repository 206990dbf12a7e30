"""What models a store has: manifests with their configs, cached in memory by what `stat` says of each file.

A second look at an unchanged store costs one `stat` a model and reads nothing. No weights are opened here.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

import attrs
import msgspec

from olm.errors import CorruptStore
from olm.store.blobs import BlobStore
from olm.store.manifests import (
    ImageConfig,
    Manifest,
    ManifestFile,
    ManifestStore,
    decode_manifest,
)
from olm.store.names import Digest, ModelName

__all__ = ["Catalog", "Entry"]

_MAX_CONFIG_BYTES = 1 << 20
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


class Catalog:
    """The models of one store. Not thread safe: its owner calls it from one thread at a time."""

    def __init__(self, manifests: ManifestStore, blobs: BlobStore) -> None:
        self._manifests = manifests
        self._blobs = blobs
        self._entries: dict[ModelName, tuple[tuple[int, int, int], Entry]] = {}
        self._configs: dict[str, ImageConfig] = {}

    def entries(self) -> list[Entry]:
        """All readable models, newest first; damaged manifests are logged and left out. Raises StoreError."""
        return self._read_all(strict=False)

    def entries_or_raise(self) -> list[Entry]:
        """All models; raises CorruptStore if one manifest is damaged, so that nothing it may need is pruned."""
        return self._read_all(strict=True)

    def _read_all(self, *, strict: bool) -> list[Entry]:
        found: list[Entry] = []
        for file in self._manifests.walk():
            try:
                found.append(self._entry(file))
            except CorruptStore as exc:
                if strict:
                    raise
                _log.warning("%s: %s", file.name, exc)
        known = {entry.name for entry in found}
        self._entries = {name: item for name, item in self._entries.items() if name in known}
        return sorted(found, key=lambda e: (-e.modified_ns, e.name.shortest))

    def names(self) -> Sequence[ModelName]:
        """The names of all manifests, readable or not."""
        return [file.name for file in self._manifests.walk()]

    def find(self, name: ModelName) -> Entry | None:
        """Look a model up: the exact name first, without a walk, then ignoring case.

        Raises:
            CorruptStore: its manifest is damaged.
        """
        file = self._manifests.find(name)
        if file is None:
            stored = self.in_stored_case(name)
            file = self._manifests.find(stored) if stored != name else None
        return None if file is None else self._entry(file)

    def in_stored_case(self, name: ModelName) -> ModelName:
        """The name under which a model is, or would be, stored."""
        return name.in_stored_case(self.names())

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

    def _entry(self, file: ManifestFile) -> Entry:
        cached = self._entries.get(file.name)
        if cached is not None and cached[0] == file.stamp:
            return cached[1]
        data = self._manifests.read(file)
        entry = Entry(
            file.name,
            hashlib.sha256(data).hexdigest(),
            file.modified_ns,
            decode_manifest(data),
            data,
        )
        self._entries[file.name] = (file.stamp, entry)
        return entry
