"""What /proc says about this machine and about processes: CPU time, memory, foreign load, a description.

Linux only. Nothing here starts or stops anything.
"""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Final

import attrs

__all__ = [
    "FOREIGN_LIMIT_FRAC",
    "CpuWindow",
    "cpu_seconds",
    "describe_machine",
    "own_cpu_seconds",
    "process_tree",
    "pss_bytes",
    "rss_bytes",
    "wait_until_idle",
]

# Above this share of all cores taken by other programs, a figure says more about them.
FOREIGN_LIMIT_FRAC: Final = 0.05

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
# Instruction sets that decide which of ggml's CPU builds is chosen, in the words of /proc/cpuinfo.
_TELLING_FLAGS: Final = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


def process_tree(pid: int) -> list[int]:
    """Return the process and all its living descendants; empty if it has gone."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        current = waiting.pop()
        try:
            tasks = list(Path(f"/proc/{current}/task").iterdir())
        except FileNotFoundError:
            continue
        found.append(current)
        for task in tasks:
            try:
                waiting += [int(child) for child in (task / "children").read_text().split()]
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def cpu_seconds(pid: int) -> float:
    """Return user and system time of the process and its living descendants, in seconds (10 ms steps)."""
    ticks = 0
    for member in process_tree(pid):
        try:
            stat = Path(f"/proc/{member}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = stat.rsplit(")", 1)[1].split()  # the name before it may hold blanks
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_PER_S


def own_cpu_seconds(pid: int) -> float:
    """Return the CPU time of one process's living threads, without its children, in seconds (nanosecond steps)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _busy_seconds() -> float:
    """CPU time that anybody on this machine used since it started; idle, iowait and steal are left out."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = (
        int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / _TICKS_PER_S


def _own_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    return sum(os.times()[:4])


class CpuWindow:
    """CPU use between two moments: of one server's process tree, and of everybody else but ourselves.

    A child that ended in between counts as ours; a server must not end in between.
    """

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._server = cpu_seconds(pid) if pid else 0.0
        self._client = _own_seconds()
        self._busy = _busy_seconds()

    def server_s(self) -> float:
        """CPU seconds of the server's tree since the window was opened."""
        return cpu_seconds(self._pid) - self._server if self._pid else 0.0

    def foreign_frac(self, wall_s: float) -> float:
        """The share of all cores that processes outside this benchmark took in `wall_s` seconds."""
        ours = self.server_s() + _own_seconds() - self._client
        foreign = _busy_seconds() - self._busy - ours
        return max(0.0, foreign / (wall_s * (os.cpu_count() or 1)))


def wait_until_idle(pid: int, limit_s: float = 5.0) -> None:
    """Wait until a process tree takes under 4 % of a core, or `limit_s` has passed: what it does at start is over."""
    window_s, deadline = 0.25, time.perf_counter() + limit_s
    before = cpu_seconds(pid)
    while time.perf_counter() < deadline:
        time.sleep(window_s)
        now = cpu_seconds(pid)
        if now - before <= 0.04 * window_s:
            return
        before = now


def _kib_field(path: Path, field: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{path}: no field {field}")


def rss_bytes(pid: int) -> int:
    """Resident memory of one process, in bytes; shared pages count in full."""
    return _kib_field(Path(f"/proc/{pid}/status"), "VmRSS")


def pss_bytes(pid: int) -> int:
    """Memory of one process, in bytes, with shared pages split among their users."""
    return _kib_field(Path(f"/proc/{pid}/smaps_rollup"), "Pss")


@attrs.frozen
class _CpuInfo:
    model: str
    flags: frozenset[str]


def _cpu_info() -> _CpuInfo:
    values: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        values.setdefault(key.strip(), value.strip())
    return _CpuInfo(
        values.get("model name", "unknown CPU"), frozenset(values.get("flags", "").split())
    )


def describe_machine() -> str:
    """Return one line: CPU, cores, telling instruction sets, memory, kernel, Python."""
    cpu = _cpu_info()
    memory_gib = _kib_field(Path("/proc/meminfo"), "MemTotal") / 2**30
    sets = ", ".join(flag for flag in _TELLING_FLAGS if flag in cpu.flags)
    return (
        f"{cpu.model}, {os.cpu_count()} cores ({sets}), {memory_gib:.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )
