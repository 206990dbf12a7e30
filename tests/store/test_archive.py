"""Export and import over a real store: round trips byte for byte, and archives that lie."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import zstandard

from olm.actors.jobs_client import ExportRequest, ImportRequest, Progress
from olm.errors import CorruptStore, DigestMismatch, InvalidRequest, ModelNotFound, OlmError
from olm.store.archive import INDEX, LAYOUT
from olm.store.manifests import MODEL, Layer, config_layer, encode_manifest
from olm.store.names import Digest, ModelName
from olm.store.tar import file_header, read_header, spacer
from store.conftest import Shop, open_shop


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


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path / "other") as opened:
        for model in await opened.store.list():
            await opened.store.delete(model.name)
        yield opened


async def put_model(shop: Shop, name: str, *contents: bytes) -> None:
    """Publish a model of blobs that are no GGUF: export does not care."""
    from olm.actors.store import Publish

    layers = [Layer(MODEL, await shop.upload(data), len(data)) for data in contents]
    config = b'{"model_format":"gguf"}'
    data = encode_manifest(
        config_layer(Digest.parse(await shop.upload(config)), len(config)), layers
    )
    await shop.store.actor.ask(Publish(name, data))


def digests(shop: Shop) -> dict[str, str]:
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (shop.root / "blobs").iterdir()
    }


@pytest.mark.parametrize("form", ["tar", "zst", "folder"])
async def test_a_model_travels_byte_for_byte(
    shop: Shop, other: Shop, tmp_path: Path, form: str
) -> None:
    path = tmp_path / ("out" if form == "folder" else "out.tar")
    where = f"{path}/" if form == "folder" else path
    told = await exported(shop, where, compress=form == "zst")
    await imported(other, path)

    assert told[-1] == Progress("success")
    assert digests(other) == digests(shop)
    assert (await other.store.get("tiny")).digest == (await shop.store.get("tiny")).digest
    assert all(f"sha256-{value}" == name for name, value in digests(other).items())
    assert sorted(os.listdir(tmp_path)) == ["models", "other", path.name]


@pytest.mark.slow
@pytest.mark.parametrize("compress", [False, True])
async def test_large_blobs_are_shared_and_aligned(
    shop: Shop, other: Shop, tmp_path: Path, compress: bool
) -> None:
    big, extra = random.Random(1).randbytes(64 << 20), random.Random(2).randbytes(3_000_001)
    await put_model(shop, "one", big)
    await put_model(shop, "two", big, extra)
    path = tmp_path / "both.tar"

    told = await exported(shop, path, "one", "two", compress=compress)
    await imported(other, path)

    assert path.stat().st_size < len(big) + len(extra) + (64 << 10)
    assert {m.name for m in await other.store.list()} == {"one:latest", "two:latest"}
    blob = other.root / "blobs" / Digest.of(big).file_name
    assert blob.read_bytes() == big
    assert (other.root / "blobs" / Digest.of(extra).file_name).read_bytes() == extra
    counted = [step.completed for step in told if step.digest == str(Digest.of(big))]
    assert counted == sorted(counted)
    assert counted[-1] == len(big)
    if not compress:
        with tarfile.open(path) as tar:
            places = {m.name.rpartition("/")[2]: m.offset_data for m in tar.getmembers()}
        assert places[Digest.of(big).hex] % 4096 == 0


async def test_other_tools_read_it(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "out.tar"
    await exported(shop, path)

    with tarfile.open(path) as tar:
        names = tar.getnames()
        index = json.load(tar.extractfile(INDEX))  # type: ignore[arg-type]
        assert names[:2] == [LAYOUT, INDEX]
        for name in names[2:]:
            file = tar.extractfile(name)
            assert file is not None
            assert hashlib.sha256(file.read()).hexdigest() == name.rpartition("/")[2]
    listed = await trio.run_process(
        ["tar", "-tf", str(path)], capture_stdout=True, capture_stderr=True
    )
    assert listed.stdout.decode().split() == names
    assert listed.stderr == b""
    notes = index["manifests"][0]["annotations"]
    assert notes["org.opencontainers.image.ref.name"] == "tiny:latest"


async def test_a_stream_is_the_same_archive(shop: Shop, tmp_path: Path) -> None:
    await exported(shop, tmp_path / "out.tar")
    async with shop.jobs.export_stream(ExportRequest(models=["tiny"])) as pieces:
        data = b"".join([piece async for piece in pieces])

    assert data == (tmp_path / "out.tar").read_bytes()


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


async def test_an_interrupted_import_goes_on(shop: Shop, other: Shop, tmp_path: Path) -> None:
    big = random.Random(3).randbytes(300_000)
    await put_model(shop, "m", b"first" * 1000, big)
    await exported(shop, tmp_path / "out.tar", "m")
    data = (tmp_path / "out.tar").read_bytes()

    with pytest.raises(OlmError, match="the client left"):
        await imported(other, source=Pieces(data, broken_at=150_000))
    kept = other.blobs()
    assert await other.store.list() == []
    assert Digest.of(b"first" * 1000).file_name in kept
    assert not [name for name in kept if name.startswith(".olm-tmp-")]
    await imported(other, source=Pieces(data))

    assert [m.name for m in await other.store.list()] == ["m:latest"]
    assert len(other.blobs()) == 3


async def test_failures_name_the_model_and_the_blob(shop: Shop, tmp_path: Path) -> None:
    await put_model(shop, "m", b"weights")
    digest = Digest.of(b"weights")
    (shop.root / "blobs" / digest.file_name).write_bytes(b"short")

    with pytest.raises(CorruptStore, match=f"model m:latest, blob {digest}: it has 5 bytes"):
        await exported(shop, tmp_path / "out.tar", "m")
    (shop.root / "blobs" / digest.file_name).unlink()
    with pytest.raises(CorruptStore, match=f"model m:latest, blob {digest}: it is missing"):
        await exported(shop, tmp_path / "out.tar", "m")
    with pytest.raises(ModelNotFound, match="model 'nope' not found"):
        await exported(shop, tmp_path / "out.tar", "nope")
    assert os.listdir(tmp_path) == ["models"]


@pytest.mark.parametrize("path", ["out.tar", "/x/../out.tar", "/tmp/\0"])
async def test_bad_paths_are_refused(shop: Shop, path: str) -> None:
    with pytest.raises(InvalidRequest, match="absolute"):
        await exported(shop, path)


async def test_nothing_is_overwritten_and_nothing_goes_into_the_store(
    shop: Shop, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_text("mine")

    with pytest.raises(InvalidRequest, match="exists already"):
        await exported(shop, tmp_path / "mine")
    with pytest.raises(InvalidRequest, match="inside the model store"):
        await exported(shop, shop.root / "out.tar")
    assert (tmp_path / "mine").read_text() == "mine"


# -- archives that lie -----------------------------------------------------------------------------------------------

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


async def test_the_annotation_of_oci_or_the_given_name_is_taken(other: Shop) -> None:
    await imported(other, source=Pieces(tar_of(GOOD)))
    nameless = [(INDEX, index_of(MANIFEST)), *GOOD[1:]]
    await imported(other, source=Pieces(tar_of(nameless)), name="mine:1")

    assert {m.name for m in await other.store.list()} == {"given:latest", "mine:1"}


async def test_order_folders_and_what_docker_adds_do_not_matter(other: Shop) -> None:
    members = [*reversed(GOOD), ("manifest.json", b"[]"), (LAYOUT, b"{}")]
    data = tar_of(
        [(f"./{n}", d) for n, d in members],
        odd(tarfile.DIRTYPE, "./"),
        odd(tarfile.DIRTYPE, "blobs"),
    )

    await imported(other, source=Pieces(data + b"trailing garbage"))

    assert [m.name for m in await other.store.list()] == ["given:latest"]


FLIPPED = (blob(WEIGHTS)[0], b"Weights of a model")
HOSTILE = {
    "a path upwards": (tar_of([("../evil", b"x"), *GOOD]), "no part of an OCI image layout"),
    "an absolute path": (tar_of([("/etc/evil", b"x"), *GOOD]), "no part of an OCI image layout"),
    "a sly path": (
        tar_of([("blobs/sha256/../../evil", b"x"), *GOOD]),
        "no part of an OCI image layout",
    ),
    "a symbolic link": (tar_of(GOOD, odd(tarfile.SYMTYPE)), "a symbolic link"),
    "a hard link": (tar_of(GOOD, odd(tarfile.LNKTYPE)), "a hard link"),
    "a device": (tar_of(GOOD, odd(tarfile.CHRTYPE)), "a device"),
    "a block device": (tar_of(GOOD, odd(tarfile.BLKTYPE)), "a device"),
    "a FIFO": (tar_of(GOOD, odd(tarfile.FIFOTYPE)), "a FIFO"),
    "a duplicate": (tar_of([*GOOD, GOOD[-1]]), "twice"),
    "a wrong digest": (tar_of([*GOOD[:-1], FLIPPED]), "digest mismatch"),
    "a wrong size": (tar_of([*GOOD[:-1], (FLIPPED[0], b"x")]), "the manifest says 18"),
    "a stranger": (tar_of([*GOOD, blob(b"stranger")]), "belongs to no model"),
    "a missing blob": (tar_of(GOOD[:-1]), "model given:latest, blob sha256:.* neither in the arch"),
    "a missing manifest": (tar_of(GOOD[:1]), "model given:latest, blob sha256:.* neither"),
    "no index": (tar_of(GOOD[1:]), "no index.json"),
    "no name": (tar_of([(INDEX, index_of(MANIFEST)), *GOOD[1:]]), "give it a name"),
    "a bad name": (
        tar_of(
            [(INDEX, index_of(MANIFEST, org_opencontainers_image_ref_name="a/../b")), *GOOD[1:]]
        ),
        "invalid name",
    ),
    "a huge index": (tar_of([(INDEX, bytes((4 << 20) + 1))]), "more than 4194304"),
    "a cut archive": (tar_of(GOOD)[:4000], "ends in the middle|neither in the archive"),
    "no archive": (b"hello world" * 100, "not a tar archive"),
    "nothing": (b"", "no index.json"),
    "a broken frame": (zstandard.compress(tar_of(GOOD))[:-40] + bytes(40), "damaged|ends in the"),
    "an impossible size": (
        file_header(blob(WEIGHTS)[0], 1 << 60) + WEIGHTS,
        "(?s)no space left on device: .* are needed, .* are free",
    ),
    "a huge window": (
        zstandard.ZstdCompressor(
            compression_params=zstandard.ZstdCompressionParameters(window_log=30)
        )
        .compressobj()
        .compress(b"")
        + b"\x28\xb5\x2f\xfd\x00\xa8"
        + bytes(64),
        "damaged",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_an_archive_that_lies_is_refused_and_leaves_nothing(other: Shop, what: str) -> None:
    data, words = HOSTILE[what]

    with pytest.raises(OlmError, match=words):
        await imported(other, source=Pieces(data))
    assert await other.store.list() == []
    if what != "an impossible size":
        assert other.blobs() == set()


async def test_a_folder_may_lie_too(other: Shop, tmp_path: Path) -> None:
    folder = tmp_path / "layout"
    (folder / "blobs/sha256").mkdir(parents=True)
    for name, data in GOOD[:-1]:
        (folder / name).write_bytes(data)
    (folder / GOOD[-1][0]).symlink_to("/dev/zero")

    with pytest.raises(OlmError):
        await imported(other, folder)
    (folder / GOOD[-1][0]).unlink()
    (folder / GOOD[-1][0]).write_bytes(FLIPPED[1])
    with pytest.raises(DigestMismatch):
        await imported(other, folder)
    assert await other.store.list() == []


def test_headers_of_large_files_are_read_back() -> None:
    for size in (0, 8**11 - 1, 8**11, 1 << 45):
        found = read_header(io.BytesIO(file_header("index.json", size)).read)

        assert found is not None
        assert found.size == size
        assert tarfile.TarInfo.frombuf(file_header("x", size), "utf-8", "strict").size == size


@pytest.mark.parametrize("offset", [0, 512, 3072, 3584, 4096, 7 * 512])
def test_a_spacer_moves_a_content_to_the_next_page(offset: int) -> None:
    gap = spacer(offset, 4096)
    read = io.BytesIO(gap + file_header("blobs/x", 9)).read

    assert (offset + len(gap) + 512) % 4096 == 0
    found = read_header(read)
    assert found is not None
    assert found.name == "blobs/x"


def test_names_are_parsed_as_everywhere() -> None:
    assert ModelName.parse("given").shortest == "given:latest"
