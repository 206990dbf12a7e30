"""The watchdog: asks every permanent actor for a sign of life and tells the service manager when all gave one.

It runs only when systemd watches us (WATCHDOG_USEC); otherwise it sleeps for ever and costs nothing. First to start
and last to stop, so that it outlives the drain. What systemd does when the word stays out is its unit's business.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import attrs
import trio

from olm.actors.runtime import Actor
from olm.errors import OlmError
from olm.log import get_logger

__all__ = ["Ping", "Watchdog", "WatchdogConfig"]

_log = get_logger("watchdog")

Ping = Callable[[], Awaitable[object]]
"""Asks one actor something cheap; returning is the sign of life, an error or no answer is none."""


@attrs.frozen
class WatchdogConfig:
    """What the watchdog watches.

    Attributes:
        interval_s: half of what systemd allows, None when it does not watch.
        pings: looked up at every round; the actors start after the watchdog.
        feed: sends the word.
    """

    interval_s: float | None
    pings: Callable[[], Mapping[str, Ping]]
    feed: Callable[[], object]


class Watchdog(Actor):
    """Feeds systemd's watchdog while all is well."""

    def __init__(self, config: WatchdogConfig) -> None:
        self._config = config

    async def start(self) -> None:
        """Begin to feed, if anybody watches."""
        if self._config.interval_s is not None:
            self.nursery.start_soon(self._watch, self._config.interval_s)

    async def _watch(self, interval_s: float) -> None:
        while True:
            silent = await silent_actors(self._config.pings(), within_s=interval_s)
            if silent:
                _log.error("no sign of life from: %s", ", ".join(silent))
            else:
                self._config.feed()
            # Half of the interval: a round that takes its whole time still feeds before systemd's deadline.
            await trio.sleep(interval_s / 2)


async def silent_actors(pings: Mapping[str, Ping], *, within_s: float) -> list[str]:
    """Ping all at once; return the names of those that did not answer in time, in order."""
    alive: set[str] = set()

    async def ask(name: str, ping: Ping) -> None:
        try:
            await ping()
        except OlmError as exc:
            _log.debug("ping %s: %s", name, exc)
        else:
            alive.add(name)

    with trio.move_on_after(within_s):
        async with trio.open_nursery() as nursery:
            for name, ping in pings.items():
                nursery.start_soon(ask, name, ping)
    return [name for name in pings if name not in alive]
