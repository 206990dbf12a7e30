"""The scheduler with real runners over fake workers, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import attrs

from kit.fake_worker import FakeModel, FakeWorker
from kit.models import FakeMemory, stored_model
from olm.actors.book import StartRunner
from olm.actors.client import StoreClient, StoredModel
from olm.actors.models import Models
from olm.actors.placement import Policy
from olm.actors.queue import QueueBounds
from olm.actors.runner import Runner, RunnerConfig
from olm.actors.runtime import ChildSpec, Supervisor, SupervisorSpec, open_supervisor
from olm.actors.scheduler import Scheduler, SchedulerConfig
from olm.errors import ModelNotFound

__all__ = ["Bench", "FakeStore", "open_bench"]


@attrs.define
class FakeStore:
    """A store that knows models by name and nothing else."""

    models: dict[str, StoredModel] = attrs.field(factory=dict)

    async def get(self, name: str) -> StoredModel:
        try:
            return self.models[name]
        except KeyError:
            raise ModelNotFound(f"model '{name}' not found") from None


@attrs.define
class Bench:
    """What a test holds: the client, the fakes behind it, and the tree they run in."""

    models: Models
    fake: FakeModel
    store: FakeStore
    root: Supervisor

    def crash(self, name: str) -> None:
        """Let the worker that holds a model die."""
        [load] = [
            load for load in self.fake.live if load.path == str(self.store.models[name].weights)
        ]
        self.fake.live[load].set()

    def worker_names(self) -> list[str]:
        return [node.name for node in self.root.supervisor("workers").tree().children]


@asynccontextmanager
async def open_bench(
    *,
    n_parallel: int = 2,
    max_loaded: int = 3,
    max_queue: int = 8,
    max_client: int = 0,
    slow_reader_s: float = 60.0,
    reader_timeout_s: float = 600.0,
    keep_alive_s: float = 300.0,
    load_timeout_s: float = 300.0,
    **fake: object,
) -> AsyncIterator[Bench]:
    """Open a scheduler with its runners; further keywords are fields of `FakeModel`."""
    model = attrs.evolve(FakeModel(), **fake)  # type: ignore[arg-type]  # names and types are the test's business

    def runner_spec(start: StartRunner) -> ChildSpec:
        config = RunnerConfig(
            model=start.model,
            plan=start.plan,
            workers=root.supervisor("workers"),
            spec=lambda name: ChildSpec(name, partial(FakeWorker, model), restart="temporary"),
            load_timeout_s=load_timeout_s,
        )
        return ChildSpec(f"runner-{start.runner_id}", partial(Runner, config), restart="temporary")

    config = SchedulerConfig(
        policy=Policy(n_parallel=n_parallel, max_loaded=max_loaded),
        runners=lambda: root.supervisor("runners"),
        runner_spec=runner_spec,
        keep_alive_s=keep_alive_s,
        bounds=QueueBounds(max_queue, per_client=max_client),
        slow_reader_s=slow_reader_s,
        reader_timeout_s=reader_timeout_s,
        memory=FakeMemory(),
    )
    store = FakeStore({name: stored_model(name) for name in "abc"})
    async with open_supervisor("models", strategy="rest_for_one") as root:
        scheduler = await root.start_child(ChildSpec("scheduler", partial(Scheduler, config)))
        await root.start_child(SupervisorSpec("workers"))
        await root.start_child(SupervisorSpec("runners"))
        client: StoreClient = store  # type: ignore[assignment]  # only `get` is used
        yield Bench(Models(scheduler, client), model, store, root)
