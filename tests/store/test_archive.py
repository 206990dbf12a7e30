"""Export and import over a real store: round trips byte for byte, and archives that lie."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import tarfile
from pathlib import Path

import pytest
import trio

from olm.actors.jobs_client import ExportRequest, Progress
from olm.errors import CorruptStore, InvalidRequest, ModelNotFound, OlmError
from olm.store.archive import INDEX, LAYOUT
from olm.store.names import Digest, ModelName
from olm.store.tar import file_header, read_header, spacer
from store.archives import Pieces, exported, imported, put_model
from store.conftest import Shop


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
        layout = json.load(tar.extractfile(LAYOUT))  # type: ignore[arg-type]
        sizes = {member.name.rpartition("/")[2]: member.size for member in tar.getmembers()}
        for name in names[2:]:
            file = tar.extractfile(name)
            assert file is not None
            assert hashlib.sha256(file.read()).hexdigest() == name.rpartition("/")[2]
    listed = await trio.run_process(
        ["tar", "-tf", str(path)], capture_stdout=True, capture_stderr=True
    )
    assert listed.stdout.decode().split() == names
    assert listed.stderr == b""
    # What image-spec 1.1 demands of a layout (image-layout.md, image-index.md, descriptor.md).
    assert layout == {"imageLayoutVersion": "1.0.0"}
    assert (index["schemaVersion"], index["mediaType"]) == (
        2,
        "application/vnd.oci.image.index.v1+json",
    )
    for item in index["manifests"]:
        assert item["mediaType"].startswith("application/vnd.")
        assert sizes[item["digest"].removeprefix("sha256:")] == item["size"]
    notes = index["manifests"][0]["annotations"]
    assert notes["org.opencontainers.image.ref.name"] == "tiny:latest"


async def test_a_stream_is_the_same_archive(shop: Shop, tmp_path: Path) -> None:
    await exported(shop, tmp_path / "out.tar")
    async with shop.jobs.export_stream(ExportRequest(models=["tiny"])) as pieces:
        data = b"".join([piece async for piece in pieces])

    assert data == (tmp_path / "out.tar").read_bytes()


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


async def test_an_archive_may_be_named_by_a_link_and_its_files_may_be_none(
    shop: Shop, other: Shop, tmp_path: Path
) -> None:
    await put_model(shop, "m", b"weights")
    await exported(shop, tmp_path / "x.tar", "m")
    await exported(shop, f"{tmp_path}/folder/", "m")
    (tmp_path / "link").symlink_to(tmp_path / "x.tar")
    index = tmp_path / "folder" / "index.json"
    index.rename(tmp_path / "index.json")
    index.symlink_to(tmp_path / "index.json")

    with pytest.raises(InvalidRequest, match=r"index\.json is a link; only files are taken"):
        await imported(other, tmp_path / "folder")
    assert (await imported(other, tmp_path / "link"))[-1].status == "success"


@pytest.mark.parametrize("name", ["none.tar", "none/x.tar", "x" * 300, "x.tar/y.tar"])
async def test_paths_that_lead_nowhere_are_the_clients_mistake_or_one_line(
    shop: Shop, tmp_path: Path, name: str
) -> None:
    await put_model(shop, "m", b"weights")
    await exported(shop, tmp_path / "x.tar", "m")

    with pytest.raises(OlmError, match=r"^cannot read .*: (no such file|file name too|not a dir)"):
        await imported(shop, tmp_path / name)
    if name != "none.tar":
        with pytest.raises(OlmError, match=r"there is no folder|file name too long"):
            await exported(shop, tmp_path / name, "m")


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
    (tmp_path / "link").symlink_to(shop.root)
    with pytest.raises(InvalidRequest, match="inside the model store"):
        await exported(shop, tmp_path / "link" / "out.tar")
    with pytest.raises(InvalidRequest, match="with something in it"):
        await exported(shop, f"{tmp_path}/")
    assert (tmp_path / "mine").read_text() == "mine"


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
