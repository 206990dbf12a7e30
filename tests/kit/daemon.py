"""A real daemon for tests: `olm serve` as a process, on a free port, with a store of its own.

    with run_daemon(tmp_path) as daemon:
        httpx2.get(daemon.url + "/api/version")

The fixtures `daemon` (one for the whole run, not to be disturbed) and `start_daemon` (as many as a test likes) are in
tests/conftest.py. Tests that use them carry the markers `daemon` and, where a model runs, `native`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs

__all__ = ["Daemon", "run_daemon", "second_tiny", "wait_until"]

_START_S = 20.0
_STOP_S = 20.0
_LISTENS = re.compile(r"listens on (https?://\S+|unix:\S+)")


@attrs.define
class Daemon:
    """A running `olm serve`.

    Attributes:
        url: such as http://127.0.0.1:40123, empty when it did not come up.
        home: its OLM_HOME; the store is `home/models`.
    """

    process: subprocess.Popen[bytes]
    home: Path
    log_path: Path
    url: str = ""

    @property
    def log(self) -> str:
        """What it has written to stderr so far."""
        return self.log_path.read_text()

    @property
    def env(self) -> dict[str, str]:
        """Variables with which the CLI and the official client find this daemon."""
        return {"OLM_HOST": self.url, "OLLAMA_HOST": self.url}

    def worker_pids(self) -> list[int]:
        """The daemon's worker processes, oldest first; the spare counts unless OLM_SPARE_WORKER=0."""
        pid = self.process.pid
        try:
            return [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except FileNotFoundError:
            return []

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it and wait; the exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end by itself; the exit status."""
        return self.process.wait(_STOP_S)


def wait_until(condition: Callable[[], object], *, within_s: float = 10.0, what: str = "") -> None:
    """Look at something outside this process until it holds; fail after `within_s`."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {within_s} s for {what or 'a condition'}"
        time.sleep(0.01)


@contextmanager
def run_daemon(
    home: Path, env: Mapping[str, str] | None = None, *, must_start: bool = True
) -> Iterator[Daemon]:
    """Start `olm serve` and wait until it listens, or has ended; stop it at the end of the block, by force if need be.

    Args:
        home: OLM_HOME; made when missing.
        env: more variables. Without OLM_HOST a free port is taken.
        must_start: fail when it does not come up.
    """
    home.mkdir(parents=True, exist_ok=True)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OLM_", "OLLAMA_"))}
    # Only the cache of the native build is the machine's own.
    keep = {k: v for k, v in os.environ.items() if k in ("OLM_CPU_VARIANT", "OLM_CACHE")}
    full = {**inherited, **keep, "OLM_HOME": str(home), "OLM_HOST": "127.0.0.1:0", **(env or {})}
    log_path = home / f"daemon-{time.monotonic_ns()}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "olm", "serve"], env=full, stdout=log, stderr=log
        )
    daemon = Daemon(process, home, log_path)
    try:
        _wait_started(daemon)
        if must_start:
            assert daemon.url, f"the daemon did not start:\n{daemon.log}"
        yield daemon
    finally:
        _end(process)


def _wait_started(daemon: Daemon) -> None:
    def settled() -> bool:
        found = _LISTENS.search(daemon.log)
        if found:
            daemon.url = found.group(1)
        return bool(found) or daemon.process.poll() is not None

    wait_until(settled, within_s=_START_S, what="the daemon to listen")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise AssertionError("the daemon did not stop in time after SIGTERM") from None


def second_tiny(folder: Path) -> Path:
    """Write the built-in model under another digest, so that it gets a runner of its own."""
    from importlib import resources

    data = resources.files("olm.data.tiny").joinpath("tiny-q8_0.gguf").read_bytes()
    changed = data.replace(b"general.name", b"general.xame", 1)
    assert changed != data, "the built-in model names itself"
    path = folder / "second.gguf"
    path.write_bytes(changed)
    return path
