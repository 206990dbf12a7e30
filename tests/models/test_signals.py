"""Signals: a stop, and the two meanings of SIGHUP."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator

import pytest

from olm.actors.signals import SignalWatch


async def each(*numbers: int) -> AsyncIterator[int]:
    for number in numbers:
        yield number


@pytest.mark.parametrize(
    ("terminal", "reloads"),
    [([False, False], True), ([True, True], True), ([True, False], False)],
    ids=["a service", "in a terminal", "the terminal has gone"],
)
async def test_sighup_reloads_unless_it_came_from_a_terminal_that_has_gone(
    terminal: list[bool], reloads: bool
) -> None:
    watch = SignalWatch(iter(terminal).__next__)
    seen: list[str] = []
    watch.reload = lambda: seen.append("reloaded")

    await watch.run(each(signal.SIGHUP))

    assert (seen == ["reloaded"]) is reloads
    assert watch.stop.is_set() is not reloads


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_others_stop(number: int) -> None:
    watch = SignalWatch(lambda: False)

    await watch.run(each(number))

    assert watch.stop.is_set()


async def test_sighup_before_there_is_anything_to_reload_does_nothing() -> None:
    watch = SignalWatch(lambda: False)

    await watch.run(each(signal.SIGHUP))

    assert not watch.stop.is_set()
