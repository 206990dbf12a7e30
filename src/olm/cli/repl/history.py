"""The history of typed lines: at most a hundred, kept in a file of the user's alone.

`remember` is pure; `HistoryFile` is the rim. A history that cannot be read or written costs nothing but itself.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["MAX_LINES", "HistoryFile", "remember"]

MAX_LINES: Final = 100  # as Ollama keeps


def remember(lines: Sequence[str], line: str) -> tuple[str, ...]:
    """Add a line at the end; blank ones and a repetition of the last one are left out.

    A pasted text of several lines is remembered as one line, since the file holds one a line.
    """
    line = " ".join(line.splitlines()).strip()
    if not line or (lines and lines[-1] == line):
        return tuple(lines)
    return (*lines, line)[-MAX_LINES:]


class HistoryFile:
    """The lines of a history file, in memory and on disk.

    Args:
        path: created on the first line, readable by its owner only.
        enabled: whether lines are written; reading happens anyway.
    """

    def __init__(self, path: Path, *, enabled: bool) -> None:
        self._path = path
        self.enabled = enabled
        self.lines: tuple[str, ...] = self._read() if enabled else ()

    def add(self, line: str) -> bool:
        """Remember a line, on disk if enabled; whether it was new. What cannot be written is kept in memory."""
        if not self.enabled:
            return False
        before = self.lines
        self.lines = remember(before, line)
        if self.lines == before:
            return False
        self._write()
        return True

    def _read(self) -> tuple[str, ...]:
        try:
            raw = self._path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ()
        return tuple(line for line in raw.splitlines() if line.strip())[-MAX_LINES:]

    def _write(self) -> None:
        partial = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in self.lines))
            partial.replace(self._path)
        except OSError:
            return  # a full disk or a read-only home must not end a conversation
