"""What the scheduler and the workers can tell an operator: one snapshot, taken when somebody asks.

Counting happens in the scheduler (`ModelCounts`) and in the engines; here is only the shape of the answer and the
asking. How it is written for Prometheus is in `olm.api.metrics_text`.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import attrs
import trio

from olm.actors.client import LoadedModel
from olm.actors.runtime import Address, Message
from olm.errors import OlmError
from olm.native.wire import Loaded, WorkerStats, WorkerStatsRequest

__all__ = [
    "ModelCounts",
    "RunnerStats",
    "SchedulerStats",
    "Snapshot",
    "SnapshotSource",
    "Stats",
    "read_snapshot",
]

_WORKER_PATIENCE_S: Final = 1.0
"""A worker answers in under a millisecond; one that does not has its line left out."""


@attrs.define
class ModelCounts:
    """What happened to one model since the scheduler started; the scheduler counts it up.

    Attributes:
        load_s: time of all good loads together, start of the worker included.
        n_crashes: workers that ended without being asked to, after the load.
        n_stops: runners let go once they were loaded, by the book's reason.
    """

    n_loads: int = 0
    load_s: float = 0.0
    n_failures: int = 0
    n_crashes: int = 0
    n_stops: Counter[str] = attrs.field(factory=Counter)

    def copy(self) -> ModelCounts:
        """Take a copy that will not change."""
        return attrs.evolve(self, n_stops=self.n_stops.copy())


@attrs.frozen
class RunnerStats:
    """A loaded model with what `ps` does not tell: its slots, what came out of the load, its worker."""

    model: LoadedModel
    info: Loaded
    n_active: int
    worker: Address


@attrs.frozen
class SchedulerStats:
    """The scheduler's answer. `n_waiting` is by the model's name, `counts` too."""

    n_waiting: Mapping[str, int]
    runners: Sequence[RunnerStats]
    counts: Mapping[str, ModelCounts]


class Stats(Message[SchedulerStats], frozen=True):
    """Ask the scheduler what it has counted."""


@attrs.frozen
class Snapshot:
    """The scheduler's answer and, by the model's name, the engines' counters of those workers that answered in time."""

    scheduler: SchedulerStats
    engines: Mapping[str, WorkerStats]


SnapshotSource = Callable[[], Awaitable[Snapshot]]
"""Takes a snapshot."""


async def read_snapshot(scheduler: Address) -> Snapshot:
    """Ask the scheduler, then every worker at once. Raises what asking the scheduler raises."""
    stats = await scheduler.ask(Stats())
    engines: dict[str, WorkerStats] = {}

    async def ask(runner: RunnerStats) -> None:
        with contextlib.suppress(OlmError):  # it has just gone: the next snapshot will not have it
            engines[runner.model.name] = await runner.worker.ask(WorkerStatsRequest())

    with trio.move_on_after(_WORKER_PATIENCE_S):
        async with trio.open_nursery() as nursery:
            for runner in stats.runners:
                nursery.start_soon(ask, runner)
    return Snapshot(stats, engines)
