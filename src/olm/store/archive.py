"""What an exported model looks like: an OCI image layout, its members in order, and the way back from it. Pure.

    oci-layout, index.json, blobs/sha256/<hex>: the manifests, then the configs, then the layers, each once

Manifests stay as they are, so a model has the same digest on the other side. Source: OCI image-spec 1.1,
`image-layout.md` and `annotations.md`. Tar headers are in `tar`; who reads and writes is `exporting`, `importing`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import attrs
import msgspec

from olm.errors import CorruptStore, InvalidName, InvalidRequest
from olm.store.catalog import Entry
from olm.store.manifests import Layer, Manifest, decode_manifest
from olm.store.names import Digest, ModelName
from olm.store.tar import BLOCK, END, file_header, n_padding, spacer

__all__ = [
    "INDEX",
    "LAYOUT",
    "MAX_INDEX_BYTES",
    "Index",
    "Member",
    "Placed",
    "archive_bytes",
    "blob_of",
    "blob_path",
    "checked_path",
    "decode_index",
    "model_manifest",
    "names_of",
    "place",
    "plan_members",
]

LAYOUT: Final = "oci-layout"
INDEX: Final = "index.json"
MAX_INDEX_BYTES: Final = 4 << 20

_LAYOUT_DATA: Final = b'{"imageLayoutVersion":"1.0.0"}'
_INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"
_NAME: Final = "ai.ollama.name"
"""The full name of a model, `host/namespace/model:tag`. Ours: OCI's own annotation has a short form for people."""
_REF_NAME: Final = "org.opencontainers.image.ref.name"
_MODEL_TYPES: Final = "application/vnd.ollama.image."
_BLOB: Final = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_IGNORED: Final = frozenset({"manifest.json", "repositories"})
"""What `docker save` adds for old versions of itself."""
_FOLDERS: Final = frozenset({"", ".", "blobs", "blobs/sha256"})
_ALIGNMENT: Final = 4096
_ALIGNED_FROM: Final = 1 << 20
"""Smaller contents are not worth the padding."""


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One manifest in the index."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] | None = None


class Index(msgspec.Struct, frozen=True, rename="camel"):
    """`index.json`: which manifests an archive has, and how they are called."""

    schema_version: int
    manifests: tuple[Descriptor, ...]
    media_type: str = _INDEX_TYPE


@attrs.frozen
class Member:
    """A file of the layout: `data`, or the blob `digest` of the store. `model` is who needs it, for messages."""

    path: str
    size: int
    model: str
    digest: Digest | None = None
    data: bytes = b""


@attrs.frozen
class Placed:
    """A member's place in a tar: `head` ends where its content begins, at `offset` bytes."""

    member: Member
    head: bytes = attrs.field(repr=False)
    offset: int

    @property
    def end(self) -> int:
        """Where the next head begins."""
        return self.offset + self.member.size + n_padding(self.member.size)


def plan_members(entries: Sequence[Entry]) -> tuple[Member, ...]:
    """List the files of an export. What must be known first comes first, so that an import can refuse early."""
    members = {
        LAYOUT: Member(LAYOUT, len(_LAYOUT_DATA), "", data=_LAYOUT_DATA),
        INDEX: _index_member(entries),
    }
    for entry in entries:
        digest, shown = Digest(entry.digest), entry.name.shortest
        path = blob_path(digest)
        members[path] = Member(path, len(entry.data), shown, data=entry.data)
    for pick in (_configs, _layers):
        for entry in entries:
            for layer in pick(entry.manifest):
                path = blob_path(layer.blob)
                member = Member(path, layer.size, entry.name.shortest, layer.blob)
                if members.setdefault(path, member).size != layer.size:
                    raise CorruptStore(
                        f"model {member.model}: two sizes are given for blob {layer.digest}"
                    )
    return tuple(members.values())


def place(members: Sequence[Member]) -> Iterator[Placed]:
    """Put the members into a tar one after the other, large ones at offsets that file systems can share."""
    offset = 0
    for member in members:
        gap = spacer(offset, _ALIGNMENT) if member.size >= _ALIGNED_FROM else b""
        head = gap + file_header(member.path, member.size)
        placed = Placed(member, head, offset + len(head))
        yield placed
        offset = placed.end


