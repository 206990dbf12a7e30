"""Importance matrices of a whole daemon: the command from end to end, and a client that leaves in the middle."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kit.daemon import Daemon, run_daemon, wait_until
from olm.gguf import read_header

pytestmark = [pytest.mark.slow, pytest.mark.daemon, pytest.mark.native]

TEXT = " ".join(f"the {i * i % 97} cats sat on {i % 13} mats" for i in range(400))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with run_daemon(tmp_path_factory.mktemp("imatrix"), {"OLM_SPARE_WORKER": "0"}) as running:
        yield running


def _leftovers(daemon: Daemon) -> list[str]:
    return [path.name for path in (daemon.home / "models/blobs").glob(".olm-tmp-*")]


def test_the_command_makes_a_file_and_leaves_nothing_else(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "text").write_text(TEXT)
    command = [sys.executable, "-m", "olm", "imatrix", "tiny", "-f", "text", "--ctx", "64"]

    done = subprocess.run(
        [*command, "--chunks", "8"],
        env={**os.environ, **daemon.env},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "wrote tiny.imatrix.gguf\n"), done.stderr
    header = read_header(tmp_path / "tiny.imatrix.gguf")
    assert header.integer("imatrix.chunk_count") == 8
    assert "blk.0.attn_q.weight.in_sum2" in {tensor.name for tensor in header.tensors}
    assert _leftovers(daemon) == []


def test_a_client_that_leaves_ends_it(daemon: Daemon) -> None:
    where = urlsplit(daemon.url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)
    body = json.dumps({"model": "tiny", "text": TEXT * 200, "ctx": 64})
    connection.request("POST", "/api/imatrix", body)
    answer = connection.getresponse()
    while b'"completed"' not in answer.readline():
        pass
    assert len(_leftovers(daemon)) >= 1

    answer.close()
    connection.close()

    wait_until(lambda: _leftovers(daemon) == [])


@pytest.mark.parametrize(
    ("wrong", "status", "words"),
    [
        ({"model": "nobody"}, 404, "model 'nobody' not found"),
        ({"text": ""}, 400, "text is required"),
        ({"text": "short"}, 400, "are needed for chunks of 512"),
        ({"ctx": 8}, 400, "16 to 1048576 tokens"),
    ],
)
def test_what_is_wrong_is_said(
    daemon: Daemon, wrong: dict[str, object], status: int, words: str
) -> None:
    where = urlsplit(daemon.url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)
    body = {"model": "tiny", "text": TEXT, "stream": False, **wrong}
    connection.request("POST", "/api/imatrix", json.dumps(body))
    answer = connection.getresponse()

    found = answer.status, answer.read().decode()
    connection.close()

    assert found[0] == status
    assert words in found[1]
