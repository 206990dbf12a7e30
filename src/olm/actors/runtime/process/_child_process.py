"""A child process and what belongs to it: its link, its standard error, its exit status.

What is said over the link is `_host`'s business.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
from typing import Final

import msgspec
import trio

from olm.actors.runtime.process import _frames as frames
from olm.actors.runtime.process._link import Link
from olm.actors.runtime.process._options import ProcessOptions

__all__ = ["ChildProcess", "signal_name"]

_ENTRY: Final = os.path.join(os.path.dirname(os.path.dirname(__file__)), "child.py")
_READ_BYTES: Final = 64 * 1024
# A line without an end is forwarded in pieces of this size.
_LINE_BYTES: Final = 8 * 1024


class ChildProcess:
    """A Python process that waits for frames. Owned by one host at a time; `close` kills it if it still runs."""

    def __init__(self, options: ProcessOptions) -> None:
        """Start the process.

        This takes about a millisecond in this thread, on purpose: the parent-death signal is tied to the *thread* that
        started the child, so a pooled thread that ends for idleness would take the child with it.

        Raises:
            OSError: the system cannot start it.
        """
        self.options = options
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._popen = subprocess.Popen(
                [
                    options.python,
                    "-I",
                    _ENTRY,
                    str(theirs.fileno()),
                    str(os.getpid()),
                    options.title,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                cwd=options.cwd,
                env=_environment(options),
                process_group=0,  # Ctrl-C in the terminal is for us to handle, not for it
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        assert self._popen.stdout is not None, "stdout is a pipe"
        self._output = self._popen.stdout
        os.set_blocking(self._output.fileno(), False)
        self._pidfd = os.pidfd_open(self._popen.pid)
        self._tail = bytearray()
        self._line = bytearray()
        _limit(self._popen.pid, options)
        # The module path comes first, unframed: the child cannot import msgspec before it knows it.
        path = "\0".join(entry or os.getcwd() for entry in sys.path).encode()
        ours.sendall(len(path).to_bytes(4, "big") + path)
        decoder = msgspec.msgpack.Decoder(frames.FromChild)
        self.link: Link[frames.FromChild] = Link(ours, decoder, options.max_frame_bytes)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._popen.poll()

    async def wait(self) -> int:
        """Wait for its end and return the status. One task at a time."""
        while True:
            status = self.status
            if status is not None:
                await trio.lowlevel.checkpoint()
                return status
            await trio.lowlevel.wait_readable(self._pidfd)

    def signal(self, number: int) -> None:
        """Send a signal; nothing if it is gone."""
        if self.status is None:
            self._popen.send_signal(number)

    async def forward_output(self, log: logging.Logger) -> None:
        """Log what the process writes to stdout and stderr, line by line, until it closes them."""
        while True:
            await trio.lowlevel.wait_readable(self._output)
            if not self.read_output(log):
                return

    def read_output(self, log: logging.Logger) -> bool:
        """Take what it wrote up to now; False at the end of the output."""
        while True:
            try:
                data = os.read(self._output.fileno(), _READ_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._tail += data
            del self._tail[: -self.options.report_bytes]
            self._line += data
            *lines, rest = self._line.split(b"\n")
            if len(rest) > _LINE_BYTES:
                lines.append(rest)
                rest = bytearray()
            self._line = rest
            for line in lines:
                log.info("%s", line.decode(errors="replace").rstrip())

    @property
    def report(self) -> str:
        """The end of what it wrote."""
        return self._tail.decode(errors="replace")

    def close(self) -> None:
        """Kill it if it still runs, and free what belongs to it here. May be called twice."""
        self.signal(signal.SIGKILL)
        self.link.close()
        self._output.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    async def kill_and_wait(self, within_s: float = 2.0) -> None:
        """Kill it, wait until it is reaped, and close. Shielded and bounded: a process in the kernel's hands may linger."""
        self.signal(signal.SIGKILL)
        with trio.move_on_after(within_s, shield=True):
            await self.wait()
        self.close()


def signal_name(number: int) -> str:
    """Name a signal: SIGSEGV for 11."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _environment(options: ProcessOptions) -> dict[str, str]:
    base = dict(os.environ) if options.inherit_env else {}
    return base | dict(options.env)


def _limit(pid: int, options: ProcessOptions) -> None:
    """Set limits from outside, before the child does anything: a hook between fork and exec is not safe with threads."""
    limits = {resource.RLIMIT_CORE: (0, 0)} | dict(options.rlimits)
    # It may have died already; the host learns that by other means.
    with contextlib.suppress(ProcessLookupError):
        for number, value in limits.items():
            resource.prlimit(pid, number, value)
        if options.nice:
            os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, 0) + options.nice)
