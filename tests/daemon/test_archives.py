"""Archives between real daemons: by path, through a pipe, through the connection, and after kill -9 in the middle."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kit.daemon import Daemon, run_daemon, wait_until
from olm.store.archive import plan_members
from olm.store.catalog import Entry
from olm.store.manifests import MODEL, Layer, config_layer, decode_manifest, encode_manifest
from olm.store.names import Digest, ModelName

pytestmark = [pytest.mark.slow, pytest.mark.daemon]

LIGHT = {"OLM_SPARE_WORKER": "0"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Daemon]]:
    home = tmp_path_factory.mktemp("pair")
    with run_daemon(home / "one", LIGHT) as one, run_daemon(home / "two", LIGHT) as two:
        yield one, two


def olm(daemon: Daemon, *args: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, **daemon.env}
    return subprocess.run(
        [sys.executable, "-m", "olm", *args], env=env, input=data, capture_output=True, check=False
    )


def digest_of_tiny(daemon: Daemon) -> str:
    path = daemon.home / "models/manifests/registry.ollama.ai/library/tiny/latest"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def post(daemon: Daemon, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    where = urlsplit(daemon.url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)
    connection.request(
        "POST", path, body, {key.replace("_", "-"): value for key, value in headers.items()}
    )
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, data


def test_a_pipe_between_two_daemons(pair: tuple[Daemon, Daemon]) -> None:
    one, two = pair
    assert olm(two, "rm", "tiny").returncode == 0
    command = [sys.executable, "-m", "olm"]

    with subprocess.Popen(
        [*command, "export", "tiny", "-", "--compress"],
        env={**os.environ, **one.env},
        stdout=subprocess.PIPE,
    ) as source:
        done = subprocess.run(
            [*command, "import", "-"],
            env={**os.environ, **two.env},
            stdin=source.stdout,
            capture_output=True,
            check=False,
        )

    assert (source.returncode, done.returncode, done.stderr) == (0, 0, b"importing\nsuccess\n")
    assert digest_of_tiny(two) == digest_of_tiny(one) != ""


@pytest.mark.parametrize("name", ["out.tar", "folder/"])
def test_a_path_on_this_machine(pair: tuple[Daemon, Daemon], tmp_path: Path, name: str) -> None:
    one, two = pair
    path = f"{tmp_path}/{name}"

    first = olm(one, "export", "tiny", path)
    again = olm(one, "export", "tiny", path.rstrip("/"))
    into = olm(two, "import", path, "--name", "given")

    assert (first.returncode, into.returncode) == (0, 0), first.stderr + into.stderr
    assert again.returncode == 1
    assert b"exists already" in again.stderr
    assert b"given:latest" in olm(two, "list").stdout
    assert first.stderr.endswith(b"success\n")


def test_who_comes_through_a_proxy_names_no_path(
    pair: tuple[Daemon, Daemon], tmp_path: Path
) -> None:
    body = json.dumps({"models": ["tiny"], "path": f"{tmp_path}/x.tar"}).encode()
    proxied = post(pair[0], "/api/export", body, X_Forwarded_For="10.0.0.1")
    nothing = post(pair[0], "/api/import", b"{}")

    assert proxied[0] == 403
    assert nothing[0] == 400
    assert b"path is required" in nothing[1]
    assert list(tmp_path.iterdir()) == []


def test_errors_are_one_line(pair: tuple[Daemon, Daemon], tmp_path: Path) -> None:
    for args in (["export", "nope", f"{tmp_path}/x.tar"], ["export", "nope", "-"]):
        done = olm(pair[0], *args)

        assert done.returncode == 1
        assert done.stderr == b"Error: model 'nope' not found\n"
    refused = olm(pair[0], "import", "-", data=b"no archive" * 100)
    assert refused.returncode == 1
    assert refused.stderr.endswith(
        b"Error: not a tar archive, or a damaged one: a header's checksum is wrong\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_kill_in_the_middle_of_an_import(tmp_path: Path) -> None:
    """A daemon killed while it imports opens clean, and the second import goes on where the first was."""
    archive, big = tmp_path / "big.tar", random.Random(5).randbytes(8 << 20)
    write_archive(archive, [big, big[::-1]])
    data = archive.read_bytes()
    blobs = tmp_path / "home/models/blobs"
    first = blobs / Digest.of(big).file_name
    with run_daemon(tmp_path / "home", LIGHT) as daemon:
        where = urlsplit(daemon.url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port)
        connection.putrequest("POST", "/api/import")
        connection.putheader("Content-Type", "application/x-tar")
        connection.putheader("Content-Length", str(len(data)))
        connection.endheaders(data[: 12 << 20])
        wait_until(lambda: first.exists() and list(blobs.glob(".olm-tmp-*")), what="the second")
        daemon.stop(signal.SIGKILL)
        connection.close()

    with run_daemon(tmp_path / "home", LIGHT) as daemon:
        inode = first.stat().st_ino
        left = list(blobs.glob(".olm-tmp-*"))
        listed = olm(daemon, "list").stdout
        done = olm(daemon, "import", str(archive))

        assert left == []
        assert b"big" not in listed
        assert done.returncode == 0, done.stderr
        assert first.stat().st_ino == inode
        assert b"big:latest" in olm(daemon, "list").stdout
    assert (blobs / Digest.of(big[::-1]).file_name).read_bytes() == big[::-1]


def write_archive(path: Path, contents: list[bytes]) -> None:
    """Write an archive as an export does, with Python's own tar."""
    import io

    config = b'{"model_format":"gguf"}'
    layers = [Layer(MODEL, str(Digest.of(data)), len(data)) for data in contents]
    manifest = encode_manifest(config_layer(Digest.of(config), len(config)), layers)
    by_digest = {str(Digest.of(data)): data for data in (config, *contents)}
    entry = Entry(
        ModelName.parse("big"),
        hashlib.sha256(manifest).hexdigest(),
        0,
        decode_manifest(manifest),
        manifest,
    )
    with tarfile.open(path, "w") as tar:
        for member in plan_members([entry]):
            info = tarfile.TarInfo(member.path)
            info.size = member.size
            tar.addfile(info, io.BytesIO(member.data or by_digest[str(member.digest)]))


