"""Facts of weights and templates, remembered by digest in memory and in `olm-index.json`.

Blobs never change, so a fact once read is true for ever; reading the header of a model with a large vocabulary takes
some 50 ms, which `list` must not pay for every model after every start. The file is a cache: a damaged or missing
one costs a second reading and nothing else.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import msgspec

from olm.errors import CorruptStore, GgufError
from olm.gguf import ModelFacts, facts_of, read_header
from olm.store.blobs import BlobStore
from olm.store.capabilities import TemplateFacts, template_facts
from olm.store.disk import disk_errors, read_small, write_durably
from olm.store.names import Digest

__all__ = ["FactsIndex"]

_VERSION: Final = 3  # raise it when facts are worked out differently
_MAX_INDEX_BYTES: Final = 64 << 20
_MAX_FACTS: Final = 20_000  # beyond it the index starts afresh rather than grow for ever
_log = logging.getLogger(__name__)


class _File(msgspec.Struct, omit_defaults=True):
    version: int = 0
    weights: dict[str, ModelFacts] = {}
    templates: dict[str, TemplateFacts] = {}


class FactsIndex:
    """The facts of one store. Not thread safe: called from one thread at a time."""

    def __init__(self, path: Path, blobs: BlobStore) -> None:
        self._path = path
        self._blobs = blobs
        self._file = _load(path)
        self._is_dirty = False

    def weights(self, digest: Digest) -> ModelFacts:
        """The facts of a GGUF blob, reading its header at most once.

        Raises:
            GgufError: it is no sound GGUF.
            CorruptStore: it is not in the store.
        """
        found = self._file.weights.get(digest.hex)
        if found is None:
            if self._blobs.size(digest) is None:
                raise CorruptStore(f"blob {digest} is missing from the store")
            with disk_errors("read a model's header"):
                found = facts_of(read_header(self._blobs.path(digest)))
            self.learn(digest, found)
        return found

    def learn(self, digest: Digest, facts: ModelFacts) -> None:
        """Take facts that somebody else read from the blob's header."""
        if digest.hex not in self._file.weights:
            self._remember()
            self._file.weights[digest.hex] = facts

    def weights_or_none(self, digest: Digest) -> ModelFacts | None:
        """The facts of a GGUF blob; None when it is damaged or missing, for lists that must not fail over one."""
        try:
            return self.weights(digest)
        except (GgufError, CorruptStore) as exc:
            _log.debug("%s: %s", digest, exc)
            return None

    def template(self, digest: Digest) -> TemplateFacts:
        """What a Go template layer can do. Raises CorruptStore when the blob is missing."""
        found = self._file.templates.get(digest.hex)
        if found is None:
            found = template_facts(self._blobs.read(digest).decode(errors="replace"))
            self._remember()
            self._file.templates[digest.hex] = found
        return found

    def _remember(self) -> None:
        self._is_dirty = True
        if len(self._file.weights) + len(self._file.templates) >= _MAX_FACTS:
            self._file = _File(version=_VERSION)

    def save(self) -> None:
        """Write the index if something new was learnt. Raises StoreError, DiskFull."""
        if self._is_dirty:
            with disk_errors("write the store's index"):
                write_durably(self._path, msgspec.json.encode(self._file))
            self._is_dirty = False


def _load(path: Path) -> _File:
    try:
        file = msgspec.json.decode(read_small(path, _MAX_INDEX_BYTES), type=_File)
        if file.version == _VERSION:
            return file
    except FileNotFoundError:
        pass
    except (OSError, CorruptStore, msgspec.MsgspecError, ValueError, RecursionError) as exc:
        _log.warning("the store's index is read afresh: %s", exc)
    return _File(version=_VERSION, weights={}, templates={})
