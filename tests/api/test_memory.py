"""Memory of a real server process: uploads and oversized bodies pass through it, or are refused, without filling it."""

from __future__ import annotations

import hashlib
import http.client
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 1 << 20
UPLOAD_BYTES = int(os.environ.get("OLM_TEST_UPLOAD_BYTES", 256 * MIB))
"""Far above every buffer. Set the variable to 2147483648 for the size that the promise names."""

SERVER = """
import sys, trio
sys.path[:0] = {path!r}
from kit.slow_store import serve_slow_store
trio.run(serve_slow_store, {folder!r})
"""


@contextmanager
def slow_store(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server process whose store takes 50 ms to begin with, then writes to a file."""
    code = SERVER.format(path=[str(Path(__file__).parents[1])], folder=str(folder))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.terminate()


def peak_rss_bytes(pid: int) -> int:
    """The most memory a process has had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


@pytest.mark.slow
def test_an_upload_goes_to_disk_without_filling_memory(tmp_path: Path) -> None:
    piece = os.urandom(MIB)
    digest = hashlib.sha256()
    for _ in range(UPLOAD_BYTES // MIB):
        digest.update(piece)
    with slow_store(tmp_path) as (process, port), tempfile.TemporaryFile() as source:
        for _ in range(UPLOAD_BYTES // MIB):
            source.write(piece)
        source.seek(0)
        before = peak_rss_bytes(process.pid)
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
        client.request(
            "POST",
            f"/api/blobs/sha256:{digest.hexdigest()}",
            body=source,
            headers={"Content-Length": str(UPLOAD_BYTES)},
        )
        reply = client.getresponse()
        reply.read()
        client.close()
        after = peak_rss_bytes(process.pid)

    assert reply.status == 201
    assert after < 100 * MIB
    assert after - before < 30 * MIB


@pytest.mark.slow
def test_a_giant_body_leaves_memory_as_it_was(tmp_path: Path) -> None:
    with slow_store(tmp_path) as (process, port):
        before = peak_rss_bytes(process.pid)
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        client.putrequest("POST", "/api/chat")
        client.putheader("Content-Length", str(100 * MIB))
        client.endheaders()
        for _ in range(100):
            client.send(b" " * MIB)
        reply = client.getresponse()
        text = reply.read()
        client.close()
        after = peak_rss_bytes(process.pid)

    assert reply.status == 413
    assert b"request body too large" in text
    assert after - before < 20 * MIB
