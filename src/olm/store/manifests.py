"""Manifests on disk: `manifests/<host>/<namespace>/<model>/<tag>`, their structure and the config they point to.

Decoding is typed and bounded; unknown fields are let pass, since newer versions of Ollama and other tools add some.
A manifest that was written by somebody else is kept byte for byte: its digest is the digest of the file.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs
import msgspec

from olm.errors import CorruptStore, InvalidName, StoreError
from olm.store.disk import disk_errors, fsync_dir, make_dirs, read_small, write_durably
from olm.store.names import Digest, ModelName

__all__ = [
    "ADAPTER",
    "DRAFT",
    "LICENSE",
    "MANIFEST_TYPE",
    "MESSAGES",
    "MODEL",
    "PARAMS",
    "PROJECTOR",
    "PROMPT",
    "SYSTEM",
    "TEMPLATE",
    "Draft",
    "ImageConfig",
    "Layer",
    "Manifest",
    "ManifestFile",
    "ManifestStore",
    "config_layer",
    "decode_manifest",
    "encode_manifest",
]

MANIFEST_TYPE: Final = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG_TYPE: Final = "application/vnd.docker.container.image.v1+json"
_IMAGE: Final = "application/vnd.ollama.image."
MODEL: Final = _IMAGE + "model"
PROJECTOR: Final = _IMAGE + "projector"
ADAPTER: Final = _IMAGE + "adapter"
DRAFT: Final = _IMAGE + "draft"
TEMPLATE: Final = _IMAGE + "template"
PROMPT: Final = _IMAGE + "prompt"
SYSTEM: Final = _IMAGE + "system"
PARAMS: Final = _IMAGE + "params"
MESSAGES: Final = _IMAGE + "messages"
LICENSE: Final = _IMAGE + "license"

_MAX_MANIFEST_BYTES: Final = 4 << 20
_ABSENT: Final = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_MAX_LAYERS: Final = 10_000  # models of many small tensors have thousands


class Layer(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    rename={"media_type": "mediaType", "from_": "from"},
):
    """A blob and what it is for. `from_` names the model it was inherited from; `name` a tensor or file."""

    media_type: str
    digest: str
    size: int
    from_: str = ""
    name: str = ""

    @property
    def blob(self) -> Digest:
        """The digest, checked. Raises InvalidName; a decoded manifest's are known to be good."""
        return Digest.parse(self.digest)


class Manifest(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename={"schema_version": "schemaVersion", "media_type": "mediaType"},
):
    """An OCI-like manifest with Ollama's media types. Field order is the order on disk."""

    schema_version: int
    media_type: str = MANIFEST_TYPE  # OCI lets manifests leave it out
    config: Layer
    layers: tuple[Layer, ...] = ()

    @property
    def size_bytes(self) -> int:
        """The sum over config and layers, as `list` shows it."""
        return self.config.size + sum(layer.size for layer in self.layers)

    def blobs(self) -> set[Digest]:
        """Every blob the manifest needs."""
        return {layer.blob for layer in (self.config, *self.layers)}

    def of_type(self, media_type: str) -> tuple[Layer, ...]:
        """The layers of one media type, in order."""
        return tuple(layer for layer in self.layers if layer.media_type == media_type)


