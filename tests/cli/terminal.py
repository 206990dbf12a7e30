"""A terminal for tests: runs the command on a pseudo terminal of its own, types keys, waits for what it shows."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["CTRL_C", "CTRL_D", "Terminal", "open_terminal"]

CTRL_C = "\x03"
CTRL_D = "\x04"
PATIENCE_S = 20.0
N_PRESSES = 10
PRESS_S = 1.0

# The command must own the terminal, else Ctrl-C is a character like any other.
_LAUNCH = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "olm", *sys.argv[1:]])
"""
_ERASED = re.compile(r"[^\n]*\r\x1b\[2K")  # how a spinner goes
_ESCAPE = re.compile(r"\x1b\[[?\d;]*[A-Za-z]")


class Terminal:
    """The screen side of a running command."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int) -> None:
        self.process = process
        self._fd = fd
        self.raw = ""
        self._read_to = 0

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def line(self, text: str) -> None:
        self.type(text + "\r")

    def expect(self, text: str) -> str:
        """Wait until `text` is shown after what was expected before; returns what came up to its end."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            shown = self.shown()
            at = shown.find(text, self._read_to)
            if at >= 0:
                begin, self._read_to = self._read_to, at + len(text)
                return shown[begin : self._read_to]
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} never came after {shown[self._read_to :]!r}"
            assert self._fill(left), f"ended without {text!r}: {shown[self._read_to :]!r}"

    def interrupt_until(self, text: str) -> None:
        """Press Ctrl-C until `text` is shown.

        CPython's readline loses a signal that comes between its showing the prompt and its waiting for keys, until
        the next key; no person is that quick, a test is.
        """
        for _ in range(N_PRESSES):
            self.type(CTRL_C)
            deadline = time.monotonic() + PRESS_S
            while text not in self.shown()[self._read_to :] and time.monotonic() < deadline:
                self._fill(max(deadline - time.monotonic(), 0.0))
            if text in self.shown()[self._read_to :]:
                break
        self.expect(text)

    def shown(self) -> str:
        """All that was shown and not erased, without escapes and carriage returns."""
        return _ESCAPE.sub("", _ERASED.sub("", self.raw)).replace("\r", "")

    def end(self) -> int:
        """Wait for the command to end by itself; returns its status."""
        while self._fill(PATIENCE_S):
            pass
        return self.process.wait(timeout=PATIENCE_S)

    def _fill(self, timeout_s: float) -> bool:
        if not select.select([self._fd], [], [], timeout_s)[0]:
            return False
        try:
            piece = os.read(self._fd, 65_536)
        except OSError:  # Linux says EIO when the other side is gone
            return False
        self.raw += piece.decode(errors="replace")
        return bool(piece)


@contextmanager
def open_terminal(env: dict[str, str], *args: str, columns: int = 80) -> Iterator[Terminal]:
    """Run `olm` with these arguments on a new terminal; it is killed if it has not ended at the end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    try:
        with subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, *args],
            env=env,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        ) as process:
            os.close(theirs)
            try:
                yield Terminal(process, ours)
            finally:
                process.kill()
    finally:
        os.close(ours)