def test_readers_that_leave_and_paths_that_cannot_be(
    pair: tuple[Daemon, Daemon], tmp_path: Path
) -> None:
    one, _ = pair
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    command = f"'{sys.executable}' -m olm export tiny - | head -c 100 | wc -c"

    piped = subprocess.run(
        ["bash", "-c", command], env={**os.environ, **one.env}, capture_output=True, check=False
    )
    answers = {
        path: olm(one, "export", "tiny", path).stderr.decode()
        for path in (f"{tmp_path}/none/x.tar", f"{tmp_path}/full", f"{one.home}/models/x.tar", "")
    }

    assert piped.stdout.strip() == b"100"
    assert piped.stderr == b""
    assert [text.count("\n") for text in answers.values()] == [1, 1, 1, 1]
    words = ["there is no folder", "with something in it", "inside the model", "-"]
    assert all(word in text for word, text in zip(words, answers.values(), strict=True))
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "full", tmp_path / "full" / "mine"]


def test_a_client_that_leaves_an_import_leaves_what_was_verified(
    pair: tuple[Daemon, Daemon], tmp_path: Path
) -> None:
    _, two = pair
    archive, big = tmp_path / "big.tar", random.Random(6).randbytes(6 << 20)
    write_archive(archive, [big, big[::-1]])
    data, blobs = archive.read_bytes(), two.home / "models/blobs"
    where = urlsplit(two.url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port)
    connection.putrequest("POST", "/api/import")
    connection.putheader("Content-Type", "application/x-tar")
    connection.putheader("Content-Length", str(len(data)))
    connection.endheaders(data[: 9 << 20])
    first = blobs / Digest.of(big).file_name
    wait_until(lambda: first.exists() and list(blobs.glob(".olm-tmp-*")), what="the second")
    connection.close()
    wait_until(lambda: not list(blobs.glob(".olm-tmp-*")), what="its end")
    inode = first.stat().st_ino

    assert b"big" not in olm(two, "list").stdout
    assert olm(two, "import", str(archive)).returncode == 0
    assert first.stat().st_ino == inode
    assert b"big:latest" in olm(two, "list").stdout
