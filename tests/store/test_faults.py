"""kill -9, full disks and I/O errors at every step; read-only stores; file size limits; a second daemon."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from olm.errors import DiskFull, StoreError, StoreLocked
from olm.store.disk import TEMP_PREFIX
from olm.store.library import Library
from olm.store.manifests import MODEL, SYSTEM, Layer, config_layer, encode_manifest
from olm.store.names import Digest, ModelName
from store.faults import at_step, run_and_kill
from store.gguf_files import model

GGUF = model(general__name="weights")
OLD, NEW = b"old system", b"new system"


def put_model(library: Library, name: str, system: bytes) -> None:
    """What an upload and a create do to the disk, without the actors."""
    with library.blobs.create(Digest.of(GGUF)) as pending:
        for at in range(0, len(GGUF), 300):
            pending.write(GGUF[at : at + 300])
        weights, _ = pending.commit()
    text, _ = library.blobs.put(system)
    config, _ = library.blobs.put(b'{"model_format":"gguf"}')
    layers = [Layer(MODEL, str(weights), len(GGUF)), Layer(SYSTEM, str(text), len(system))]
    library.publish(ModelName.parse(name), encode_manifest(config_layer(config, 23), layers))


def work(root: Path) -> Callable[[], None]:
    """Open, upload, create over an old model, copy, delete, close: every way the store changes its files."""

    def run() -> None:
        library = Library.open(root, builtin=False)
        try:
            put_model(library, "m", NEW)
            library.copy("m", "ns/copy")
            library.delete("m")
        finally:
            library.close()

    return run


def check(root: Path) -> None:
    """The store opens clean; every model is whole, byte for byte; a name is old, new or rightly absent."""
    library = Library.open(root, builtin=False)
    try:
        entries = {entry.name.shortest: entry for entry in library.catalog.entries_or_raise()}
        for entry in entries.values():
            for layer in (entry.manifest.config, *entry.manifest.layers):
                data = library.blobs.path(layer.blob).read_bytes()
                assert hashlib.sha256(data).hexdigest() == layer.blob.hex
                assert len(data) == layer.size
        assert set(entries) <= {"m:latest", "ns/copy:latest"}
        assert entries, "the model is there under one of its names, whatever happened"
        for name in entries:
            assert library.get(name).system in {OLD.decode(), NEW.decode()}
        if "ns/copy:latest" in entries:
            assert library.get("ns/copy").system == NEW.decode()
        assert not list(root.rglob(".olm-tmp-*"))
        work_names = {path.name for path in (root / "blobs").iterdir()}
        assert all(len(name) == 71 for name in work_names)
    finally:
        library.close()


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    root = tmp_path / "prepared"
    library = Library.open(root, builtin=False)
    put_model(library, "m", OLD)
    library.close()
    return root


def copy_of(prepared: Path, tmp_path: Path, k: int) -> Path:
    root = tmp_path / f"run-{k}"
    shutil.copytree(prepared, root)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False])
def test_kill_9_at_every_step_leaves_a_store_that_opens_clean(
    prepared: Path, tmp_path: Path, before: bool
) -> None:
    killed = 0
    while True:
        root = copy_of(prepared, tmp_path, killed)
        if not run_and_kill(work(root), killed, before=before):
            break
        check(root)
        work(root)()  # and the same can simply be done again
        check(root)
        killed += 1

    assert killed > 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, DiskFull), (errno.EIO, StoreError), (errno.EDQUOT, DiskFull)],
)
def test_a_disk_that_says_no_at_any_step_is_one_clear_error(
    prepared: Path, tmp_path: Path, number: int, kind: type[StoreError]
) -> None:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    k, errors = 0, list[StoreError]()
    while True:
        root = copy_of(prepared, tmp_path, k)
        with at_step(k, fail) as made:
            try:
                work(root)()
            except StoreError as exc:
                errors.append(exc)
        if k >= len(made):
            break
        check(root)
        k += 1

    assert len(errors) > 15  # some steps are clean-up whose failure is borne
    assert all(isinstance(error, kind) for error in errors)
    line = re.compile(rf"cannot [a-z' /0-9:-]+: {os.strerror(number).lower()}")
    assert [
        e.message for e in errors if not line.fullmatch(e.message.replace(str(tmp_path), ""))
    ] == []


def test_short_writes_are_completed(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:7]))

    digest, is_new = library.blobs.put(b"x" * 1000)

    assert is_new
    assert library.blobs.read(digest) == b"x" * 1000


@pytest.mark.parametrize("way", ["commit", "adopt"])
def test_verified_bytes_take_the_place_of_a_blob_that_rotted(library: Library, way: str) -> None:
    digest, _ = library.blobs.put(b"x" * 1000)
    path = library.blobs.path(digest)
    path.write_bytes(b"y" * 1000)

    if way == "commit":
        with library.blobs.create(digest) as pending:
            pending.write(b"x" * 1000)
            _, is_new = pending.commit()
    else:
        temp = path.with_name(f"{TEMP_PREFIX}x")
        temp.write_bytes(b"x" * 1000)
        is_new = library.blobs.adopt(temp, digest, 1000)

    assert not is_new
    assert path.read_bytes() == b"x" * 1000
    assert not list(path.parent.glob(f"{TEMP_PREFIX}*"))


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing can be written, but names can be removed; as long as nothing was."""
    real_unlink = Path.unlink
    is_full = True

    def write(*_: object) -> int:
        if is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(*_)  # type: ignore[arg-type]  # handed through

    def unlink(path: Path, missing_ok: bool = False) -> None:
        nonlocal is_full
        real_unlink(path, missing_ok)
        is_full = is_full and path.name.startswith(TEMP_PREFIX)

    real_write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        patch.setattr(Path, "unlink", unlink)
        yield


