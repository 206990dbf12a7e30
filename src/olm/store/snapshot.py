"""What was read of all manifests, kept in `olm-catalog.bin`, so that a new process lists a thousand models at once.

Each entry is believed as long as `stat` says of its manifest what it said then. The file carries its own digest and the
version of the program, so damage and age cost a second reading of the manifests and nothing else.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from olm import __version__
from olm.errors import CorruptStore
from olm.store.disk import disk_errors, read_small, write_durably
from olm.store.manifests import ImageConfig, Manifest

__all__ = ["Kept", "read_snapshot", "write_snapshot"]

_FORMAT: Final = 1  # raise it when what is kept, or how capabilities are worked out, changes
_MAX_BYTES: Final = 64 << 20
_MAX_DATA_BYTES: Final = 64 << 10
"""Larger manifests, of models in thousands of layers, are few, and would fill the file."""
_DIGEST_BYTES: Final = 32
_log = logging.getLogger(__name__)


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """One manifest as it was read.

    Attributes:
        stamp: see `ManifestFile.stamp`.
        digest: SHA-256 of `data`, 64 hex digits.
        capabilities: of the model under the setting `go_template`; None when they were not worked out.
    """

    stamp: tuple[int, int, int, int]
    digest: str
    data: bytes
    manifest: Manifest
    config: ImageConfig | None
    capabilities: tuple[str, ...] | None


class _Body(msgspec.Struct, frozen=True):
    go_template: bool | None
    entries: dict[str, Kept]


def read_snapshot(path: Path, *, go_template: bool | None) -> Mapping[str, Kept]:
    """Read the entries by full name; none when the file is missing, damaged or of another version."""
    try:
        data = read_small(path, _MAX_BYTES)
        head = _head()
        if not data.startswith(head):
            return {}
        digest = data[len(head) : len(head) + _DIGEST_BYTES]
        packed = memoryview(data)[len(head) + _DIGEST_BYTES :]
        if hashlib.sha256(packed).digest() != digest:
            _log.warning("%s is damaged; the manifests are read afresh", path.name)
            return {}
        body = msgspec.msgpack.decode(packed, type=_Body)
    except FileNotFoundError:
        return {}
    except (OSError, CorruptStore, msgspec.MsgspecError, ValueError, RecursionError) as exc:
        _log.warning("the manifests are read afresh: %s", exc)
        return {}
    if body.go_template == go_template:
        return body.entries
    return {
        name: msgspec.structs.replace(kept, capabilities=None)
        for name, kept in body.entries.items()
    }


def write_snapshot(path: Path, entries: Mapping[str, Kept], *, go_template: bool | None) -> None:
    """Replace the file. Raises DiskFull, StoreError."""
    small = {name: kept for name, kept in entries.items() if len(kept.data) <= _MAX_DATA_BYTES}
    packed = msgspec.msgpack.encode(_Body(go_template, small))
    if len(packed) > _MAX_BYTES // 2:
        return  # it would be refused one day; a store of that many models is read as it is
    with disk_errors("write the store's catalog"):
        write_durably(path, _head() + hashlib.sha256(packed).digest() + packed)


def _head() -> bytes:
    return f"olm catalog {_FORMAT} {__version__}\n".encode()
