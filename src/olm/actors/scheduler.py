"""The scheduler: grants slots of loaded models to requests, and has models loaded and unloaded for that.

A permanent actor around the pure `book`. A request opens a stream to it, receives one lease, and holds the slot until
it closes the stream, in whatever way that happens. What a lease is used for is `olm.actors.models`' business; how a
model is loaded is the runner's.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import assert_never

import attrs
import trio

from olm.actors.book import SLOW_TEXT, Book, Demand, Grant, Refuse, StartRunner, StopRunner
from olm.actors.client import LoadedModel
from olm.actors.memory import Memory, SystemMemory
from olm.actors.pace import Pace, SlowReader
from olm.actors.placement import Policy
from olm.actors.queue import QueueBounds, QueueRow
from olm.actors.runner import CRASH_TEXT, LoadModel, Ready
from olm.actors.runtime import (
    Actor,
    Address,
    ChildSpec,
    Message,
    Reply,
    StreamClosed,
    StreamMessage,
    StreamSink,
    Supervisor,
    handles,
    streams,
)
from olm.actors.stats import ModelCounts, RunnerStats, SchedulerStats, Stats
from olm.errors import ActorError, ActorStopped, LoadFailed, OlmError, RunnerCrashed
from olm.log import get_logger
from olm.native.wire import Loaded

__all__ = [
    "Acquire",
    "Drain",
    "Expire",
    "Lease",
    "ListLoaded",
    "ListQueue",
    "Ping",
    "Scheduler",
    "SchedulerConfig",
]

_log = get_logger("scheduler")


@attrs.frozen
class Lease:
    """A slot of a loaded model: the worker to send the turn to, and what is known about the model.

    Attributes:
        queue_position: where the request stood in its line when it came, from 1; 0 when it did not wait.
        pace: of the turn's reader. One that is away too long lends its slot out, and later loses its turn.
    """

    worker: Address
    info: Loaded
    queue_position: int = 0
    pace: Pace = attrs.field(factory=Pace)


class Acquire(StreamMessage[Lease], frozen=True):
    """Wait for a slot; the one item is the lease, closing the stream gives the slot back.

    The stream ends early when the turn is over and only its reader is slow.

    Raises (as the stream's error): Busy, ShuttingDown, LoadFailed, RunnerCrashed, SlowReader.
    """

    demand: Demand


class ListLoaded(Message[tuple[LoadedModel, ...]], frozen=True):
    """The rows of `ps`."""


class ListQueue(Message[tuple[QueueRow, ...]], frozen=True):
    """Who runs and who waits, for each model."""


class Expire(Message[None], frozen=True):
    """Let the model with these weights go as soon as it is idle."""

    key: Path


class Ping(Message[None], frozen=True):
    """Ask for a sign of life."""


class Drain(Message[None], frozen=True):
    """Refuse the waiting and the new from now on; answered when the last running turn has ended."""


@attrs.frozen
class SchedulerConfig:
    """What a scheduler is made with.

    Attributes:
        runners: looks up the supervisor that runners live under; it starts after the scheduler.
        runner_spec: makes the child that loads a model.
        slow_reader_s: after so long without reading a turn lends its slot out.
        reader_timeout_s: after so much longer it is ended.
    """

    policy: Policy
    runners: Callable[[], Supervisor]
    runner_spec: Callable[[StartRunner], ChildSpec]
    keep_alive_s: float = 300.0
    bounds: QueueBounds = attrs.field(factory=QueueBounds)
    slow_reader_s: float = 60.0
    reader_timeout_s: float = 600.0
    memory: Memory = attrs.field(factory=SystemMemory)


@attrs.define
class _Waiter:
    """A request's end: where its lease goes, or its error; `scope` is cancelled to refuse it."""

    sink: StreamSink[Lease]
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    pace: Pace = attrs.field(factory=Pace)
    error: OlmError | None = None


@attrs.define
class _Run:
    """A runner's task: `scope` is cancelled to stop it; `ready` is set once it is loaded; `counts` are its model's."""

    counts: ModelCounts
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    ready: Ready | None = None


class Scheduler(Actor):
    """Keeps the book and carries out what it decides."""

    def __init__(self, config: SchedulerConfig) -> None:
        self._config = config
        self._book = Book(
            config.policy,
            keep_alive_s=config.keep_alive_s,
            bounds=config.bounds,
            memory=config.memory,
        )
        self._waiters: dict[int, _Waiter] = {}
        self._runs: dict[int, _Run] = {}
        self._counts: defaultdict[str, ModelCounts] = defaultdict(ModelCounts)
        self._timer = trio.CancelScope()
        self._drains: list[Reply[None]] = []

    async def start(self) -> None:
        """Begin to watch the keep-alive deadlines."""
        self.nursery.start_soon(self._watch_deadlines)

    # -- messages ----------------------------------------------------------------------------------

    @streams(Acquire)
    async def acquire(self, msg: Acquire, out: StreamSink[Lease]) -> None:
        """Hold a place in the queue, then a slot, until the consumer leaves; that cancels this task."""
        ticket_id = self._book.request(msg.demand, trio.current_time())
        waiter = self._waiters[ticket_id] = _Waiter(out)
        try:
            with waiter.scope:
                self._pump()
                await self._hold(ticket_id, waiter.pace)
        finally:
            del self._waiters[ticket_id]
            self._book.leave(ticket_id, trio.current_time())
            self._pump()
        if waiter.error is not None:
            raise waiter.error

    async def _hold(self, ticket_id: int, pace: Pace) -> None:
        """Wait and then hold a slot, lending it out while its reader is away. Returns when nobody needs it any more."""
        config = self._config
        while True:
            await pace.wait_away(config.slow_reader_s)
            if pace.is_over:
                return
            if self._book.park(ticket_id):
                self._pump()
                with trio.move_on_after(config.reader_timeout_s):
                    await pace.wait_back()
                    self._book.unpark(ticket_id)
                    continue
            error = SlowReader(f"{SLOW_TEXT} for too long")
            self._refuse([Refuse(ticket_id, error)])
            await trio.lowlevel.checkpoint()

    @handles(ListLoaded)
    def list_loaded(self, _: ListLoaded) -> tuple[LoadedModel, ...]:
        """See `ListLoaded`."""
        return tuple(self._book.rows(trio.current_time()).values())

    @handles(Stats)
    def stats(self, _: Stats) -> SchedulerStats:
        """See `Stats`."""
        waiting, active = self._book.busy()
        runners = [
            RunnerStats(row, ready.info, active[runner_id], ready.worker)
            for runner_id, row in self._book.rows(trio.current_time()).items()
            if (ready := self._runs[runner_id].ready) is not None
        ]
        counts = {name: counts.copy() for name, counts in self._counts.items()}
        return SchedulerStats(waiting, runners, counts)

    @handles(ListQueue)
    def list_queue(self, _: ListQueue) -> tuple[QueueRow, ...]:
        """See `ListQueue`."""
        return tuple(self._book.queue_rows(trio.current_time()))

    @handles(Expire)
    def expire(self, msg: Expire) -> None:
        """See `Expire`."""
        self._book.expire(msg.key)
        self._pump()

    @handles(Ping)
    def ping(self, _: Ping) -> None:
        """See `Ping`."""

    @handles(Drain)
    def drain(self, _: Drain, reply: Reply[None]) -> None:
        """See `Drain`."""
        self._drains.append(reply)
        self._refuse(self._book.drain())
        self._pump()

    # -- acting on decisions -------------------------------------------------------------------------

    def _pump(self) -> None:
        """Carry out what the book decides; call after every event. Never waits."""
        for action in self._book.decide(trio.current_time()):
            match action:
                case Grant():
                    self._grant(action)
                case Refuse():
                    self._refuse([action])
                case StartRunner():
                    run = _Run(self._counts[action.model.name])
                    self._runs[action.runner_id] = run
                    self.nursery.start_soon(self._run_runner, action, run)
                case StopRunner(runner_id, reason):
                    run = self._runs[runner_id]
                    run.scope.cancel(reason)
                    if run.ready is not None:
                        run.counts.n_stops[reason] += 1
                    _log.info("stopping runner=%d: %s", runner_id, reason)
                case _:
                    assert_never(action)
        self._timer.deadline = self._book.next_deadline_s()
        if self._drains and not self._book.n_active:
            for reply in self._drains:
                reply.send(None)
            self._drains.clear()

    def _grant(self, grant: Grant) -> None:
        ready = self._runs[grant.runner_id].ready
        assert ready is not None, "the book grants slots of loaded runners only"
        waiter = self._waiters[grant.ticket_id]
        lease = Lease(ready.worker, ready.info, grant.position, waiter.pace)
        # The consumer may have left just now; its task gives the slot back when it runs.
        with contextlib.suppress(StreamClosed):
            waiter.sink.send_nowait(lease)

    def _refuse(self, refusals: Iterable[Refuse]) -> None:
        for refuse in refusals:
            waiter = self._waiters[refuse.ticket_id]
            # Each caller gets an object of its own: raised in two tasks, one would mix their tracebacks.
            waiter.error = type(refuse.error)(refuse.error.message, **refuse.error.details)
            waiter.pace.give_up(waiter.error)
            waiter.scope.cancel("refused")

    async def _run_runner(self, start: StartRunner, run: _Run) -> None:
        """Have a runner from its start to its end; `run.scope` is cancelled to end it."""
        runners = self._config.runners()
        spec = self._config.runner_spec(start)
        started_s = trio.current_time()
        with run.scope:
            try:
                runner = await runners.start_child(spec)
                ready = await runner.ask(LoadModel())
            except (
                Exception
            ) as exc:  # whatever it is, those who wait get an answer and the other models live on
                error = _load_error(exc)
                run.counts.n_failures += 1
                _log.error("load failed model=%s: %s", start.model.name, error, exc_info=_bug(exc))
                self._refuse(self._book.failed(start.runner_id, error))
            else:
                run.ready = ready
                run.counts.n_loads += 1
                run.counts.load_s += trio.current_time() - started_s
                self._book.loaded(start.runner_id, ready.info, ready.pid, trio.current_time())
                self._pump()
                await runner.stopped()
                run.counts.n_crashes += 1
        await runners.stop_child(spec.name, "unloaded")
        del self._runs[start.runner_id]
        self._book.gone(start.runner_id)
        self._pump()

    async def _watch_deadlines(self) -> None:
        while True:
            with trio.CancelScope() as self._timer:
                self._timer.deadline = self._book.next_deadline_s()
                await trio.sleep_forever()
            self._pump()


def _load_error(exc: Exception) -> OlmError:
    """Tell those who wait why their model did not load."""
    match exc:
        case ActorStopped():
            error: OlmError = RunnerCrashed(CRASH_TEXT)
        case OlmError() if not isinstance(exc, ActorError):
            error = exc
        case _:
            error = LoadFailed(f"cannot start the model runner: {exc}")
    return error


def _bug(exc: Exception) -> Exception | None:
    return None if isinstance(exc, OlmError) and not isinstance(exc, ActorStopped) else exc