def test_a_full_disk_does_not_stop_a_delete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library.open(tmp_path)
    with full_disk(monkeypatch):
        library.delete("tiny")
    library.close()

    again = Library.open(tmp_path)

    assert again.list() == []
    assert list((tmp_path / "blobs").iterdir()) == []
    again.close()


def test_a_failed_copy_leaves_no_folder(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library.open(prepared, builtin=False)
    before = sorted(prepared.rglob("*"))

    with full_disk(monkeypatch), pytest.raises(DiskFull):
        library.copy("m", "other.host/ns/copy")

    assert sorted(prepared.rglob("*")) == before
    library.close()


LIMITED = """
import resource, sys
from pathlib import Path
from olm.errors import DiskFull
from olm.store.library import Library
library = Library.open(Path(sys.argv[1]), builtin=False)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
before = sorted(p.name for p in library.blobs.folder.iterdir())
try:
    with library.blobs.create() as pending:
        for _ in range(20):
            pending.write(bytes(10_000))
        pending.commit()
except DiskFull as exc:
    print(exc)
assert sorted(p.name for p in library.blobs.folder.iterdir()) == before
library.blobs.put(b"small still fits")
"""

UNWRITABLE = """
import os, sys
from pathlib import Path
from olm.errors import StoreError
from olm.store.library import Library
import olm.gguf, olm.store.library
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
try:
    Library.open(Path(sys.argv[1]), builtin=False)
except StoreError as exc:
    print(exc)
print(len(Library.look(Path(sys.argv[1])).list()))
"""

SECOND = """
import sys
from pathlib import Path
from olm.errors import StoreLocked
from olm.store.library import Library
try:
    Library.open(Path(sys.argv[1]), builtin=False)
except StoreLocked as exc:
    print(exc)
print(len(Library.look(Path(sys.argv[1])).list()))
"""


def script(code: str, root: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_a_full_disk_keeps_the_store_working(prepared: Path) -> None:
    """A limit on file sizes is a full disk that root cannot pass either."""
    assert script(LIMITED, prepared) == ["cannot write to the model store: file too large"]


@pytest.mark.slow
def test_a_store_that_cannot_be_written_is_one_line_and_can_still_be_looked_at(
    prepared: Path,
) -> None:
    for path in (prepared, *prepared.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for path in prepared.parents:
        if path.stat().st_uid == os.getuid() and path.is_relative_to("/tmp"):
            path.chmod(path.stat().st_mode | 0o055)
    try:
        lines = script(UNWRITABLE, prepared)
    finally:
        for path in (prepared, *prepared.rglob("*")):
            path.chmod(0o755)

    assert lines == [f"cannot use the model store {prepared}: permission denied", "1"]


@pytest.mark.slow
def test_a_second_daemon_is_told_who_has_the_store(prepared: Path) -> None:
    library = Library.open(prepared, builtin=False)
    try:
        lines = script(SECOND, prepared)
    finally:
        library.close()

    assert lines == [
        f"another olm daemon (process {os.getpid()}) is using the model store {prepared}",
        "1",
    ]


def test_a_store_at_an_impossible_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match=r"^cannot use the model store .*: not a directory$"):
        Library.open(tmp_path / "file" / "models")


def test_the_lock_goes_with_the_library(prepared: Path) -> None:
    first = Library.open(prepared, builtin=False)
    with pytest.raises(StoreLocked):
        Library.open(prepared, builtin=False)

    first.close()

    Library.open(prepared, builtin=False).close()
