"""Models run in place: what is linked, what is noticed when the file changes, and that the file itself is never touched."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec
import pytest

from olm.actors.jobs_client import ExportRequest, ImportRequest, Progress
from olm.errors import CorruptStore, InvalidRequest, OlmError, StoreError
from olm.store import linking
from olm.store.blobs import BlobStore
from olm.store.gc import UNREFERENCED_KEPT_S
from olm.store.library import Library
from olm.store.linking import InPlace, checked_link
from olm.store.links import FOLDER, LinkRecord
from olm.store.names import Digest
from store.conftest import Shop, open_shop
from store.gguf_files import model

DATA = model()
DIGEST = Digest.of(DATA)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere" / "w.gguf"
    path.parent.mkdir()
    path.write_bytes(DATA)
    return path


async def link(shop: Shop, path: Path, name: str = "m") -> list[str]:
    return await shop.create(model=name, links={"w.gguf": str(path)})


def records(shop: Shop) -> list[LinkRecord]:
    return list(shop.store.blobs.links.records())


def rewrite(path: Path, data: bytes) -> None:
    """Change a file in place, seconds later than it was written."""
    later_ns = path.stat().st_mtime_ns + 5_000_000_000
    path.write_bytes(data)
    os.utime(path, ns=(later_ns, later_ns))


def bytes_of(path: Path) -> bytes:
    return path.read_bytes()


def damage(path: Path, change: str) -> None:
    match change:
        case "content":
            rewrite(path, DATA[:-1] + b"x")
        case "shorter":
            rewrite(path, DATA[:-1])
        case "replaced":
            status = path.stat()
            other = path.with_name("other")
            other.write_bytes(DATA)
            os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
            other.replace(path)
        case "cut":
            path.write_bytes(DATA[:600])
        case "removed":
            path.unlink()


async def test_a_linked_model_reads_the_file_and_copies_nothing(shop: Shop, weights: Path) -> None:
    statuses = await link(shop, weights)

    made = await shop.store.get("m")
    shown = await shop.store.show("m")
    [record] = records(shop)
    assert statuses[0] == "hashing w.gguf"
    assert statuses[-5:] == [
        f"linked to {weights}",
        "parsing GGUF",
        f"using existing layer {DIGEST}",
        "writing manifest",
        "success",
    ]
    assert made.weights.is_symlink()
    assert os.readlink(made.weights) == str(weights)
    assert (record.path, record.size, record.digest) == (str(weights), len(DATA), str(DIGEST))
    assert shown.links == {str(DIGEST): str(weights)}
    assert shop.store.blobs.links.state(DIGEST) == "ok"


async def test_progress_tells_path_and_bytes(shop: Shop, weights: Path) -> None:
    from olm.actors.jobs_client import CreateRequest

    request = CreateRequest(model="m", links={"w.gguf": str(weights)})
    async with shop.jobs.create(request) as steps:
        first = await anext(aiter(steps))

    assert first == Progress("hashing w.gguf", str(weights), len(DATA), len(DATA))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("content", "changed since the model was made; create the model again"),
        ("shorter", "changed since the model was made"),
        ("replaced", "changed since the model was made"),
        ("removed", "is gone; put it back, or create the model again"),
    ],
)
async def test_a_file_that_changed_is_an_error_that_says_so(
    shop: Shop, weights: Path, change: str, words: str
) -> None:
    await link(shop, weights)
    await shop.store.get("m")
    damage(weights, change)

    for ask in (shop.store.get, shop.store.show):
        with pytest.raises(CorruptStore) as caught:
            await ask("m")
        assert caught.value.message.startswith(f"model 'm:latest': the linked file {weights}")
        assert words in caught.value.message
    assert [item.name for item in await shop.store.list()] == ["m:latest", "tiny:latest"]


async def test_making_it_again_repairs_every_model_of_the_file(shop: Shop, weights: Path) -> None:
    await link(shop, weights)
    await shop.store.copy("m", "copy")
    moved = weights.with_name("moved.gguf")
    os.rename(weights, moved)

    await link(shop, moved, "again")

    assert os.readlink((await shop.store.get("copy")).weights) == str(moved)
    assert [record.path for record in records(shop)] == [str(moved)]


async def test_the_last_model_takes_the_link_with_it_and_never_the_file(
    shop: Shop, weights: Path
) -> None:
    await link(shop, weights)
    await shop.store.copy("m", "copy")

    await shop.store.delete("m")
    assert DIGEST.file_name in shop.blobs()
    await shop.store.delete("copy")

    assert DIGEST.file_name not in shop.blobs()
    assert not list((shop.root / FOLDER).iterdir())
    assert bytes_of(weights) == DATA


async def test_a_blob_that_is_there_stays_a_blob(shop: Shop, weights: Path) -> None:
    await shop.upload(DATA)

    statuses = await link(shop, weights)

    assert f"using existing layer for {weights}" in statuses
    assert not (await shop.store.get("m")).weights.is_symlink()
    assert records(shop) == []


async def test_an_upload_of_the_same_bytes_takes_the_place_of_the_link(
    shop: Shop, weights: Path
) -> None:
    await link(shop, weights)

    await shop.upload(DATA)
    damage(weights, "removed")

    assert not (await shop.store.get("m")).weights.is_symlink()
    assert (await shop.store.show("m")).links == {}
    assert records(shop) == []


async def test_an_archive_holds_the_bytes_and_repairs_a_lost_link(
    shop: Shop, weights: Path, tmp_path: Path
) -> None:
    await link(shop, weights)
    archive = tmp_path / "m.tar"
    async with shop.jobs.export(ExportRequest(models=["m"], path=str(archive))) as steps:
        assert [step.status async for step in steps][-1] == "success"
    damage(weights, "removed")

    async with shop.jobs.import_(ImportRequest(path=str(archive))) as steps:
        assert [step.status async for step in steps][-1] == "success"

    path = (await shop.store.get("m")).weights
    assert not path.is_symlink()
    assert path.read_bytes() == DATA


async def test_a_file_that_changed_is_not_exported(
    shop: Shop, weights: Path, tmp_path: Path
) -> None:
    await link(shop, weights)
    damage(weights, "content")

    with pytest.raises(CorruptStore, match=r"the linked file .* changed since"):
        async with shop.jobs.export(ExportRequest(models=["m"], path=f"{tmp_path}/x")) as steps:
            assert [step async for step in steps] == []


async def test_a_refused_file_leaves_nothing(shop: Shop, weights: Path) -> None:
    before = shop.blobs()
    damage(weights, "cut")

    with pytest.raises(OlmError, match="truncated"):
        await link(shop, weights)

    assert shop.blobs() == before
    assert records(shop) == []


async def test_leaving_in_the_middle_leaves_nothing(
    shop: Shop, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from olm.actors.jobs_client import CreateRequest

    monkeypatch.setattr(linking, "_PIECE_BYTES", 100)
    monkeypatch.setattr("olm.actors.intake._REPORT_S", 0.0)
    before = shop.blobs()

    request = CreateRequest(model="m", links={"w.gguf": str(weights)})
    async with shop.jobs.create(request) as steps:
        step = await anext(aiter(steps))

    assert step.completed == 100
    assert shop.blobs() == before
    assert records(shop) == []


async def test_symlinks_are_followed_once(shop: Shop, weights: Path, tmp_path: Path) -> None:
    way = tmp_path / "way.gguf"
    way.symlink_to(weights)

    await link(shop, way)
    way.unlink()

    assert records(shop)[0].path == str(weights)
    assert (await shop.store.get("m")).weights.read_bytes() == DATA


async def test_a_file_of_the_store_is_no_link(shop: Shop) -> None:
    blob = (await shop.store.get("tiny")).weights

    with pytest.raises(InvalidRequest, match="is inside the model store"):
        await link(shop, blob)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("relative", "must be absolute"),
        ("nul", "must be absolute"),
        ("absent", "the server does not see the file"),
        ("folder", "is not a plain file"),
        ("fifo", "is not a plain file"),
        ("device", "is not a plain file"),
        ("text", "supplied file was not in GGUF format"),
        ("loop", "cannot use the file"),
    ],
)
def test_what_cannot_be_linked(tmp_path: Path, library: Library, kind: str, words: str) -> None:
    path = tmp_path / kind
    match kind:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "text":
            path.write_text("version https://git-lfs")
        case "loop":
            path.symlink_to(path)
    text = {"relative": "w.gguf", "nul": f"{path}\0", "device": "/dev/zero"}.get(kind, str(path))

    with pytest.raises(InvalidRequest, match=words):
        InPlace(library.blobs, checked_link(text, library.root))


def test_a_file_that_changes_while_it_is_hashed_is_refused(
    library: Library, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linking, "_PIECE_BYTES", 100)
    with InPlace(library.blobs, weights) as file:

        def change(done: int) -> None:
            if done == 100:
                rewrite(weights, DATA[:-1] + b"x")

        if file.is_clone:
            pytest.skip("this file system clones, and a clone does not change")
        with pytest.raises(StoreError, match="was changed while it was read"):
            file.hash(change)


def test_a_clone_is_an_ordinary_blob(
    library: Library, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's part is played by a copy: few file systems of test machines can clone."""

    def clone(target: int, request: int, source: int) -> int:
        assert request == 0x40049409
        os.pwrite(target, os.pread(source, 1 << 20, 0), 0)
        return 0

    monkeypatch.setattr(linking.fcntl, "ioctl", clone)
    with InPlace(library.blobs, weights) as file:
        rewrite(weights, b"GGUF")
        digest = file.hash(lambda done: None)
        assert file.place() == "cloned"

    assert digest == DIGEST
    assert library.blobs.is_whole(DIGEST, len(DATA))
    assert library.blobs.links.state(DIGEST) is None
    assert [p.name for p in library.blobs.folder.iterdir()] == [DIGEST.file_name]


def place(blobs: BlobStore, path: Path) -> str:
    with InPlace(blobs, path) as file:
        file.hash(lambda done: None)
        return file.place()


def test_links_without_a_record_are_somebody_elses(library: Library, weights: Path) -> None:
    library.blobs.path(DIGEST).symlink_to(weights)

    rewrite(weights, DATA)

    assert library.blobs.links.record(DIGEST) is None
    assert library.blobs.size(DIGEST) == len(DATA)
    assert not library.blobs.is_whole(DIGEST, len(DATA))


def test_a_record_of_another_path_says_nothing(library: Library, weights: Path) -> None:
    assert place(library.blobs, weights) == "linked"
    other = weights.with_name("other.gguf")
    other.write_bytes(DATA)
    library.blobs.path(DIGEST).unlink()
    library.blobs.path(DIGEST).symlink_to(other)

    assert library.blobs.links.state(DIGEST) is None


@pytest.mark.parametrize("damage", [b"", b"{}", b"[" * 5000, b"\xff\xfe"])
def test_a_damaged_record_costs_the_watch_and_nothing_else(
    library: Library, weights: Path, damage: bytes
) -> None:
    place(library.blobs, weights)
    (library.blobs.links.folder / DIGEST.file_name).write_bytes(damage)

    assert list(library.blobs.links.records()) == []
    assert library.blobs.size(DIGEST) == len(DATA)


