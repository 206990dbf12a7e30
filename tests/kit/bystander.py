"""A client whose stream runs beside a test: it tells whether what the test did to the daemon was felt by others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import httpx2

from kit.daemon import Daemon

__all__ = ["Bystander", "run_bystander"]


@attrs.define
class Bystander:
    """Reads one endless stream of the built-in model after the other.

    Attributes:
        longest_gap_s: between two lines of a stream; set it to 0 to measure anew.
        trouble: what went wrong, empty if nothing did. The first of it ends the reading.
    """

    daemon: Daemon
    longest_gap_s: float = 0.0
    trouble: str = ""
    _comes: threading.Event = attrs.field(factory=threading.Event)
    _is_over: bool = False

    def wait(self) -> None:
        """Wait for another line, so that the gap before it counts; not for one after an error, for none will come."""
        self._comes.clear()
        if not self.trouble:
            assert self._comes.wait(30), "the stream goes on"

    def end(self) -> None:
        """Let the thread end with the next line."""
        self._is_over = True

    def run(self) -> None:
        """Read, in a thread."""
        body = {
            "model": "tiny",
            "messages": [{"role": "user", "content": "Hello!"}],
            "think": False,
            "options": {"ignore_eos": True, "num_predict": 20_000, "stop": []},
        }
        while not self._is_over and not self.trouble:
            url = self.daemon.url + "/api/chat"
            try:
                with httpx2.stream("POST", url, json=body, timeout=60) as answer:
                    self._read(answer)
            except httpx2.HTTPError as exc:
                self.trouble = repr(exc)
                self._comes.set()

    def _read(self, answer: httpx2.Response) -> None:
        last = time.monotonic()
        for line in answer.iter_lines():
            now = time.monotonic()
            self.longest_gap_s, last = max(self.longest_gap_s, now - last), now
            if '"error"' in line:
                self.trouble = line
            self._comes.set()
            if self._is_over:
                return


@contextmanager
def run_bystander(daemon: Daemon) -> Iterator[Bystander]:
    """Keep a stream running during the block."""
    bystander = Bystander(daemon)
    thread = threading.Thread(target=bystander.run)
    thread.start()
    try:
        bystander.wait()
        yield bystander
    finally:
        bystander.end()
        thread.join()
