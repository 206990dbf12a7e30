"""The crash test in short, and that it finds what it is for: a store that does not sync, or writes in place."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from crash.disk import Disk, read_tree
from crash.journal import Kind, Record
from crash.shim import compiler
from olm.errors import StoreError
from olm.store.names import Digest
from olm.store.partials import PartialBlob

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or compiler() is None,
    reason="needs Linux and a C compiler",
)
ROOT = Path(__file__).parents[2]


def crash(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, (ROOT / "tests", ROOT / "src")))
    return subprocess.run(
        [sys.executable, "-m", "crash.run", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_forty_deaths_leave_forty_stores_in_order() -> None:
    """One thousand: `make crash-test`."""
    done = crash("--seeds", "40", "--cuts", "1")

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("sabotage", ["file-syncs", "in-place"])
def test_a_store_that_is_wrong_is_found_out(sabotage: str) -> None:
    """The other sabotages take longer to be found; they were tried by hand, as docs/reliability.md tells."""
    done = crash("--seeds", "60", "--first", "--sabotage", sabotage)

    assert done.returncode == 1, done.stderr
    assert "the harness failed" not in done.stdout


def record(kind: Kind, first: str = "", second: str = "", **fields: int | bytes) -> Record:
    data = fields.pop("data", b"")
    assert isinstance(data, bytes)
    values = {"inode": 0, "offset": 0, "error": 0, "step": 0, **fields}
    return Record(kind=kind, first=first, second=second, data=memoryview(data), **values)  # type: ignore[arg-type]


def cuts(disk: Disk) -> set[bytes | None]:
    """What file `f` may be after a power cut; None when it is not there."""
    return {disk.after_power_cut(random.Random(seed)).get("f") for seed in range(200)}


def written(root: Path, *more: Record) -> Disk:
    """A disk on which bytes were written to a temporary file, which then got the name `f`."""
    disk = Disk(root)
    temp, final = str(root / "t"), str(root / "f")
    disk.apply(record(Kind.CREATE, temp, inode=1))
    disk.apply(record(Kind.WRITE, inode=1, data=b"new"))
    for item in more:
        disk.apply(item)
    disk.apply(record(Kind.RENAME, temp, final))
    return disk


def test_what_was_synced_stays_and_what_was_not_may_go(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    top = tmp_path.stat().st_ino

    lazy = written(tmp_path)
    half = written(tmp_path, record(Kind.SYNC, inode=1))
    careful = written(tmp_path, record(Kind.SYNC, inode=1))
    careful.apply(record(Kind.SYNC, inode=top))

    assert cuts(lazy) == {b"old", b"", bytes(3), b"new"}
    assert cuts(half) == {b"old", b"new"}
    assert cuts(careful) == {b"new"}


def test_a_sync_after_one_that_failed_saves_nothing_of_before(tmp_path: Path) -> None:
    """fsync says once that bytes were lost; the next time it succeeds, and they are still lost."""
    failed = record(Kind.SYNC, inode=1, error=5)
    disk = written(tmp_path, failed, record(Kind.SYNC, inode=1))
    disk.apply(record(Kind.SYNC, inode=tmp_path.stat().st_ino))

    assert b"" in cuts(disk)


def test_a_tree_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/c").write_bytes(b"1")

    assert Disk(tmp_path).tree() == read_tree(tmp_path) == {"a": None, "a/b": None, "a/c": b"1"}


def test_a_download_whose_sync_failed_vouches_for_nothing_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the crash test found: the next sync succeeds, and the bytes are still not on the disk."""
    data, real, n_calls = bytes(range(256)), os.fdatasync, 0

    def fail_once(fd: int) -> None:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fail_once)
    with PartialBlob(tmp_path, Digest.of(data), len(data)) as partial:
        partial.write_at(0, data[:100])
        partial.save()
        partial.write_at(100, data[100:])
        with pytest.raises(StoreError):
            partial.save()
        partial.save()
        partial.hash_all(lambda: None)
        with pytest.raises(StoreError):
            partial.publish()

    with PartialBlob(tmp_path, Digest.of(data), len(data)) as again:
        assert again.gaps() == [(100, 256)]
    assert not (tmp_path / Digest.of(data).file_name).exists()
