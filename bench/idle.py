#!/usr/bin/env python3
"""What olm costs when nobody asks anything: memory and CPU of an idle daemon, and start-up of its commands.

    python bench/idle.py             # about 20 seconds
    python bench/idle.py --quick
    python bench/idle.py --publish   # also put the table into docs/performance.md

Ends with a non-zero status when a limit is exceeded, so that it can be a gate.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs
from machine import (
    cpu_seconds,
    describe_machine,
    process_tree,
    pss_bytes,
    rss_bytes,
    wait_until_idle,
)
from report import markdown_table, publish
from servers import BenchError, cache_directory, end_on_sigterm, olm_command, open_olm

__all__ = ["Figure", "main", "measure"]

# "No measurable CPU": /proc counts in 10 ms, so one tick of ten seconds is as near to nothing as can be seen.
_CPU_LIMIT_MS_PER_S: Final = 1.0


@attrs.frozen
class Figure:
    """One measured figure; `limit` is None where nothing is promised."""

    name: str
    value: float
    unit: str
    limit: float | None = None

    @property
    def is_kept(self) -> bool:
        """Whether the figure is within its limit."""
        return self.limit is None or self.value <= self.limit


def _median_ms(command: Sequence[str], environ: dict[str, str], n_runs: int) -> float:
    """Median wall time of a command, after one run that fills the caches; raises BenchError when it fails."""
    times: list[float] = []
    for _ in range(n_runs + 1):
        started = time.perf_counter()
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        times.append((time.perf_counter() - started) * 1e3)
        if done.returncode:
            raise BenchError(f"{' '.join(command)}: {done.stderr.strip()}")
    return statistics.median(times[1:])


def measure(n_runs: int, cpu_window_s: float) -> list[Figure]:
    """Start a daemon on an empty store and measure it and the commands beside it."""
    with tempfile.TemporaryDirectory(prefix="idle-", dir=cache_directory()) as directory:
        store = Path(directory)
        with open_olm(store) as server:
            wait_until_idle(server.pid, 10.0)
            before = cpu_seconds(server.pid)
            time.sleep(cpu_window_s)
            cpu_ms_per_s = (cpu_seconds(server.pid) - before) / cpu_window_s * 1e3
            whole_tree = sum(pss_bytes(pid) for pid in process_tree(server.pid))
            environ = {**os.environ, "OLM_HOST": server.url.removeprefix("http://")}
            return [
                Figure("daemon without a model, RSS", rss_bytes(server.pid) / 1e6, "MB", 60),
                Figure("daemon and spare worker, PSS", whole_tree / 1e6, "MB"),
                Figure("CPU of both, idle", cpu_ms_per_s, "ms/s", _CPU_LIMIT_MS_PER_S),
                Figure(
                    "`olm --version`",
                    _median_ms([*olm_command(), "--version"], environ, n_runs),
                    "ms",
                    60,
                ),
                Figure(
                    "`olm list`", _median_ms([*olm_command(), "list"], environ, n_runs), "ms", 100
                ),
            ]


def main() -> None:
    """Run the command line described at the top of this file."""
    parser = argparse.ArgumentParser(description="Idle cost and start-up times.")
    parser.add_argument(
        "--quick", action="store_true", help="5 runs and 3 s instead of 20 and 10 s"
    )
    parser.add_argument("--publish", action="store_true", help="write to docs/performance.md")
    args = parser.parse_args()
    end_on_sigterm()
    try:
        figures = measure(5, 3.0) if args.quick else measure(20, 10.0)
    except (BenchError, OSError) as exc:
        sys.exit(f"idle: {exc}")
    rows = [
        [f.name, f"{f.value:.1f} {f.unit}", "" if f.limit is None else f"{f.limit:g} {f.unit}"]
        for f in figures
    ]
    table = markdown_table(["figure", "measured", "limit"], rows)
    text = f"Machine: {describe_machine()}.\n\n{table}"
    print(text)
    if args.publish:
        publish("idle", text)
    broken = [figure.name for figure in figures if not figure.is_kept]
    if broken:
        sys.exit(f"idle: over the limit: {', '.join(broken)}")


if __name__ == "__main__":
    main()
