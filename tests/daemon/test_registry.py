"""Pulling from a real OCI registry, `docker-registry` on loopback, through the whole daemon and the command line."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from kit.daemon import Daemon, wait_until

REGISTRY = shutil.which("docker-registry")

pytestmark = [
    pytest.mark.daemon,
    pytest.mark.native,
    pytest.mark.slow,
    pytest.mark.skipif(REGISTRY is None, reason="docker-registry is not installed"),
]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """An empty registry; its host and port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    config = tmp_path / "registry.yml"
    config.write_text(
        f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {tmp_path}/blobs\nhttp:\n  addr: {host}\n"
    )
    assert REGISTRY is not None
    process = subprocess.Popen(
        [REGISTRY, "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: _answers(f"http://{host}/v2/"))
        yield host
    finally:
        process.terminate()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url).status_code == 200
    except httpx2.TransportError:
        return False


def upload(daemon: Daemon, host: str) -> None:
    """Put the built-in model into the registry as `library/tiny`, by the distribution protocol."""
    base, store = f"http://{host}/v2/library/tiny", daemon.home / "models"
    (path,) = (store / "manifests").rglob("tiny/latest")
    manifest = json.loads(path.read_bytes())
    for layer in [manifest["config"], *manifest["layers"]]:
        begun = httpx2.post(f"{base}/blobs/uploads/")
        place = httpx2.URL(begun.headers["location"]).copy_merge_params({"digest": layer["digest"]})
        data = (store / "blobs" / layer["digest"].replace(":", "-")).read_bytes()
        assert httpx2.put(place, content=data).status_code == 201
    headers = {"content-type": manifest["mediaType"]}
    put = httpx2.put(f"{base}/manifests/latest", content=path.read_bytes(), headers=headers)
    assert put.status_code == 201


def test_a_pulled_model_answers(start_daemon: Callable[..., Daemon], registry: str) -> None:
    upload(start_daemon(), registry)
    daemon = start_daemon()
    httpx2.request("DELETE", daemon.url + "/api/delete", json={"model": "tiny"})
    model = f"http://{registry}/library/tiny"

    command = [sys.executable, "-m", "olm", "pull", "--insecure", model]
    pulled = subprocess.run(
        command, env={**os.environ, **daemon.env}, capture_output=True, text=True
    )
    question = {"role": "user", "content": "Who are you?"}
    body = {"model": f"{registry}/library/tiny", "messages": [question], "think": False}
    answer = httpx2.post(daemon.url + "/api/chat", json={**body, "stream": False}, timeout=60)

    assert pulled.returncode == 0, pulled.stderr
    assert answer.json()["message"]["content"] == "I am tiny, the small model that ships with olm."


def test_a_model_that_the_registry_lacks_is_said_to_be(daemon: Daemon, registry: str) -> None:
    body = {"model": f"http://{registry}/library/none", "insecure": True, "stream": False}

    answer = httpx2.post(daemon.url + "/api/pull", json=body, timeout=60)

    assert answer.status_code == 500
    assert answer.json() == {"error": "pull model manifest: file does not exist"}