def archive_bytes(placed: Sequence[Placed]) -> int:
    """The size of the whole tar, the two blocks at its end included."""
    return placed[-1].end + len(END)


def blob_path(digest: Digest) -> str:
    """Where a layout has the blob of a digest."""
    return f"blobs/sha256/{digest.hex}"


def checked_path(name: str, *, is_folder: bool) -> str:
    """Match the name of a tar's member against the few that a layout may have; it is never used as a path of the disk.

    Raises InvalidRequest for all others.
    """
    path = name.removeprefix("./")
    if is_folder and path.rstrip("/") in _FOLDERS:
        return path
    if not is_folder and _is_of_layout(path):
        return path
    _, _, below = path.partition("/")
    hint = "; was the folder itself packed, and not what is in it?" if _is_of_layout(below) else ""
    raise InvalidRequest(
        f"the archive has {name[:200]!a}, which is no part of an OCI image layout{hint}"
    )


def _is_of_layout(path: str) -> bool:
    return path in (INDEX, LAYOUT) or path in _IGNORED or blob_of(path) is not None


def blob_of(path: str) -> Digest | None:
    """The digest that a member's path stands for; None for any other path."""
    match = _BLOB.fullmatch(path)
    return Digest(match[1]) if match else None


def decode_index(data: bytes) -> Index:
    """Read `index.json`. Raises InvalidRequest when it is none, or has no or the same models."""
    try:
        index = msgspec.json.decode(data, type=Index)
        for item in index.manifests:
            Digest.parse(item.digest)
    except (ValueError, RecursionError, InvalidName) as exc:
        raise InvalidRequest(f"the archive's {INDEX} is damaged: {exc}") from exc
    if not index.manifests:
        raise InvalidRequest("the archive has no model in it")
    return index


def names_of(index: Index, wanted: str = "") -> list[tuple[ModelName, Digest]]:
    """Say under which name each manifest goes into the store.

    Args:
        wanted: what the caller wants the model to be called; for archives of one model.

    Raises:
        InvalidRequest: no name, a bad one, one twice, or `wanted` for several models.
    """
    if wanted and len({item.digest for item in index.manifests}) > 1:
        raise InvalidRequest(
            f"the archive has {len(index.manifests)} models: one name is not enough"
        )
    if wanted:
        return [(ModelName.parse(wanted), Digest.parse(index.manifests[0].digest))]
    found: dict[tuple[str, str, str, str], tuple[ModelName, Digest]] = {}
    for item in index.manifests:
        notes = item.annotations or {}
        text = notes.get(_NAME) or notes.get(_REF_NAME, "")
        if not text:
            raise InvalidRequest(
                f"the archive does not say how model {item.digest} is called: give it a name"
            )
        try:
            name = ModelName.parse(text)
        except InvalidName as exc:
            raise InvalidRequest(
                f"the archive has a model of an invalid name: {text[:400]!a}"
            ) from exc
        if name.folded in found:
            raise InvalidRequest(f"the archive has the model {name.shortest} twice")
        found[name.folded] = (name, Digest.parse(item.digest))
    return list(found.values())


def model_manifest(data: bytes, name: str) -> Manifest:
    """Read a manifest of the archive. Raises InvalidRequest when it is none, or one of something else."""
    try:
        manifest = decode_manifest(data)
    except CorruptStore as exc:
        raise InvalidRequest(
            f"model {name}: its manifest in the archive is damaged: {exc}"
        ) from exc
    if not any(layer.media_type.startswith(_MODEL_TYPES) for layer in manifest.layers):
        raise InvalidRequest(f"{name} is no model: none of its layers is of a type {_MODEL_TYPES}…")
    return manifest


def _index_member(entries: Sequence[Entry]) -> Member:
    descriptors = tuple(
        Descriptor(
            entry.manifest.media_type,
            str(Digest(entry.digest)),
            len(entry.data),
            {_REF_NAME: entry.name.shortest, _NAME: str(entry.name)},
        )
        for entry in entries
    )
    data = msgspec.json.encode(Index(2, descriptors))
    return Member(INDEX, len(data), "", data=data)


def _configs(manifest: Manifest) -> tuple[Layer, ...]:
    return (manifest.config,)


def _layers(manifest: Manifest) -> tuple[Layer, ...]:
    return manifest.layers


assert _ALIGNMENT % BLOCK == 0, "gaps are whole blocks"
