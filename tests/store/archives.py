"""What tests of archives share: running exports and imports, a model that is no GGUF, tars with members of our choice."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from olm.actors.jobs_client import ExportRequest, ImportRequest, Progress
from olm.actors.store import Publish
from olm.errors import OlmError
from olm.store.archive import INDEX
from olm.store.manifests import MODEL, Layer, config_layer, encode_manifest
from olm.store.names import Digest
from store.conftest import Shop


async def exported(
    shop: Shop, path: Path | str, *models: str, compress: bool = False
) -> list[Progress]:
    request = ExportRequest(models=models or ("tiny",), path=str(path), compress=compress)
    async with shop.jobs.export(request) as steps:
        return [step async for step in steps]


async def imported(shop: Shop, path: Path | str = "", **fields: object) -> list[Progress]:
    request = ImportRequest(path=str(path), **fields)  # type: ignore[arg-type]
    async with shop.jobs.import_(request) as steps:
        return [step async for step in steps]


async def put_model(shop: Shop, name: str, *contents: bytes) -> None:
    """Publish a model of blobs that are no GGUF: export does not care."""
    layers = [Layer(MODEL, await shop.upload(data), len(data)) for data in contents]
    config = b'{"model_format":"gguf"}'
    data = encode_manifest(
        config_layer(Digest.parse(await shop.upload(config)), len(config)), layers
    )
    await shop.store.actor.ask(Publish(name, data))


class Pieces:
    """An archive that arrives in small pieces, or breaks off with an error."""

    def __init__(self, data: bytes, *, broken_at: int | None = None) -> None:
        self._data, self._at, self._broken_at = data, 0, broken_at

    async def next(self) -> bytes:
        if self._broken_at is not None and self._at >= self._broken_at:
            raise OlmError("the client left")
        piece = self._data[self._at : self._at + 40_961]
        self._at += len(piece)
        return piece


WEIGHTS = b"weights of a model"
CONFIG = b"{}"
MANIFEST = encode_manifest(
    config_layer(Digest.of(CONFIG), len(CONFIG)),
    [Layer(MODEL, str(Digest.of(WEIGHTS)), len(WEIGHTS))],
)


def index_of(*manifests: bytes, **notes: str) -> bytes:
    items = [
        {
            "mediaType": "x",
            "digest": str(Digest.of(m)),
            "size": len(m),
            "annotations": {key.replace("_", "."): value for key, value in notes.items()},
        }
        for m in manifests
    ]
    return json.dumps({"schemaVersion": 2, "manifests": items}).encode()


NAMED = index_of(MANIFEST, org_opencontainers_image_ref_name="given")


def blob(data: bytes) -> tuple[str, bytes]:
    return f"blobs/sha256/{Digest.of(data).hex}", data


GOOD = [(INDEX, NAMED), blob(MANIFEST), blob(CONFIG), blob(WEIGHTS)]


def tar_of(members: list[tuple[str, bytes]], *odd: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for item in odd:
            tar.addfile(item)
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def odd(kind: bytes, name: str = "blobs/x", link: str = "/etc/passwd") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info
