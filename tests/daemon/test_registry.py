"""Pushing to and pulling from a real OCI registry, `docker-registry` on loopback, by a whole daemon and the command line.

OLM_TEST_TRANSFER_MIB sets the size of the random model that goes there and back.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import httpx2
import pytest

from kit.certificates import Files, make_certificate
from kit.daemon import Daemon, run_daemon
from kit.docker_registry import LOGIN, PROGRAM, DockerRegistry, Mode, run_docker_registry
from olm.store.manifests import LICENSE, MODEL, Layer, config_layer, encode_manifest
from olm.store.names import Digest
from store.gguf_files import model

N_MIB = int(os.environ.get("OLM_TEST_TRANSFER_MIB", "8"))

pytestmark = [
    pytest.mark.daemon,
    pytest.mark.native,
    pytest.mark.slow,
    pytest.mark.skipif(
        PROGRAM is None,
        reason="there is no docker-registry: make test, or your packages, can get it",
    ),
]


@attrs.frozen
class Shop:
    """A daemon of the tests here, which trusts the certificate of every registry of theirs."""

    daemon: Daemon
    files: Files
    blobs: dict[str, int]

    def olm(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command that has to work."""
        done = self.run(*command)
        assert done.returncode == 0, done.stderr
        return done

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the CLI."""
        return subprocess.run(
            [sys.executable, "-m", "olm", *command],
            env={**os.environ, **self.daemon.env},
            capture_output=True,
            text=True,
        )

    def log_in(self, *hosts: str) -> None:
        """Have logins for these hosts and no others."""
        auth = base64.b64encode(":".join(LOGIN).encode()).decode()
        auths = {host: {"auth": auth} for host in hosts if host}
        (self.daemon.home / "registry-auth.json").write_text(json.dumps({"auths": auths}))

    def ask(self, model: str) -> object:
        """What a model answers to who it is."""
        question = {"role": "user", "content": "Who are you?"}
        body = {"model": model, "messages": [question], "think": False, "stream": False}
        return httpx2.post(self.daemon.url + "/api/chat", json=body, timeout=60).json()["message"]

    def path(self, digest: str) -> Path:
        """Where a blob is."""
        return self.daemon.home / "models" / "blobs" / digest.replace(":", "-")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("registry")
    files = make_certificate(folder, "registry")
    blobs = fill(folder / "home" / "models")
    env = {"SSL_CERT_FILE": str(files.cert), "DOCKER_CONFIG": str(folder)}
    with run_daemon(folder / "home", env) as daemon:
        yield Shop(daemon, files, blobs)


def fill(store: Path) -> dict[str, int]:
    """Put a model of three large layers into a store that no daemon has opened yet; returns its blobs' sizes by digest."""
    rng = random.Random(1)
    (store / "blobs").mkdir(parents=True)
    layers = [
        (MODEL, write_blob(store, model(), N_MIB // 3, lambda: rng.randbytes(1 << 20))),
        (
            LICENSE,
            write_blob(store, b"", N_MIB // 3, lambda: rng.randbytes(1 << 19).hex().encode()),
        ),
        (
            LICENSE,
            write_blob(store, b"", N_MIB // 3, lambda: rng.randbytes(1 << 19).hex().encode()),
        ),
    ]
    config = b'{"model_format":"gguf","model_family":"llama"}'
    top = write_blob(store, config, 0, lambda: b"")
    manifest = encode_manifest(
        config_layer(Digest.parse(top[0]), top[1]),
        [Layer(media_type, *blob) for media_type, blob in layers],
    )
    path = store / "manifests" / "registry.ollama.ai" / "library" / "big" / "latest"
    path.parent.mkdir(parents=True)
    path.write_bytes(manifest)
    return dict([top, *(blob for _, blob in layers)])


def write_blob(
    store: Path, head: bytes, n_pieces: int, piece: Callable[[], bytes]
) -> tuple[str, int]:
    temp = store / "temp"
    with temp.open("wb+") as file:
        file.write(head)
        for _ in range(n_pieces):
            file.write(piece())
        size = file.tell()
        file.seek(0)
        hexes = hashlib.file_digest(file, "sha256").hexdigest()
    temp.rename(store / "blobs" / f"sha256-{hexes}")
    return f"sha256:{hexes}", size


@pytest.fixture(params=["plain", "tls", "basic", "token"])
def registry(
    request: pytest.FixtureRequest, tmp_path: Path, shop: Shop
) -> Iterator[DockerRegistry]:
    mode: Mode = request.param
    with run_docker_registry(tmp_path / "registry", mode, shop.files) as running:
        shop.log_in("" if mode in ("plain", "tls") else running.realm or running.host)
        yield running


@pytest.fixture
def plain(tmp_path: Path, shop: Shop) -> Iterator[DockerRegistry]:
    with run_docker_registry(tmp_path / "registry", "plain", shop.files) as running:
        yield running


def insecure(request: pytest.FixtureRequest) -> list[str]:
    return [] if request.node.callspec.params["registry"] == "tls" else ["--insecure"]


def test_a_model_is_pushed_and_pulled_whatever_the_registry_asks_for(
    shop: Shop, registry: DockerRegistry, request: pytest.FixtureRequest
) -> None:
    name, flags = f"{registry.host}/me/tiny:v1", insecure(request)

    shop.olm("cp", "tiny", name)
    pushed = shop.olm("push", *flags, name)
    shop.olm("rm", name)
    pulled = shop.olm("pull", *flags, name)
    shop.olm("rm", name)

    lines = pushed.stderr.splitlines()
    assert lines[0] == "retrieving manifest"
    assert lines[-2:] == ["pushing manifest", "success"]
    assert pulled.stderr.splitlines()[-1] == "success"


def test_a_model_that_was_pushed_and_pulled_answers_as_before(
    shop: Shop, plain: DockerRegistry
) -> None:
    name = f"{plain.host}/me/tiny:v1"
    before = shop.ask("tiny")
    shop.olm("cp", "tiny", name)
    shop.olm("push", "--insecure", name)
    shop.olm("rm", name)
    shop.olm("rm", "tiny")

    shop.olm("pull", "--insecure", name)

    assert shop.ask(name) == before
    shop.olm("cp", name, "tiny")
    shop.olm("rm", name)


def test_a_large_model_goes_there_and_back_byte_for_byte(shop: Shop, plain: DockerRegistry) -> None:
    name = f"{plain.host}/me/big:latest"
    shop.olm("cp", "big", name)
    shop.olm("push", "--insecure", name)
    shop.olm("rm", name)
    shop.olm("rm", "big")
    assert not any(shop.path(digest).exists() for digest in shop.blobs)

    shop.olm("pull", "--insecure", name)

    check_whole(shop)
    shop.olm("cp", name, "big")
    shop.olm("rm", name)


@pytest.mark.parametrize("flags", [[], ["--compress"]])
def test_a_large_model_leaves_in_an_archive_and_comes_back_byte_for_byte(
    shop: Shop, tmp_path: Path, flags: list[str]
) -> None:
    shop.olm("cp", "big", "copy")
    shop.olm("export", "big", "copy", f"{tmp_path}/x.tar", *flags)
    shop.olm("rm", "big", "copy")
    assert not any(shop.path(digest).exists() for digest in shop.blobs)

    shop.olm("import", f"{tmp_path}/x.tar")

    check_whole(shop)
    shop.olm("rm", "copy")
    check_whole(shop)


def test_a_model_imported_and_deleted_while_it_is_pulled_is_whole_at_the_end(
    shop: Shop, plain: DockerRegistry, tmp_path: Path
) -> None:
    name = f"{plain.host}/me/big:latest"
    shop.olm("cp", "big", name)
    shop.olm("push", "--insecure", name)
    shop.olm("export", "big", f"{tmp_path}/x.tar")
    shop.olm("rm", name, "big")
    body = {"model": name, "insecure": True, "limit_rate": N_MIB << 20}  # it takes a second
    statuses = []

    with httpx2.stream("POST", shop.daemon.url + "/api/pull", json=body, timeout=60) as pull:
        for line in pull.iter_lines():
            step = json.loads(line)
            if 0 < step.get("completed", 0) < step.get("total", 0) and "began" not in statuses:
                statuses.append("began")
                shop.olm("import", f"{tmp_path}/x.tar")
                check_whole(shop)
                shop.olm("rm", "big")
            statuses.append(step.get("status") or step["error"])

    assert "began" in statuses
    assert statuses[-1] == "success"
    check_whole(shop)
    check = httpx2.post(shop.daemon.url + "/api/store/check", json={"stream": False}, timeout=60)
    assert check.json() == {"status": "success", "findings": []}
    shop.olm("cp", name, "big")
    shop.olm("rm", name)


def check_whole(shop: Shop) -> None:
    for digest, size in shop.blobs.items():
        with shop.path(digest).open("rb") as file:
            assert "sha256:" + hashlib.file_digest(file, "sha256").hexdigest() == digest
            assert file.tell() == size


def test_a_wrong_password_is_a_refusal_in_one_line(shop: Shop, tmp_path: Path) -> None:
    with run_docker_registry(tmp_path / "registry", "basic", shop.files) as registry:
        shop.log_in()
        name = f"{registry.host}/me/tiny"
        shop.olm("cp", "tiny", name)

        pushed = shop.run("push", "--insecure", name)
        pulled = shop.run("pull", "--insecure", name)

    shop.olm("rm", name)
    assert pushed.returncode == pulled.returncode == 1
    assert pushed.stderr.splitlines()[-1] == "Error: unauthorized: access denied"
    assert pulled.stderr.splitlines()[-1] == (
        "Error: pull model manifest: unauthorized: access denied"
    )


def test_a_token_server_that_nobody_named_is_told_nothing(shop: Shop, tmp_path: Path) -> None:
    with run_docker_registry(tmp_path / "registry", "token", shop.files) as registry:
        shop.log_in(registry.host)

        pulled = shop.run("pull", "--insecure", f"{registry.host}/me/tiny")

    assert f'realm host "{registry.realm}" does not match original host' in pulled.stderr
    assert registry.scopes == []


def test_a_model_that_the_registry_lacks_is_said_to_be(shop: Shop, plain: DockerRegistry) -> None:
    body = {"model": f"http://{plain.host}/library/none", "insecure": True, "stream": False}

    answer = httpx2.post(shop.daemon.url + "/api/pull", json=body, timeout=60)

    assert answer.status_code == 500
    assert answer.json() == {"error": "pull model manifest: file does not exist"}


def test_a_registry_without_tls_is_refused_unless_allowed(
    shop: Shop, plain: DockerRegistry
) -> None:
    body = {"model": f"http://{plain.host}/library/tiny", "stream": False}

    for path in ("/api/pull", "/api/push"):
        answer = httpx2.post(shop.daemon.url + path, json=body, timeout=60)
        assert (answer.status_code, answer.json()) == (500, {"error": "insecure protocol http"})


def test_a_registry_without_tls_is_told_from_one_that_is_not_there(
    shop: Shop, plain: DockerRegistry
) -> None:
    name = f"{plain.host}/me/tiny:latest"
    shop.olm("cp", "tiny", name)

    for path in ("/api/pull", "/api/push"):
        body = {"model": name, "stream": False}
        error = httpx2.post(shop.daemon.url + path, json=body, timeout=20).json()["error"]
        assert ": the server does not speak TLS; --insecure goes there without (" in error
        assert "max retries" not in error
    shop.olm("rm", name)
