"""The watchdog feeds systemd only while every actor answers."""

from __future__ import annotations

from functools import partial

import trio
from trio.testing import MockClock

from olm.actors.runtime import ChildSpec, open_supervisor
from olm.actors.watchdog import Watchdog, WatchdogConfig, silent_actors
from olm.errors import ActorStopped


async def well() -> None:
    await trio.lowlevel.checkpoint()


async def down() -> None:
    raise ActorStopped("gone")


async def test_the_silent_and_the_failing_are_named(autojump_clock: MockClock) -> None:
    pings = {"good": well, "stuck": trio.sleep_forever, "down": down}

    assert await silent_actors(pings, within_s=3.0) == ["stuck", "down"]
    assert trio.current_time() == 3.0


async def test_it_feeds_in_time_and_stops_when_one_is_stuck(autojump_clock: MockClock) -> None:
    fed: list[float] = []
    pings = {"a": well}
    config = WatchdogConfig(10.0, lambda: pings, lambda: fed.append(trio.current_time()))
    async with open_supervisor() as root:
        await root.start_child(ChildSpec("watchdog", partial(Watchdog, config)))
        await trio.sleep(22)
        assert fed == [0.0, 5.0, 10.0, 15.0, 20.0]

        pings["b"] = trio.sleep_forever
        await trio.sleep(100)

        assert len(fed) == 5


async def test_without_systemd_it_does_nothing(autojump_clock: MockClock) -> None:
    config = WatchdogConfig(None, dict, lambda: 1 / 0)
    async with open_supervisor() as root:
        watchdog = await root.start_child(ChildSpec("watchdog", partial(Watchdog, config)))
        await trio.sleep(80_000)

        assert watchdog.is_running
