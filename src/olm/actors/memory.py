"""How much memory the machine has left for models: /proc/meminfo, bounded by the control group. Reads only.

What is done with the number is decided in `placement`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

__all__ = ["Memory", "SystemMemory", "cgroup_free_bytes", "parse_kib"]

_UNKNOWN_BYTES: Final = 1 << 62
"""Where the kernel tells nothing we let the engine find out."""


class Memory(Protocol):
    """The two figures that placement needs."""

    def available_bytes(self) -> int:
        """Bytes that can be used without swapping."""

    def anonymous_bytes(self, pid: int) -> int:
        """Bytes of a process that are really its own by now (not mapped files); 0 when it is gone."""


def parse_kib(text: str, key: str) -> int | None:
    """Find `key:   123 kB` in a /proc text and return bytes."""
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if name == key:
            number = rest.split()[0]
            return int(number) * 1024 if number.isdigit() else None
    return None


def cgroup_free_bytes(limit: str, current: str, stat: str) -> int | None:
    """Tell what a cgroup v2 has left, reclaimable file pages counted as free. None without a limit."""
    if not limit.strip().isdigit() or not current.strip().isdigit():
        return None
    inactive = 0
    for line in stat.splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file" and value.isdigit():
            inactive = int(value)
    return max(int(limit) - int(current) + inactive, 0)


class SystemMemory:
    """`Memory` of this machine. The files live in the kernel: reading them takes some 50 us and never waits."""

    def __init__(self, proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> None:
        self._proc = proc
        self._cgroup = cgroup

    def available_bytes(self) -> int:
        """See `Memory`. Of all limits above us only the control group's own is read, as it is in a container."""
        free = parse_kib(_read(self._proc / "meminfo"), "MemAvailable")
        bound = cgroup_free_bytes(
            _read(self._cgroup / "memory.max"),
            _read(self._cgroup / "memory.current"),
            _read(self._cgroup / "memory.stat"),
        )
        return min(
            _UNKNOWN_BYTES if free is None else free, _UNKNOWN_BYTES if bound is None else bound
        )

    def anonymous_bytes(self, pid: int) -> int:
        """See `Memory`."""
        return parse_kib(_read(self._proc / str(pid) / "status"), "RssAnon") or 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