def test_stale_records_go_with_the_next_link(library: Library, weights: Path) -> None:
    place(library.blobs, weights)
    library.blobs.path(DIGEST).unlink()  # as a crash, or Ollama, leaves it

    other = weights.with_name("other.gguf")
    other.write_bytes(model(tokens=3))
    place(library.blobs, other)

    assert [path.name for path in library.blobs.links.folder.iterdir()] == [
        f"sha256-{hashlib.sha256(other.read_bytes()).hexdigest()}"
    ]


async def test_a_start_removes_old_links_that_no_model_needs_but_not_those_of_others(
    tmp_path: Path, weights: Path
) -> None:
    root = tmp_path / "models"
    async with open_shop(root) as shop:
        await link(shop, weights)
        record = records(shop)[0]
    orphan = model(tokens=5)
    file = weights.with_name("orphan.gguf")
    file.write_bytes(orphan)
    blobs = BlobStore(root / "blobs")
    place(blobs, file)
    foreign = Digest.of(b"foreign")
    blobs.path(foreign).symlink_to(file)
    old_s = os.stat(root).st_mtime - UNREFERENCED_KEPT_S - 60
    for digest in (DIGEST, Digest.of(orphan), foreign):
        os.utime(blobs.path(digest), (old_s, old_s), follow_symlinks=False)

    async with open_shop(root) as shop:
        kept = shop.blobs()
        assert records(shop) == [record]

    assert DIGEST.file_name in kept
    assert foreign.file_name in kept
    assert Digest.of(orphan).file_name not in kept
    assert file.exists()


def test_records_are_json_that_names_what_was_seen(library: Library, weights: Path) -> None:
    place(library.blobs, weights)

    status = weights.stat()
    written = msgspec.json.decode((library.blobs.links.folder / DIGEST.file_name).read_bytes())
    assert written == {
        "digest": str(DIGEST),
        "path": str(weights),
        "size": len(DATA),
        "mtime_ns": status.st_mtime_ns,
        "device": status.st_dev,
        "inode": status.st_ino,
    }
