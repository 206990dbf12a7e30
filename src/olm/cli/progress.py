"""Progress on stderr: bars and spinners, redrawn ten times a second on a terminal, plain lines elsewhere.

Layout is Ollama's (spec §3, `progress/` of commit fb30760). `Bar`, `Spinner` and `frame` are pure, time is an
argument; `Progress` is the rim with the drawing thread.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol, Self, TextIO

from olm.cli.text import cut, display_width
from olm.cli.wire import Json, integer, text
from olm.units import human_bytes

__all__ = ["Bar", "Progress", "Spinner", "StatusLines", "eta", "frame", "terminal_size"]

REDRAW_S: Final = 0.1
N_BUCKETS: Final = 10
BUCKET_S: Final = 1.0
SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
DEFAULT_SIZE: Final = (80, 24)
SHORT_DIGEST: Final = slice(len("sha256:"), len("sha256:") + 12)


def terminal_size(stream: TextIO) -> tuple[int, int]:
    """Columns and lines of the terminal behind a stream; 80 by 24 where there is none."""
    try:
        columns, n_lines = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return DEFAULT_SIZE
    return columns or DEFAULT_SIZE[0], n_lines or DEFAULT_SIZE[1]


def eta(seconds: float) -> str:
    """A remaining time in at most two units: `49s`, `3m7s`, `1h2m`, `99h+`."""
    if seconds >= 100 * 3600:
        return "99h+"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


class Item(Protocol):
    """One line of progress."""

    def render(self, width: int, now: float) -> str:
        """The line for a terminal of `width` columns at `now` seconds."""

    def plain(self) -> str:
        """The line for a log file; empty for nothing worth a line."""

    def stop(self, now: float) -> None:
        """Freeze the line as it is."""


class Spinner:
    """A message with a turning sign until it is stopped.

    Attributes:
        done_frac: how much is done, shown in percent behind the message; None where nobody knows.
    """

    def __init__(self, message: str, started: float, done_frac: float | None = None) -> None:
        self.message = message
        self.done_frac = done_frac
        self._started = started
        self._stopped = False

    def render(self, width: int, now: float) -> str:
        message = self.message.strip()
        if self.done_frac is not None:
            message = f"{message} {int(self.done_frac * 100)}%"
        if self._stopped:
            return cut(message, width)
        sign = SPINNER[int((now - self._started) / REDRAW_S) % len(SPINNER)]
        return f"{cut(message, width - 3)} {sign} " if message else f"{sign} "

    def plain(self) -> str:
        return self.message.strip()

    def stop(self, now: float) -> None:
        self._stopped = True


class Bar:
    """Bytes done of a total, with the rate over the last ten seconds and the time left."""

    def __init__(self, message: str, total_bytes: int, done_bytes: int, started: float) -> None:
        self.message = message
        self.total_bytes = total_bytes
        self._first = self._done = done_bytes
        self._buckets: list[tuple[float, int]] = []
        self._started = started
        self._finished = done_bytes >= total_bytes

    def set(self, done_bytes: int, now: float) -> None:
        """Note how many bytes are done."""
        self._done = min(done_bytes, self.total_bytes)
        self._finished = self._done >= self.total_bytes
        if not self._buckets or now - self._buckets[-1][0] > BUCKET_S:
            self._buckets = [*self._buckets, (now, self._done)][-N_BUCKETS:]

    def rate(self) -> float:
        """Bytes a second; 0 while it cannot be told."""
        marks = self._buckets
        if len(marks) == 1:
            marks = [(self._started, self._first), *marks]
        if len(marks) < 2 or marks[-1][0] <= marks[0][0]:
            return 0.0
        return (marks[-1][1] - marks[0][1]) / (marks[-1][0] - marks[0][0])

    def render(self, width: int, now: float) -> str:
        frac = self._done / self.total_bytes if self.total_bytes > 0 else 0.0
        before = f"{self.message.strip()} {frac * 100:3.0f}%"
        after = self._figures()
        room = width - display_width(before) - len(after) - 5  # two edges and three spaces
        if room < 1:
            return cut(before, width)
        full = int(room * frac)
        return f"{before} ▕{'█' * full}{' ' * (room - full)}▏ {after}"

    def _figures(self) -> str:
        total = f"{human_bytes(self.total_bytes):>6}"
        if self._finished:
            return total + " " * 25  # as wide as the figures of a running bar
        figures = f"{human_bytes(self._done):>6}/{total}"
        rate = self.rate()
        if rate <= 0:
            return figures + " " * 18
        left_s = (self.total_bytes - self._done) / rate
        return f"{figures}  {human_bytes(int(rate)):>6}/s  {eta(left_s):>6}"

    def plain(self) -> str:
        return f"{self.message.strip()} {human_bytes(self.total_bytes)}"

    def stop(self, now: float) -> None:
        pass


def frame(lines: list[str], n_before: int) -> str:
    """The characters that draw `lines` over the `n_before` lines drawn last; the cursor stays at the beginning of the last.

    At its end, behind a line that fills the terminal, the `^C` that a terminal echoes would begin a new line.
    """
    up = f"\x1b[{n_before - 1}A" if n_before > 1 else ""
    # Erased before it is drawn: erasing behind a line that fills the terminal would take its last character.
    drawn = "\n".join(f"\r\x1b[K{line}" for line in lines)
    return f"\x1b[?25l{up}{drawn}\r\x1b[?25h"


class Progress:
    """Draws items until it is left. On a terminal in a thread of its own; elsewhere each item's line once.

    Leaving it keeps the last lines on the screen unless `clear` was called.
    """

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._animated = self._stream.isatty()
        self._items: list[Item] = []
        self._n_drawn = 0
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def spinner(self, message: str, done_frac: float | None = None) -> Spinner:
        """Add a spinner; without a terminal an empty message prints nothing."""
        spinner = Spinner(message, self._clock(), done_frac)
        self._add(spinner)
        return spinner

    def bar(self, message: str, total_bytes: int, done_bytes: int = 0) -> Bar:
        """Add a bar."""
        bar = Bar(message, total_bytes, done_bytes, self._clock())
        self._add(bar)
        return bar

    def advance(self, bar: Bar, done_bytes: int) -> None:
        """Move a bar."""
        with self._lock:
            bar.set(done_bytes, self._clock())

    def finish(self, item: Item) -> None:
        """Freeze an item."""
        with self._lock:
            item.stop(self._clock())

    def stop(self) -> None:
        """Draw a last time and leave the lines where they are. Idempotent."""
        if self._halt():
            now = self._clock()
            for item in self._items:
                item.stop(now)
            self._draw()
            self._write("\n")

    def clear(self) -> None:
        """Stop and take every line off the screen again. Idempotent."""
        if self._halt():
            self._write("\x1b[2K\x1b[1A" * (self._n_drawn - 1) + "\r\x1b[2K")

    def _halt(self) -> bool:
        """End the drawing thread; whether anything was being drawn."""
        if self._done.is_set():
            return False
        self._done.set()
        if self._thread is None:
            return False
        self._thread.join()
        return True

    def _add(self, item: Item) -> None:
        if self._done.is_set():
            return
        if not self._animated:
            if line := item.plain():
                self._write(f"{line}\n")
            return
        with self._lock:
            self._items.append(item)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            self._draw()
            if self._done.wait(REDRAW_S):
                return

    def _draw(self) -> None:
        with self._lock:
            (width, height), now = terminal_size(self._stream), self._clock()
            shown = self._items[-max(height - 1, 1) :]  # the cursor cannot go up past the screen
            lines = [cut(item.render(width, now), width) for item in shown]
            self._write(frame(lines, self._n_drawn))
            self._n_drawn = len(lines)

    def _write(self, drawn: str) -> None:
        try:
            self._stream.write(drawn)
            self._stream.flush()
        except (OSError, ValueError):
            self._animated = False  # the terminal is gone; the work goes on without it


class StatusLines:
    """Shows the status events of create, pull and push: a bar for each digest, a spinner for each other status."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._spinner: Spinner | None = None
        self._bars: dict[str, Bar] = {}

    def show(self, event: Json) -> None:
        """Show one event of the stream."""
        status, digest = text(event, "status"), text(event, "digest")
        if digest:
            self._settle()
            self._move_bar(status, digest, integer(event, "total"), integer(event, "completed"))
        elif status and (self._spinner is None or self._spinner.message != status):
            self._settle()
            self._spinner = self._progress.spinner(status)

    def _move_bar(self, status: str, digest: str, total: int, completed: int) -> None:
        bar = self._bars.get(digest)
        if bar is None:
            # Quantizing has a digest of zeros and a status of its own; transfers are named by their blob.
            named = digest.startswith("sha256:") and " " in status
            message = f"{status.split()[0]} {digest[SHORT_DIGEST]}" if named else status
            bar = self._bars[digest] = self._progress.bar(f"{message}:", total, completed)
        self._progress.advance(bar, completed)

    def _settle(self) -> None:
        if self._spinner is not None:
            self._progress.finish(self._spinner)
            self._spinner = None
