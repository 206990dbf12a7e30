"""The runner: one actor for each loaded weights file, owner of the worker process that holds them.

It starts the worker, loads the model with a watch on progress, and ends when the worker ends. Turns do not pass
through it: the scheduler hands the worker's address to whoever got a slot. Slots, queue and keep-alive are in `book`;
what runs in the worker is `olm.native.worker`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

import attrs
import trio

from olm.actors.client import StoredModel
from olm.actors.placement import LoadPlan, is_unified, useful_threads
from olm.actors.runtime import (
    Actor,
    Address,
    ChildSpec,
    Crashed,
    Killed,
    Message,
    Reply,
    Supervisor,
    describe_exit,
    handles,
)
from olm.errors import ActorStopped, LoadFailed, RunnerCrashed
from olm.log import get_logger
from olm.native.process import ProcessIdRequest
from olm.native.wire import Load, Loaded, LoadProgress
from olm.units import format_duration

__all__ = ["CRASH_TEXT", "LoadModel", "Ready", "Runner", "RunnerConfig", "WorkerSpec"]

CRASH_TEXT: Final = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error,"
    " check ollama server logs for details"
)
"""Ollama's words (spec/ollama §1.12); clients match on them."""

_log = get_logger("runner")

WorkerSpec = Callable[[str], ChildSpec]
"""Makes the child spec of a worker with a given name."""


@attrs.frozen
class RunnerConfig:
    """What a runner is made with.

    Attributes:
        workers: the supervisor under which its worker process lives.
        load_timeout_s: longest time without progress while loading.
    """

    model: StoredModel
    plan: LoadPlan
    workers: Supervisor
    spec: WorkerSpec
    load_timeout_s: float = 300.0
    kv_cache_type: str = "f16"
    flash_attention: bool | None = None
    n_threads: int = 0


@attrs.frozen
class Ready:
    """A loaded model: where to send turns, what came out of the load, and the process that holds it (0: none)."""

    worker: Address
    info: Loaded
    pid: int


class LoadModel(Message[Ready], frozen=True):
    """Load the model. Raises LoadFailed, RunnerCrashed."""


class Runner(Actor):
    """Own one worker. Temporary: when the worker goes, so does the runner, and the scheduler starts another."""

    def __init__(self, config: RunnerConfig) -> None:
        self._config = config
        self._worker: Address | None = None

    @property
    def _worker_name(self) -> str:
        return "worker-" + self.name.rpartition("-")[2]

    async def start(self) -> None:
        """Start the worker process (from the spare when there is one). Raises what starting it raises."""
        config = self._config
        self._worker = await config.workers.start_child(config.spec(self._worker_name))
        self.nursery.start_soon(self._watch, self._worker)

    async def stop(self) -> None:
        """Stop the worker: its supervisor climbs the stop ladder, each rung bounded."""
        if self._worker is not None:
            await self._config.workers.stop_child(self._worker_name, "the model is unloaded")

    @handles(LoadModel)
    def load(self, _: LoadModel, reply: Reply[Ready]) -> None:
        """Load in a task of its own, so that `stop` can come in between."""
        self.nursery.start_soon(reply.run, self._load)

    async def _load(self) -> Ready:
        assert self._worker is not None, "start() has set it"
        config = self._config
        frac, started_s = 0.0, trio.current_time()
        with trio.move_on_after(config.load_timeout_s) as scope:
            try:
                async with self._worker.stream(load_message(config)) as events:
                    async for event in events:
                        if isinstance(event, Loaded):
                            return await self._ready(event, started_s)
                        frac = _note_progress(scope, event, frac, config.load_timeout_s)
            except ActorStopped as exc:
                raise RunnerCrashed(CRASH_TEXT) from exc
            raise LoadFailed("the worker ended the load without a result")
        raise LoadFailed(
            f"timed out waiting for model runner to start - progress {frac:.2f}"
            f" - none for {format_duration(config.load_timeout_s)}"
        )

    async def _ready(self, info: Loaded, started_s: float) -> Ready:
        assert self._worker is not None, "start() has set it"
        _log.info(
            "loaded model=%s n_ctx=%d n_parallel=%d size_mib=%d cpu=%s seconds=%.2f",
            self._config.model.name,
            info.n_ctx,
            info.n_parallel,
            info.size_bytes >> 20,
            info.cpu_variant,
            trio.current_time() - started_s,
        )
        return Ready(self._worker, info, await self._worker.ask(ProcessIdRequest()))

    async def _watch(self, worker: Address) -> None:
        exit_ = await worker.stopped()
        if isinstance(exit_, Crashed | Killed):
            # The report ends with the worker's last words: what llama.cpp printed before it gave up.
            _log.error(
                "worker died model=%s digest=%s: it %s",
                self._config.model.name,
                self._config.model.digest[:12],
                describe_exit(exit_),
            )
        self.finish()


def load_message(config: RunnerConfig) -> Load:
    """Write the worker's load message for a plan."""
    model, plan = config.model, config.plan
    return Load(
        path=str(model.weights),
        adapters=tuple((str(path), 1.0) for path in plan.adapters),
        options=plan.options,
        n_parallel=plan.n_parallel,
        embedding="completion" not in model.capabilities,
        kv_unified=is_unified(model.size_bytes),
        kv_cache_type=config.kv_cache_type,
        flash_attention=config.flash_attention,
        n_threads=plan.options.n_threads
        or config.n_threads
        or useful_threads(model.size_bytes, os.cpu_count() or 1),
    )


def _note_progress(
    scope: trio.CancelScope, event: LoadProgress, frac: float, timeout_s: float
) -> float:
    """Put the deadline off when the load has got on; standing still at the same fraction does not count."""
    if event.frac > frac:
        scope.deadline = trio.current_time() + timeout_s
    return max(event.frac, frac)
