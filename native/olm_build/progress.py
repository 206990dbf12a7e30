"""What the build tells: one line per phase with its time, and ninja's progress without its flood."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from .common import BuildError

__all__ = ["phase", "run_logged", "say"]

_QUIET_EVERY_S = (
    10.0  # without a terminal: one line this often, so that logs show life and stay short
)
_TAIL_LINES = 60
_STEP = re.compile(r"^\[(\d+)/(\d+)\] ")


def say(message: str) -> None:
    """Print a line to stderr: stdout is for answers."""
    print(f"build_native: {message}", file=sys.stderr, flush=True)


@contextmanager
def phase(title: str) -> Iterator[None]:
    """Announce a phase and, at its end, how long it took."""
    start = time.monotonic()
    say(f"{title} ...")
    yield
    say(f"{title}: {time.monotonic() - start:.1f} s")


class _Steps:
    """Turns ninja's lines into progress."""

    def __init__(self) -> None:
        self.is_tty = sys.stderr.isatty()
        self.last_shown = time.monotonic()
        self.dirty = False

    def feed(self, line: str) -> None:
        if not _STEP.match(line):
            return
        now = time.monotonic()
        if self.is_tty:
            text = line if len(line) < 110 else line[:60] + " ... " + line[-44:]
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
            self.dirty = True
        elif now - self.last_shown >= _QUIET_EVERY_S:
            say(line)
            self.last_shown = now

    def close(self) -> None:
        if self.dirty:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def run_logged(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    what: str,
) -> str:
    """Run a command, everything it says going to `log` (appended), steps of ninja shown as progress.

    Returns:
        its output.

    Raises:
        BuildError: it failed or is not there; the message ends with the last lines it said.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    steps, tail, output = _Steps(), deque[str](maxlen=_TAIL_LINES), []
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=dict(env) if env is not None else dict(os.environ),
            text=True,
            errors="replace",
        )
    except OSError as exc:
        raise BuildError(f"{what}: cannot run {command[0]}: {exc}") from exc
    with process, log.open("a") as file:
        print("$", *command, file=file)
        assert process.stdout is not None, "asked for a pipe"
        try:
            for line in process.stdout:
                file.write(line)
                output.append(line)
                tail.append(line.rstrip("\n"))
                steps.feed(line.rstrip("\n"))
        except BaseException:
            process.terminate()
            raise
        finally:
            steps.close()
    if process.returncode:
        raise BuildError(
            f"{what} failed (status {process.returncode}), whole log in {log}; its end:\n"
            + "\n".join(tail)
        )
    return "".join(output)
