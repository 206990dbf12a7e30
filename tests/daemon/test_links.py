"""Models run in place and split models, through a whole daemon: they answer, they notice changes, they leave files alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from kit.daemon import Daemon, run_daemon
from kit.gguf_split import split_gguf, split_names
from olm.store.links import FOLDER

pytestmark = [pytest.mark.slow, pytest.mark.daemon, pytest.mark.native]

GREEDY = {"temperature": 0, "num_predict": 8, "seed": 1}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with run_daemon(tmp_path_factory.mktemp("home"), {"OLM_SPARE_WORKER": "0"}) as running:
        yield running


def olm(daemon: Daemon, *args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **daemon.env}
    return subprocess.run(
        [sys.executable, "-m", "olm", *args],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def answer(daemon: Daemon, model: str) -> str:
    body = {"model": model, "prompt": "The sky", "stream": False, "raw": True, "options": GREEDY}
    reply = httpx2.post(f"{daemon.url}/api/generate", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["response"])


def tiny_weights(daemon: Daemon) -> Path:
    store = daemon.home / "models"
    manifest = json.loads((store / "manifests/registry.ollama.ai/library/tiny/latest").read_text())
    layer = next(item for item in manifest["layers"] if item["mediaType"].endswith("image.model"))
    return store / "blobs" / layer["digest"].replace(":", "-")


def variant(daemon: Daemon, path: Path) -> Path:
    """Weights like tiny's that the store does not have: bytes behind the last tensor are nothing to the engine."""
    path.write_bytes(tiny_weights(daemon).read_bytes() + os.urandom(64))
    return path


def create(daemon: Daemon, name: str, folder: Path, *flags: str) -> str:
    done = olm(daemon, "create", name, *flags, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_linked_model_answers_and_notices_that_its_file_changed(
    daemon: Daemon, tmp_path: Path
) -> None:
    path = variant(daemon, tmp_path / "w.gguf")
    said = create(daemon, "linked", tmp_path, "--link")
    shown = olm(daemon, "show", "linked").stdout
    is_link = f"linked to {path}" in said  # not where the file system could clone it

    assert answer(daemon, "linked") == answer(daemon, "tiny")
    assert (
        any(line.split() == ["linked", "to", str(path)] for line in shown.splitlines()) == is_link
    )
    if not is_link:
        pytest.skip("this file system clones")

    path.write_bytes(b"GGUF" + bytes(100))
    reply = httpx2.post(
        f"{daemon.url}/api/generate", json={"model": "linked", "prompt": "x"}, timeout=60
    )
    assert reply.status_code == 500
    assert f"the linked file {path} changed since the model was made" in reply.json()["error"]
    assert "linked:latest" in olm(daemon, "list").stdout
    assert answer(daemon, "tiny")

    assert olm(daemon, "rm", "linked").returncode == 0
    assert path.exists()
    assert not list((daemon.home / "models" / FOLDER).iterdir())


@pytest.mark.parametrize("flags", [[], ["--link"]])
def test_split_models_answer(daemon: Daemon, tmp_path: Path, flags: list[str]) -> None:
    whole = variant(daemon, tmp_path / "whole.bin")
    folder = tmp_path / "parts"
    folder.mkdir()
    for name, data in zip(split_names("m", 3), split_gguf(whole, 3), strict=True):
        (folder / name).write_bytes(data)

    create(daemon, "split", folder, *flags)

    assert answer(daemon, "split") == answer(daemon, "tiny")


def test_who_may_name_a_path_of_the_server(daemon: Daemon, tmp_path: Path) -> None:
    path = variant(daemon, tmp_path / "w.gguf")
    body = {"model": "x", "links": {"w.gguf": str(path)}, "stream": False}

    proxied = httpx2.post(
        f"{daemon.url}/api/create", json=body, headers={"X-Forwarded-For": "10.0.0.1"}
    )
    outside = httpx2.post(f"{daemon.url}/api/create", json={**body, "links": {"../w": str(path)}})
    absent = httpx2.post(f"{daemon.url}/api/create", json={**body, "links": {"w": "/nowhere/w"}})

    assert proxied.status_code == 403
    assert (outside.status_code, outside.json()["error"]) == (400, "file path must be relative")
    assert absent.json()["error"].startswith("the server does not see the file /nowhere/w")
