"""The built-in model `tiny`: made present in every store from the package's own files, and left away once removed.

`olm-builtin.json` in the store remembers which manifest we installed and whether the user removed it, so that
`olm rm tiny` sticks, a user's own model called tiny is never touched, and a newer package replaces our older one.
"""

from __future__ import annotations

import logging
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec

from olm.errors import CorruptStore
from olm.store.blobs import BlobStore
from olm.store.disk import disk_errors, read_small, write_durably
from olm.store.manifests import Layer, ManifestStore, config_layer, decode_manifest, encode_manifest
from olm.store.names import Digest, ModelName

__all__ = ["BUILTIN", "ensure_builtin", "note_removed"]

BUILTIN: Final = ModelName.parse("tiny")
_STATE: Final = "olm-builtin.json"
_log = logging.getLogger(__name__)


class _File(msgspec.Struct):
    file: str
    media_type: str = msgspec.field(name="mediaType")
    digest: str = ""
    size: int = 0


class _Description(msgspec.Struct):
    """`model.json` of the package data."""

    name: str
    config: msgspec.Raw
    layers: list[_File]


class _State(msgspec.Struct, omit_defaults=True):
    installed: str = ""
    older: str = ""
    removed: bool = False


def ensure_builtin(root: Path, blobs: BlobStore, manifests: ManifestStore) -> bool:
    """Make the built-in model present, unless the user removed it or has one of that name; True if it was written.

    When it is there already this reads three small files and hashes nothing but a manifest.

    Raises:
        DiskFull, StoreError: the store cannot be written.
    """
    package = resources.files("olm.data.tiny")
    description = msgspec.json.decode(
        package.joinpath("model.json").read_bytes(), type=_Description
    )
    name = ModelName.parse(description.name)
    state = _read_state(root)
    file = manifests.find(name)
    if state.removed and file is None:
        return False
    config = msgspec.json.encode(msgspec.json.decode(description.config))
    layers = [Layer(item.media_type, item.digest, item.size) for item in description.layers]
    data = encode_manifest(config_layer(Digest.of(config), len(config)), layers)
    if file is not None:
        current = manifests.read(file)
        ours = Digest.of(current).hex in (state.installed, state.older)
        if not ours or (current == data and _is_complete(data, blobs)):
            return False
    blobs.put(config)
    for item, layer in zip(description.layers, layers, strict=True):
        if blobs.size(layer.blob) != layer.size:
            with blobs.create(layer.blob) as pending:
                pending.write(package.joinpath(item.file).read_bytes())
                pending.commit()
    # Noted first: stopped in between, the next start finds no model, or an older one of ours, and goes on.
    _write_state(root, _State(installed=Digest.of(data).hex, older=state.installed))
    manifests.write(name, data)
    _log.info("the built-in model %s is in the store", name.shortest)
    return True


def _is_complete(data: bytes, blobs: BlobStore) -> bool:
    manifest = decode_manifest(data)
    return all(
        blobs.size(layer.blob) == layer.size for layer in (manifest.config, *manifest.layers)
    )


def note_removed(root: Path, name: ModelName) -> None:
    """Remember that the user removed the built-in model, if `name` is it. Raises DiskFull, StoreError."""
    if name.same_as(BUILTIN):
        _write_state(root, _State(removed=True))


def _read_state(root: Path) -> _State:
    try:
        return msgspec.json.decode(read_small(root / _STATE, 1 << 16), type=_State)
    except FileNotFoundError:
        return _State()
    except (OSError, CorruptStore, msgspec.MsgspecError, ValueError, RecursionError) as exc:
        _log.warning("%s cannot be read: %s", _STATE, exc)
        return _State()


def _write_state(root: Path, state: _State) -> None:
    with disk_errors("write to the model store"):
        write_durably(root / _STATE, msgspec.json.encode(state))
