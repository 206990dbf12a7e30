"""What the daemon does on a signal: stop in order, stop at once, or read its keys and certificate again."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable

import trio

from olm.log import get_logger

__all__ = ["SignalWatch"]

_log = get_logger("daemon")


def _nothing() -> None:
    """Nobody is there yet to read anything again."""


class SignalWatch:
    """Watches the signals of this process.

    SIGHUP means "read your configuration again" to daemons, and "your terminal has gone" to what was started in one;
    then it ends us, as it always did. Which of the two it is shows in whether the terminal is still there.

    Attributes:
        stop: set by the first signal that ends us; a second one ends the process at once.
        reload: called on SIGHUP; set it when there is something to reload.
    """

    def __init__(self, has_terminal: Callable[[], bool] | None = None) -> None:
        self.stop = trio.Event()
        self.reload: Callable[[], None] = _nothing
        self._has_terminal = has_terminal or _has_terminal
        self._had_terminal = self._has_terminal()

    async def run(self, signals: AsyncIterator[int]) -> None:
        """Act on signals as they come, for ever."""
        async for number in signals:
            name = signal.Signals(number).name
            if number == signal.SIGHUP and not self._has_lost_terminal():
                _log.info("%s: reading keys and certificate again", name)
                self.reload()
            elif self.stop.is_set():
                _log.warning("%s again: ending at once", name)
                # Workers die with this process (parent-death signal); the store survives that at any byte.
                os._exit(128 + number)
            else:
                _log.info("%s: stopping; once more to end at once", name)
                self.stop.set()

    def _has_lost_terminal(self) -> bool:
        return self._had_terminal and not self._has_terminal()


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal that is still connected."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