class Draft(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the config says of a draft model's layer."""

    model_format: str = ""
    architecture: str = ""
    tensor_prefix: str = ""
    config: object = None


class ImageConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """The config blob: what `details` shows, and what the model asks of its server (spec/ollama §6.2)."""

    model_format: str = ""
    model_family: str = ""
    model_families: tuple[str, ...] | None = None
    model_type: str = ""
    file_type: str = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    capabilities: tuple[str, ...] | None = None
    context_length: int = 0
    embedding_length: int = 0
    base_name: str = ""
    draft: Draft | None = None
    architecture: str = ""
    os: str = ""


def config_layer(digest: Digest, size_bytes: int) -> Layer:
    """The manifest's entry for a config blob."""
    return Layer(_CONFIG_TYPE, str(digest), size_bytes)


def encode_manifest(config: Layer, layers: Sequence[Layer]) -> bytes:
    """Write a manifest as Ollama does: compact JSON and a newline."""
    return (
        msgspec.json.encode(Manifest(schema_version=2, config=config, layers=tuple(layers))) + b"\n"
    )


def decode_manifest(data: bytes) -> Manifest:
    """Read and check a manifest.

    Raises:
        CorruptStore: not JSON of that shape, a digest that is none, a negative size, too many layers.
    """
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
        for layer in (manifest.config, *manifest.layers):
            if layer.size < 0:
                raise CorruptStore(f"a manifest in the store has a layer of {layer.size} bytes")
            Digest.parse(layer.digest)
    except (msgspec.MsgspecError, UnicodeDecodeError, InvalidName, RecursionError) as exc:
        raise CorruptStore(f"a manifest in the store is damaged: {exc}") from exc
    if len(manifest.layers) > _MAX_LAYERS:
        raise CorruptStore(f"a manifest in the store has {len(manifest.layers)} layers")
    return manifest


@attrs.frozen
class ManifestFile:
    """A manifest's place: its name and what `stat` says, which is enough to know whether it changed.

    Attributes:
        where: its path, as text: a thousand `Path`s would take longer to make than to look up.
    """

    name: ModelName
    where: str
    modified_ns: int
    changed_ns: int
    size_bytes: int
    inode: int

    @classmethod
    def look(cls, name: ModelName, where: str) -> ManifestFile | None:
        """Look at one; None when there is no plain file. Raises OSError."""
        try:
            status = os.lstat(where)
        except OSError as exc:
            if exc.errno in _ABSENT:
                return None
            raise
        if not stat.S_ISREG(status.st_mode):
            return None
        return cls(
            name, where, status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
        )

    @property
    def path(self) -> Path:
        """Its path."""
        return Path(self.where)

    @property
    def stamp(self) -> tuple[int, int, int, int]:
        """Changes when the file does, unless that is within the clock's grain (`tree.RACY_NS`)."""
        return (self.modified_ns, self.changed_ns, self.size_bytes, self.inode)


@attrs.frozen
class ManifestStore:
    """The folder `manifests` of a store. Holds no state; writers are serialised by the caller."""

    folder: Path

    def path(self, name: ModelName) -> Path:
        """Where a manifest is, whether or not it is there."""
        return self.folder.joinpath(*name.parts)

    def find(self, name: ModelName) -> ManifestFile | None:
        """Stat one manifest by its exact name; None when it is not there."""
        with disk_errors("read the model store"):
            return ManifestFile.look(name, str(self.path(name)))

    def read(self, file: ManifestFile) -> bytes:
        """The bytes of a manifest. Raises CorruptStore, StoreError."""
        with disk_errors(f"read the manifest of {file.name.shortest}"):
            return read_small(file.path, _MAX_MANIFEST_BYTES)

    def write(self, name: ModelName, data: bytes) -> None:
        """Create or replace a manifest durably. Raises DiskFull, StoreError."""
        path = self.path(name)
        try:
            with disk_errors(f"write the manifest of {name.shortest}"):
                make_dirs(path.parent, self.folder)
                write_durably(path, data)
        except StoreError:
            _remove_empty(path.parents[:3])
            raise

    def remove(self, name: ModelName) -> None:
        """Remove a manifest durably, and the folders that became empty. Raises StoreError."""
        path = self.path(name)
        with disk_errors(f"remove the manifest of {name.shortest}"):
            path.unlink()
            fsync_dir(path.parent)
        _remove_empty(path.parents[:3])

    def remove_empty_folders(self) -> None:
        """Remove folders without a manifest, as left by an interrupted delete."""
        for path, _, _ in os.walk(self.folder, topdown=False):
            if Path(path) != self.folder:
                with suppress(OSError):
                    os.rmdir(path)


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # not empty: another tag or model lives there
            folder.rmdir()
