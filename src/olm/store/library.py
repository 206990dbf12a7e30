"""One store as a whole: open and lock it, look models up, publish, copy and delete them. Blocking, one owner.

Reading of blobs and writing of new ones needs no owner (`BlobStore`); everything that changes names goes through
here, called from one thread at a time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import attrs

from olm.errors import CorruptStore, DiskFull, InvalidName, ModelNotFound, StoreError
from olm.gguf import ModelFacts
from olm.store.blobs import BlobStore
from olm.store.builtin import ensure_builtin, note_removed
from olm.store.capabilities import Sources, capabilities
from olm.store.catalog import Catalog, Entry
from olm.store.disk import StoreLock, disk_errors, fsync_dir, make_dirs
from olm.store.gc import Janitor, maintain
from olm.store.index import FactsIndex
from olm.store.manifests import (
    MODEL,
    PROJECTOR,
    PROMPT,
    TEMPLATE,
    ImageConfig,
    ManifestStore,
    decode_manifest,
)
from olm.store.model import Listed, Model, has_files, read_model
from olm.store.names import ModelName
from olm.store.splits import sweep_views, view

__all__ = ["Library"]

_log = logging.getLogger(__name__)


class Library:
    """An open store. Not thread safe: its owner calls it from one thread at a time."""

    def __init__(
        self,
        root: Path,
        lock: StoreLock | None,
        *,
        noprune: bool,
        go_template: bool | None = None,
    ) -> None:
        """Private: use `open`."""
        self.root = root
        self.blobs = BlobStore(root / "blobs")
        self.manifests = ManifestStore(root / "manifests")
        self.catalog = Catalog(
            self.manifests, self.blobs, root / "olm-catalog.bin", go_template=go_template
        )
        self.index = FactsIndex(root / "olm-index.json", self.blobs)
        self.janitor = Janitor(self.blobs, self.catalog)
        self._models: dict[ModelName, Model] = {}
        self._lock = lock
        self._noprune = noprune
        self._go_template = go_template

    @classmethod
    def open(
        cls,
        root: Path,
        *,
        noprune: bool = False,
        builtin: bool = True,
        go_template: bool | None = None,
    ) -> Library:
        """Open a store for a daemon: create its folders, lock it, put it in order, add the built-in model.

        Args:
            root: the store's folder; made if it is missing.
            noprune: leave unreferenced blobs alone (OLLAMA_NOPRUNE).
            builtin: make the built-in model present.
            go_template: OLLAMA_GO_TEMPLATE: whether Go templates are used where there are any; None: by what they offer.

        Raises:
            StoreLocked: another daemon has it.
            DiskFull, StoreError: it cannot be written.
        """
        with disk_errors(f"use the model store {root}"):
            _make_folders(root)
        lock = StoreLock(root)
        try:
            library = cls(root, lock, noprune=noprune, go_template=go_template)
            if builtin:
                ensure_builtin(root, library.blobs, library.manifests)
            maintain(
                library.manifests,
                library.blobs,
                library.catalog,
                prune=not noprune,
                now_s=time.time(),
            )
            sweep_views(library.blobs.folder)
        except BaseException:
            lock.close()
            raise
        return library

    @classmethod
    def look(cls, root: Path, *, locked: bool = False, go_template: bool | None = None) -> Library:
        """Open a store as it is, without changing anything.

        Args:
            locked: hold its lock, so that it may be changed. Without it the disk has to refuse what would change it.
            go_template: see `open`.

        Raises:
            StoreLocked, DiskFull, StoreError: it cannot be locked.
        """
        lock = StoreLock(root) if locked else None
        return cls(root, lock, noprune=True, go_template=go_template)

    def close(self) -> None:
        """Save what was learnt and let the lock go. Raises nothing for a full disk: the index is only a cache."""
        if self._lock is not None:
            self.save_index(at_end=True)
            self._lock.close()
            self._lock = None

    def save_index(self, *, at_end: bool = False) -> None:
        """Write what was learnt, if it is worth a write; it is only a cache, so a disk that says no is logged and borne."""
        try:
            self.index.save()
            self.catalog.save(at_end=at_end)
        except StoreError as exc:
            _log.warning("%s", exc)

    # -- reading -----------------------------------------------------------------------------------------------------

    def list(self) -> Sequence[Listed]:
        """All models, newest first, with what is known of their weights. Raises StoreError."""
        listed = [self._listed(entry) for entry in self.catalog.entries()]
        if self._lock is not None:
            self.save_index()
        return listed

    def find(self, name: str) -> Entry | None:
        """Look a name up, ignoring case. Raises InvalidName, CorruptStore."""
        return self.catalog.find(ModelName.parse(name))

    def get(self, name: str) -> Model:
        """Resolve a model to its files and facts.

        Raises:
            InvalidName, CorruptStore, GgufError, NotYetSupported.
            ModelNotFound: `model 'x' not found`.
        """
        entry = self.find(name)
        if entry is None:
            raise ModelNotFound(f"model '{name}' not found")
        known = self._models.get(entry.name)
        if known is None or known.entry != entry or not has_files(known, self.blobs):
            known = read_model(
                entry,
                self.catalog.config(entry),
                self.blobs,
                self.index,
                go_template=self._go_template,
            )
            self._models[entry.name] = known
        if known.parts and self._lock is not None:
            return attrs.evolve(known, weights=view(self.blobs.folder, known.parts))
        return known

    def _listed(self, entry: Entry) -> Listed:
        try:
            config = self.catalog.config(entry)
        except CorruptStore:
            return Listed(entry, None, None, ())
        weights = entry.manifest.of_type(MODEL)
        facts = self.index.weights_or_none(weights[0].blob) if weights else None
        if facts is None:
            return Listed(entry, config, None, tuple(config.capabilities or ()))
        what = self.catalog.capabilities(entry, partial(self._capabilities, entry, config, facts))
        return Listed(entry, config, facts, what)

    def _capabilities(
        self, entry: Entry, config: ImageConfig, facts: ModelFacts
    ) -> tuple[str, ...]:
        templates = entry.manifest.of_type(TEMPLATE) or entry.manifest.of_type(PROMPT)
        projectors = [
            found
            for layer in entry.manifest.of_type(PROJECTOR)
            if (found := self.index.weights_or_none(layer.blob)) is not None
        ]
        try:
            template = self.index.template(templates[-1].blob) if templates else None
        except CorruptStore:
            template = None
        sources = Sources(
            config=config,
            facts=facts,
            template=template,
            projectors=projectors,
            go_template=self._go_template,
        )
        return capabilities(sources)

    # -- changing ----------------------------------------------------------------------------------------------------

    def publish(self, name: ModelName, data: bytes) -> ModelName:
        """Put a manifest under a name, replacing what is there; blobs only the old one needed go.

        Returns the name in its stored case.

        Raises:
            CorruptStore: it is no manifest, or a blob of it is missing: another program may prune what we hold.
            DiskFull, StoreError: the disk said no. In all cases the old manifest stays.
        """
        manifest = decode_manifest(data)
        for digest in (layer.blob for layer in (manifest.config, *manifest.layers)):
            if self.blobs.size(digest) is None:
                raise CorruptStore(
                    f"model '{name.shortest}': blob {digest} is missing from the store"
                )
        with disk_errors("write to the model store"):
            # Whoever brought the blobs may have died, or failed, between their names and the sync of these.
            fsync_dir(self.blobs.folder)
        return self._put_name(name, data)

    def _put_name(self, name: ModelName, data: bytes) -> ModelName:
        stored = self.catalog.in_stored_case(name)
        try:
            old = self.catalog.find(stored)
        except CorruptStore:
            old = None  # replacing a damaged manifest is how a user repairs it
        self.manifests.write(stored, data)
        self.janitor.settle_all(decode_manifest(data).blobs())
        if old is not None and not self._noprune:
            self.janitor.prune(old.manifest.blobs())
        return stored

    def copy(self, source: str, destination: str) -> None:
        """Give a model a second name: the manifest is copied byte for byte.

        Raises:
            InvalidName: `source "x" is invalid`, `destination "x" is invalid`.
            ModelNotFound: `model "x" not found`.
            DiskFull, StoreError.
        """
        origin = _parse(source, f'source "{source}" is invalid')
        target = _parse(destination, f'destination "{destination}" is invalid')
        entry = self.catalog.find(origin)
        if entry is None:
            raise ModelNotFound(f'model "{source}" not found')
        if not target.same_as(entry.name):
            self._put_name(target, entry.data)

    def delete(self, name: str) -> None:
        """Remove a name and the blobs that nothing else needs.

        Raises:
            InvalidName: `name "x" is invalid`.
            ModelNotFound: `model 'x' not found`.
            StoreError.
        """
        wanted = _parse(name, f'name "{name}" is invalid')
        file = self.catalog.file(wanted)
        if file is None:
            raise ModelNotFound(f"model '{name}' not found")
        stored = file.name
        try:
            entry = self.catalog.find(stored)
        except CorruptStore:
            entry = None  # a damaged model can be deleted; its blobs are found at the next start
        # Noted first: stopped in between, the next start does not bring the built-in model back.
        is_noted = self._note_removed(stored)
        self.manifests.remove(stored)
        self._models.pop(stored, None)
        if entry is not None:
            self.janitor.prune(entry.manifest.blobs())
        if not is_noted and not self._note_removed(stored):
            _log.warning("the disk is full: %s will be back at the next start", stored.shortest)

    def _note_removed(self, name: ModelName) -> bool:
        """False on a full disk: deleting is how people make room, so that must not stand in its way."""
        try:
            note_removed(self.root, name)
        except DiskFull:
            return False
        return True


def _make_folders(root: Path) -> None:
    """Make the store's folders, and see that their names are on disk: a start before may have died between the two."""
    for folder in (root / "blobs", root / "manifests"):
        make_dirs(folder, Path(root.anchor))
    with suppress(PermissionError):  # the folder above may be nobody's business of ours
        fsync_dir(root.absolute().parent)
    for folder in (root, root / "blobs"):
        fsync_dir(folder)


def _parse(text: str, message: str) -> ModelName:
    try:
        return ModelName.parse(text)
    except InvalidName as exc:
        raise InvalidName(message) from exc
