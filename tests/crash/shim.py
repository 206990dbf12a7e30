"""The C library between a process and its file system (`shim.c`): how it is built, loaded, and told what to do."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

__all__ = ["DeafShim", "Shim", "build", "compiler", "preloaded"]

Moment = Literal["before", "after", "middle"]
_MOMENTS: Final[tuple[Moment, ...]] = ("before", "after", "middle")
_SOURCE: Final = Path(__file__).with_name("shim.c")


def compiler() -> str | None:
    """The C compiler; None when there is none."""
    return shutil.which("cc") or shutil.which("gcc")


def build(folder: Path) -> Path:
    """Compile the library into a folder; returns its path."""
    library = folder / "olm-crash-shim.so"
    command = [compiler() or "cc", "-O2", "-shared", "-fPIC", "-Wall", "-Werror"]
    subprocess.run([*command, "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    return library


def preloaded(library: Path, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a process that shall have the library."""
    return {**environment, "LD_PRELOAD": str(library)}


class Shim:
    """The library in this process, which was started with it."""

    def __init__(self) -> None:
        self._c = ctypes.CDLL(None)
        number, text = ctypes.c_long, ctypes.c_char_p
        for name, arguments in (
            ("watch", [text, ctypes.c_int]),
            ("kill_at", [number, ctypes.c_int]),
            ("fail_at", [number, number, ctypes.c_int]),
            ("cut_writes", [ctypes.c_uint64]),
            ("leave_room", [ctypes.c_int64, ctypes.c_int]),
            ("note", [text]),
        ):
            function = getattr(self._c, f"crash_{name}")
            function.argtypes, function.restype = arguments, None

    def watch(self, folder: Path, journal: int) -> None:
        """Write every change below a folder to the journal, an open file, from now on."""
        self._c.crash_watch(f"{folder}/".encode(), journal)

    def kill_at(self, step: int, moment: Moment) -> None:
        """Die by SIGKILL at a change, counted from 1 from now on; 0 for never."""
        self._c.crash_kill_at(step, _MOMENTS.index(moment))

    def fail_at(self, step: int, n_errors: int, error: int) -> None:
        """Let so many changes in a row fail, the first counted as in `kill_at`."""
        self._c.crash_fail_at(step, n_errors, error)

    def cut_writes(self, seed: int) -> None:
        """Write less than was asked for, every other time; 0 for not any more."""
        self._c.crash_cut_writes(seed)

    def leave_room(self, n_bytes: int, *, tells: bool) -> None:
        """Let the disk take so many bytes, and what is freed; -1 for all. `tells`: whether statvfs says so."""
        self._c.crash_leave_room(n_bytes, int(tells))

    def note(self, text: str) -> None:
        """Put a line into the journal."""
        self._c.crash_note(text.encode())


class DeafShim(Shim):
    """Nothing of it, for processes that are not watched."""

    def __init__(self) -> None:
        pass

    def kill_at(self, step: int, moment: Moment) -> None: ...
    def fail_at(self, step: int, n_errors: int, error: int) -> None: ...
    def cut_writes(self, seed: int) -> None: ...
    def leave_room(self, n_bytes: int, *, tells: bool) -> None: ...
    def note(self, text: str) -> None: ...
