"""What the daemon costs when nobody asks anything: memory, CPU, and what it must not load."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.daemon import Daemon

pytestmark = [pytest.mark.daemon, pytest.mark.slow]

MIB = 1 << 20


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_an_idle_daemon_is_small_and_sleeps(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(OLM_SPARE_WORKER="0")
    pid = daemon.process.pid
    time.sleep(0.5)
    before_s = cpu_s(pid)

    time.sleep(2.0)

    assert cpu_s(pid) - before_s <= 0.01
    assert rss_bytes(pid) < 60 * MIB


def test_the_daemon_loads_neither_numpy_nor_the_engine() -> None:
    code = (
        "import sys, olm.actors.tree, olm.embed;"
        "print(sorted({'numpy', 'olm.native.lib', 'olm.native._olm', 'olm.native.worker'} & sys.modules.keys()))"
    )

    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )

    assert found.stdout.strip() == "[]"
