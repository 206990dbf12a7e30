"""Actors that note their starts and stops in a diary, for the tests of supervision."""

from __future__ import annotations

import pytest
import trio

from olm.actors.runtime import (
    ActorStopped,
    Address,
    ChildSpec,
    RestartPolicy,
)
from runtime.runtime_actors import (
    Bug,
    Tally,
)

POLICY = RestartPolicy(max_restarts=10, period_s=60)
STRATEGIES = ["one_for_one", "one_for_all", "rest_for_one"]


class Diary:
    """Who started and stopped when."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def take(self) -> list[str]:
        entries, self.entries = self.entries, []
        return entries

    def spec(self, name: str, restart: str = "permanent", **how: float) -> ChildSpec:
        return ChildSpec(name, lambda: Noted(self, name, **how), restart)  # type: ignore[arg-type]


class Noted(Tally):
    """Notes its starts and stops, and may be slow at both."""

    def __init__(
        self, diary: Diary, short: str, start_s: float = 0, stop_s: float = 0, fail: bool = False
    ) -> None:
        super().__init__()
        self.diary, self.short, self.start_s, self.stop_s = diary, short, start_s, stop_s
        self.fail = fail

    async def start(self) -> None:
        await trio.sleep(self.start_s)
        if self.fail:
            raise ValueError("cannot start")
        self.diary.entries.append(f"+{self.short}")

    async def stop(self) -> None:
        await trio.sleep(self.stop_s)
        self.diary.entries.append(f"-{self.short}")


async def crash(address: Address) -> None:
    """Crash an actor and see it down."""
    with pytest.raises(ActorStopped):
        await address.ask(Bug())
