"""Exports and imports when the disk is full or broken, files change, readers leave, and jobs get into each other's way."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import attrs
import pytest
import trio

from olm.actors.jobs_client import ExportRequest
from olm.errors import DigestMismatch, DiskFull, InvalidRequest, StoreError
from olm.store.names import Digest
from store.archives import Pieces, exported, imported, put_model
from store.conftest import Shop

BIG: Final = random.Random(7).randbytes(9 << 20)
SMALL: Final = random.Random(8).randbytes(300_000)
DIGEST: Final = Digest.of(BIG)


@attrs.define
class Disk:
    """Lets so many bytes be written by `pwrite`, then fails; `is_short` makes each write a short one first."""

    left: int = 1 << 62
    error: int = errno.ENOSPC
    is_short: bool = False

    def pwrite(
        self, real: Callable[[int, memoryview, int], int]
    ) -> Callable[[int, memoryview, int], int]:
        def pwrite(fd: int, data: memoryview, offset: int) -> int:
            if self.left <= 0:
                raise OSError(self.error, os.strerror(self.error))
            if self.is_short and len(data) > 10_000:
                data = memoryview(data)[:7777]
            n_bytes = min(len(data), self.left)
            self.left -= n_bytes
            return real(fd, memoryview(data)[:n_bytes], offset)

        return pwrite


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()

    def no_kernel_copy(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "not here")

    monkeypatch.setattr(os, "pwrite", made.pwrite(os.pwrite))
    monkeypatch.setattr(os, "copy_file_range", no_kernel_copy)
    return made


@pytest.fixture
async def big(shop: Shop) -> str:
    await put_model(shop, "big", BIG, SMALL)
    return "big"


def temps(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(".")]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
async def test_a_disk_that_fails_an_export_leaves_nothing(
    shop: Shop, big: str, disk: Disk, tmp_path: Path, error: int, compress: bool
) -> None:
    disk.left, disk.error = 5 << 20, error
    place = tmp_path / "out"
    place.mkdir()

    with pytest.raises(StoreError) as caught:
        await exported(shop, place / "x.tar", big, compress=compress)

    assert os.listdir(place) == []
    text = str(caught.value)
    assert "\n" not in text
    assert os.strerror(error).lower() in text
    assert (
        f"model big to {place}/x.tar" if compress else f"model big:latest, blob {DIGEST}"
    ) in text
    assert isinstance(caught.value, DiskFull) == (error == errno.ENOSPC)
    if error == errno.ENOSPC:
        assert "9.7 MB needed" in text


async def test_short_writes_do_no_harm(
    shop: Shop, other: Shop, big: str, disk: Disk, tmp_path: Path
) -> None:
    disk.is_short = True
    await exported(shop, tmp_path / "x.tar", big)
    await exported(shop, tmp_path / "x.zst", big, compress=True)
    await imported(other, tmp_path / "x.tar")
    await other.store.delete("big")
    await imported(other, tmp_path / "x.zst")

    assert (other.root / "blobs" / DIGEST.file_name).read_bytes() == BIG


@pytest.mark.parametrize("way", ["file", "stream"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
async def test_a_disk_that_fails_an_import_keeps_what_was_verified(
    shop: Shop, other: Shop, disk: Disk, tmp_path: Path, error: int, way: str
) -> None:
    await put_model(shop, "m", BIG, BIG[::-1])
    path = tmp_path / "x.tar"
    await exported(shop, path, "m")
    disk.left, disk.error = 13 << 20, error

    source = Pieces(path.read_bytes())
    with pytest.raises(StoreError) as caught:
        await (imported(other, path) if way == "file" else imported(other, source=source))
    kept = {name for name in other.blobs() if (other.root / "blobs" / name).stat().st_size > 1000}
    disk.left = 1 << 62
    await imported(other, path)

    second = {DIGEST.file_name, Digest.of(BIG[::-1]).file_name} - kept
    assert len(kept) == 1
    assert len(second) == 1
    assert f"model m:latest, blob sha256:{second.pop().removeprefix('sha256-')}" in str(
        caught.value
    )
    assert os.strerror(error).lower() in str(caught.value)
    if error == errno.ENOSPC:
        assert "9.4 MB needed" in str(caught.value)
    assert temps(other.root / "blobs") == []


async def test_what_is_there_is_not_read_again(
    shop: Shop, other: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.tar"
    await put_model(shop, "m", BIG, SMALL)
    await exported(shop, path, "m")
    await imported(other, path)
    await other.store.delete("m")
    await put_model(other, "else", BIG)
    n_read = 0
    real = os.preadv

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        nonlocal n_read
        n_bytes = real(fd, buffers, offset)
        n_read += n_bytes
        return n_bytes

    monkeypatch.setattr(os, "preadv", preadv)
    told = await imported(other, path)

    assert 0 < n_read < len(BIG)
    assert (len(BIG), len(BIG)) in {(step.total, step.completed) for step in told}


@pytest.mark.parametrize("n_bytes", [100, 600, 5000, 400_000, 9_000_000])
async def test_a_cut_archive_is_refused_before_anything_is_written(
    shop: Shop, other: Shop, big: str, tmp_path: Path, n_bytes: int
) -> None:
    path = tmp_path / "x.tar"
    await exported(shop, path, big)
    os.truncate(path, n_bytes)

    with pytest.raises(InvalidRequest, match=r"ends in the middle|cut off"):
        await imported(other, path)
    assert other.blobs() == set()


async def test_a_cut_archive_is_refused_with_the_model_and_the_blob(
    shop: Shop, other: Shop, big: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.tar"
    await exported(shop, path, big)
    os.truncate(path, path.stat().st_size - (2 << 20))

    with pytest.raises(
        InvalidRequest,
        match=rf"^the archive ends in the middle of model {big}.*, blob sha256:[0-9a-f]{{64}}$",
    ):
        await imported(other, path)


async def test_a_cut_stream_leaves_nothing_half(
    shop: Shop, other: Shop, big: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.zst"
    await exported(shop, path, big, compress=True)

    with pytest.raises(
        InvalidRequest, match=f"ends in the middle of model big:latest, blob {DIGEST}"
    ):
        await imported(other, source=Pieces(path.read_bytes()[: 5 << 20]))
    assert await other.store.list() == []
    assert other.blobs() == set()


async def test_an_archive_that_changes_while_it_is_read_is_refused(
    shop: Shop, other: Shop, big: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.tar"
    await exported(shop, path, big)
    real = os.preadv

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        os.truncate(path, 6 << 20)
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(InvalidRequest, match=f"middle of model big:latest, blob {DIGEST}"):
        await imported(other, path)
    assert temps(other.root / "blobs") == []


# -- jobs at once ----------------------------------------------------------------------------------------------------


async def test_two_imports_of_one_archive_at_once(
    shop: Shop, other: Shop, big: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.tar"
    await exported(shop, path, big)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(imported, other, path)
        nursery.start_soon(imported, other, path)

    assert [model.name for model in await other.store.list()] == ["big:latest"]
    assert len(other.blobs()) == 3
    assert (other.root / "blobs" / DIGEST.file_name).read_bytes() == BIG


class Gate:
    """An archive whose second half waits."""

    def __init__(self, data: bytes) -> None:
        self._pieces = [data[: len(data) // 2], data[len(data) // 2 :], b""]
        self.reached, self.opened = trio.Event(), trio.Event()

    async def next(self) -> bytes:
        if len(self._pieces) == 2:
            self.reached.set()
            await self.opened.wait()
        return self._pieces.pop(0)


async def test_blobs_of_a_running_import_survive_the_deletion_of_models_that_share_them(
    shop: Shop, other: Shop, tmp_path: Path
) -> None:
    path = tmp_path / "x.tar"
    await put_model(shop, "m", SMALL, BIG)
    await exported(shop, path, "m")
    await put_model(other, "same", SMALL)
    gate = Gate(path.read_bytes())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_import_stream, other, gate)
        await gate.reached.wait()
        await other.store.delete("same")
        gate.opened.set()

    assert [model.name for model in await other.store.list()] == ["m:latest"]
    assert (other.root / "blobs" / Digest.of(SMALL).file_name).read_bytes() == SMALL


async def _import_stream(shop: Shop, source: Gate) -> None:
    await imported(shop, source=source)


async def test_an_export_outlives_the_deletion_of_its_model(
    shop: Shop, other: Shop, big: str
) -> None:
    pieces: list[bytes] = []
    async with shop.jobs.export_stream(ExportRequest(models=[big])) as archive:
        pieces.append(await anext(archive))
        await shop.store.delete(big)
        pieces += [piece async for piece in archive]
    await imported(other, source=Pieces(b"".join(pieces)))

    assert (other.root / "blobs" / DIGEST.file_name).read_bytes() == BIG
    assert DIGEST.file_name not in shop.blobs()


async def test_an_export_that_nobody_reads_any_more_ends(shop: Shop, big: str) -> None:
    async with shop.jobs.export_stream(ExportRequest(models=[big])) as archive:
        await anext(archive)
    await shop.store.delete(big)

    assert DIGEST.file_name not in shop.blobs()


async def test_an_export_that_is_left_removes_its_file(
    shop: Shop, big: str, tmp_path: Path
) -> None:
    place = tmp_path / "out"
    place.mkdir()
    async with shop.jobs.export(ExportRequest(models=[big], path=f"{place}/x.tar")) as steps:
        await anext(steps)

    assert os.listdir(place) == []


async def test_a_target_that_appears_meanwhile_is_kept(
    shop: Shop, big: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.tar"

    async def export_in_vain() -> None:
        async with shop.jobs.export(ExportRequest(models=[big], path=str(path))) as steps:
            async for _ in steps:
                path.write_bytes(b"mine")

    with pytest.raises(InvalidRequest, match="exists already"):
        await export_in_vain()
    assert path.read_bytes() == b"mine"
    assert temps(tmp_path) == []


# -- what others make and read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["gnu", "pax", "ustar", "v7"])
async def test_tars_of_other_programs_are_taken(
    shop: Shop, other: Shop, big: str, tmp_path: Path, form: str
) -> None:
    folder, path = tmp_path / "layout", tmp_path / "x.tar"
    await exported(shop, f"{folder}/", big)
    await trio.run_process(["tar", f"--format={form}", "-C", str(folder), "-cf", str(path), "."])
    await imported(other, path)

    assert (other.root / "blobs" / DIGEST.file_name).read_bytes() == BIG


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
async def test_a_real_disk_that_is_full(shop: Shop, big: str, small_disk: Path) -> None:
    with pytest.raises(DiskFull, match=r"no space left on device: 9\.7 MB needed, .* free"):
        await exported(shop, small_disk / "x.tar", big)
    assert os.listdir(small_disk) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_shared_blocks_are_hashed_as_they_are_in_the_store(
    shop: Shop, other: Shop, big: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on XFS and Btrfs, where this was run for real; other file systems are made to look like them."""
    path, is_spoiled, n_shared = tmp_path / "x.tar", False, 0

    def ioctl(target: int, _request: int, packed: bytes) -> int:
        nonlocal n_shared
        source, at, size, to = struct.unpack("=qQQQ", packed)
        assert (at % 4096, to % 4096, size % 4096) == (0, 0, 0)
        data = os.pread(source, size, at)
        assert os.pwrite(target, bytes(size) if is_spoiled else data, to) == size
        n_shared += size
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    await exported(shop, path, big)
    await imported(other, path)
    assert (other.root / "blobs" / DIGEST.file_name).read_bytes() == BIG
    await other.store.delete(big)
    is_spoiled = True

    with pytest.raises(DigestMismatch, match="damaged in the archive"):
        await imported(other, path)
    assert n_shared > 3 * (len(BIG) - 4096)
    assert other.blobs() == set()
