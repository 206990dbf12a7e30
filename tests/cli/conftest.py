"""Fixtures of the CLI tests: the canned server, an environment that points at it, and the command as a process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from cli.canned import Canned, Run, handler


@pytest.fixture
def server() -> Iterator[Canned]:
    canned = Canned()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler(canned))
    httpd.daemon_threads = True
    canned.port = httpd.server_address[1]
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield canned
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


@pytest.fixture
def environment(server: Canned, tmp_path: Path) -> dict[str, str]:
    """The environment of a command that talks to the canned server."""
    mine = {k: v for k, v in os.environ.items() if not k.startswith(("OLM_", "OLLAMA_"))}
    return {
        **mine,
        "OLM_HOST": f"127.0.0.1:{server.port}",
        "OLM_HOME": str(tmp_path / "home"),
        "PYTHONUNBUFFERED": "1",
        "TERM": "xterm-256color",
    }


@pytest.fixture
def olm(environment: dict[str, str], tmp_path: Path) -> Run:
    """Run the command as a process, with nothing on its standard input unless `input` is given."""

    def run(*args: str, input: str = "", **env: str) -> subprocess.CompletedProcess[str]:  # noqa: A002
        return subprocess.run(
            [sys.executable, "-m", "olm", *args],
            input=input,
            env={**environment, **env},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            cwd=tmp_path,
        )

    return run
