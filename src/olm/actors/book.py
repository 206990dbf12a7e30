"""Who waits, who runs, what is loaded: the scheduler's book-keeping as a state machine without time or I/O.

Feed it events (`request`, `leave`, `loaded`, `failed`, `gone`, `park`), then ask `decide` what to do; it answers with
actions and has already written them down. The scheduler carries them out. Memory arithmetic is in `placement`, the
order in which requests are served in `queue`, what is written down in `record`.

A request that needs a load which does not fit yet holds back others that would need one too (they could take its room
for ever), never those whose model runs. A turn whose reader is away is parked: it lends its slot out, and when its
runner must go and has only such turns, they end.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import count
from pathlib import Path
from typing import Final

import attrs

from olm.actors.client import LoadedModel, StoredModel
from olm.actors.memory import Memory
from olm.actors.pace import SlowReader
from olm.actors.placement import (
    Candidate,
    LoadPlan,
    Policy,
    choose_victim,
    first_plan,
    fitting_plan,
    is_reload_needed,
    usable_bytes,
)
from olm.actors.queue import QueueBounds, QueueRow, WaitingRoom
from olm.actors.record import TURN_GUESS_S, Demand, RunnerRecord, Ticket, queue_row
from olm.chat.options import LoadOptions
from olm.errors import Busy, OlmError, ShuttingDown
from olm.native.wire import Loaded

__all__ = ["SLOW_TEXT", "Action", "Book", "Demand", "Grant", "Refuse", "StartRunner", "StopRunner"]

BUSY_TEXT: Final = "server busy, please try again.  maximum pending requests exceeded"
"""Ollama's words, two spaces included (spec §1.12)."""

SLOW_TEXT: Final = "the answer was given up because nobody read it"

SHUTDOWN_TEXT: Final = "the server is shutting down"

_RETRY_MIN_S: Final = 1.0
_RETRY_MAX_S: Final = 60.0


@attrs.frozen
class Grant:
    """The ticket may use a slot of the runner until it leaves.

    Attributes:
        position: where it stood in its line when it came, from 1; 0 when it did not wait. News of the past, so no
            part of what is decided.
    """

    ticket_id: int
    runner_id: int
    position: int = attrs.field(default=0, eq=False)


@attrs.frozen
class Refuse:
    """The ticket gets an error; it is out of the book."""

    ticket_id: int
    error: OlmError


@attrs.frozen
class StartRunner:
    """Load a model; report `loaded`, or `failed` and `gone`."""

    runner_id: int
    model: StoredModel
    plan: LoadPlan


@attrs.frozen
class StopRunner:
    """Let a runner go, also while it loads; report `gone`."""

    runner_id: int
    reason: str


Action = Grant | Refuse | StartRunner | StopRunner


class Book:
    """The state of the scheduler. Times are seconds of one clock; every method is immediate.

    Args:
        policy: limits of placement.
        keep_alive_s: for runners whose requests name none.
        bounds: how many tickets may wait. As many may be parked as may wait in all.
        memory: asked only when something is to be loaded.
    """

    def __init__(
        self, policy: Policy, *, keep_alive_s: float, bounds: QueueBounds, memory: Memory
    ) -> None:
        self._policy = policy
        self._keep_alive_s = keep_alive_s
        self._max_parked = bounds.in_all
        self._memory = memory
        self._runners: dict[int, RunnerRecord] = {}
        self._waiting: WaitingRoom[Path, Ticket] = WaitingRoom(bounds)
        self._active: dict[int, Ticket] = {}
        self._gave_way: list[Refuse] = []
        self._ids = count(1)
        self._draining = False

    # -- events ------------------------------------------------------------------------------------

    def request(self, demand: Demand, now_s: float) -> int:
        """Put a request into the queue and return its ticket's id.

        Raises:
            Busy: the queue is full; `queue_position` tells where the request would have stood.
            ShuttingDown: the daemon drains.
        """
        if self._draining:
            raise ShuttingDown(SHUTDOWN_TEXT, retry_after_s=_RETRY_MIN_S)
        key, client = demand.key, demand.client
        must_wait = not self._has_free_slot(demand)
        position = self._waiting.position(key, client) if must_wait else 0
        if must_wait and not self._waiting.is_open(key, client):
            self._make_way(key, client, position)
        ticket_id = next(self._ids)
        self._waiting.push(ticket_id, key, client, Ticket(demand, now_s, position))
        return ticket_id

    def leave(self, ticket_id: int, now_s: float) -> None:
        """End a ticket, waiting or active. Unknown ids are fine: the ticket may just have been refused."""
        if ticket_id in self._waiting:
            self._waiting.remove(ticket_id)
            return
        ticket = self._active.pop(ticket_id, None)
        if ticket is None:
            return
        runner = self._runners.get(ticket.runner_id)
        if runner is not None:
            runner.take_back(ticket, now_s)

    def park(self, ticket_id: int) -> bool:
        """Lend the slot of a running ticket out: its reader is away. False when too many are parked already."""
        if sum(runner.n_parked for runner in self._runners.values()) >= self._max_parked:
            return False
        self._set_parked(ticket_id, is_parked=True)
        return True

    def unpark(self, ticket_id: int) -> None:
        """Count a parked ticket as running again. It need not wait: its sequence waits in the engine if it must."""
        self._set_parked(ticket_id, is_parked=False)

    def loaded(self, runner_id: int, info: Loaded, pid: int, now_s: float) -> None:
        """A runner is ready for turns."""
        runner = self._runners[runner_id]
        runner.info, runner.pid, runner.last_used_s = info, pid, now_s
        if runner.state == "loading":
            runner.state = "ready"

    def failed(self, runner_id: int, error: OlmError) -> list[Refuse]:
        """A load failed: everybody who waits for these weights gets the error. `gone` follows."""
        runner = self._runners[runner_id]
        stopped_by_us = runner.state == "stopping"
        runner.state = "stopping"
        return [] if stopped_by_us else self._refuse_all(runner.model.weights, error)

    def gone(self, runner_id: int) -> None:
        """A runner's process has ended; whoever waited for a slot of it waits for the next one."""
        self._runners.pop(runner_id, None)

    def expire(self, key: Path) -> None:
        """Let a model go as soon as it is idle."""
        runner = self._live(key)
        if runner is not None:
            runner.keep_alive_s = 0.0

    def drain(self) -> list[Refuse]:
        """Take nobody new, refuse those who wait, let the running go on."""
        self._draining = True
        error = ShuttingDown(SHUTDOWN_TEXT, retry_after_s=_RETRY_MIN_S)
        return [r for key in [*self._waiting.lines] for r in self._refuse_all(key, error)]

    # -- questions ---------------------------------------------------------------------------------

    @property
    def n_active(self) -> int:
        """Turns that run."""
        return len(self._active)

    @property
    def n_waiting(self) -> int:
        """Tickets in the queue."""
        return len(self._waiting)

    def busy(self) -> tuple[Counter[str], Counter[int]]:
        """Count those who wait, by the name of their model, and the turns that run, by runner."""
        waiting = Counter(
            t.demand.model.name for line in self._waiting.lines.values() for _, t in line
        )
        return waiting, Counter({r.runner_id: r.n_active for r in self._runners.values()})

    def next_deadline_s(self) -> float:
        """When the next idle model expires; infinite when none does."""
        return min(
            (r.expires_s for r in self._runners.values() if r.state == "ready" and not r.n_active),
            default=math.inf,
        )

    def rows(self, now_s: float) -> dict[int, LoadedModel]:
        """The rows of `ps` by runner, the longest-lived first."""
        rows = [(i, row) for i, r in self._runners.items() if (row := r.row(now_s)) is not None]
        return dict(sorted(rows, key=lambda item: -item[1].expires_s))

    def queue_rows(self, now_s: float) -> list[QueueRow]:
        """One row for each model that runs, loads or is waited for, by name."""
        lines = self._waiting.lines
        keys = {*lines, *(runner.model.weights for runner in self._runners.values())}
        rows = [queue_row(self._live(key), lines.get(key), now_s) for key in keys]
        return sorted(rows, key=lambda row: row.model)

    # -- decisions ---------------------------------------------------------------------------------

    def decide(self, now_s: float) -> list[Action]:
        """Say what is to be done now. Ends in a state where a second call has nothing to add."""
        actions: list[Action] = [*self._gave_way]
        self._gave_way.clear()
        for key in list(self._waiting.lines):
            runner = self._live(key)
            if runner is not None and runner.state == "ready":
                actions += self._serve(key, runner, now_s)
        actions += self._loads()
        for runner in self._runners.values():
            if runner.state == "leaving" and runner.n_active == runner.n_parked > 0:
                actions += self._end_parked(runner, now_s)
        actions += self._stops(now_s)
        return actions

    def _serve(self, key: Path, runner: RunnerRecord, now_s: float) -> Iterator[Action]:
        """Give free slots to who is next, until one needs the model loaded in another way."""
        line = self._waiting.lines[key]
        while line:
            ticket_id, ticket = line.head()
            demand = ticket.demand
            if is_reload_needed(runner.plan, demand.model, demand.options):
                runner.state, runner.reason = "leaving", "other load options are asked for"
                return
            if not runner.has_free_slot:
                return
            self._waiting.take(key)
            self._active[ticket_id] = ticket
            runner.grant(ticket, now_s)
            yield Grant(ticket_id, runner.runner_id, ticket.position)

    def _loads(self) -> Iterator[StartRunner]:
        """Begin the loads there is room for, in turn over the clients that wait for one."""
        wanted = [key for key in self._waiting.lines if self._live(key) is None]
        while wanted:
            key, client = self._waiting.next_load(wanted)
            _, ticket = self._waiting.lines[key].head()
            start = self._start(ticket.demand)
            if start is None:
                return
            self._waiting.note_load(client, start.runner_id)
            wanted.remove(key)
            yield start

    def _end_parked(self, runner: RunnerRecord, now_s: float) -> Iterator[Refuse]:
        for ticket_id, ticket in list(self._active.items()):
            if ticket.runner_id == runner.runner_id:
                self.leave(ticket_id, now_s)
                yield Refuse(ticket_id, SlowReader(f"{SLOW_TEXT}: {runner.reason}"))

    def _start(self, demand: Demand) -> StartRunner | None:
        """Plan a load, or make room and return None."""
        plan = self._room_for(demand)
        if plan is None:
            return None
        runner = RunnerRecord(next(self._ids), demand.model, plan, self._keep_alive_s)
        self._runners[runner.runner_id] = runner
        return StartRunner(runner.runner_id, demand.model, plan)

    def _room_for(self, demand: Demand) -> LoadPlan | None:
        args = demand.model, demand.options, self._policy
        plan = first_plan(*args)
        if not self._runners:
            # Alone it is loaded in any case: the estimate may be wrong, and the engine says so if it is not.
            alone = fitting_plan(*args, usable_bytes(self._memory.available_bytes()))
            return alone or _one_slot(*args)
        if any(r.state in ("stopping", "leaving") for r in self._runners.values()):
            return None  # room is on its way; judge again when it is there
        limit = self._limit_bytes()
        if len(self._runners) < self._policy.max_loaded:
            if plan.need_bytes <= limit:
                return plan
            if self._victim(idle_only=True) is None:
                fewer = fitting_plan(*args, limit)
                if fewer is not None:
                    return fewer
        victim = self._victim(idle_only=False)
        if victim is not None:
            victim.state, victim.reason = "leaving", "another model needs the room"
        return None

    def _limit_bytes(self) -> int:
        promised = sum(
            max(r.plan.need_bytes - (self._memory.anonymous_bytes(r.pid) if r.pid else 0), 0)
            for r in self._runners.values()
        )
        return usable_bytes(self._memory.available_bytes(), promised)

    def _victim(self, *, idle_only: bool) -> RunnerRecord | None:
        candidates = [
            Candidate(r.runner_id, r.n_active, r.last_used_s)
            for r in self._runners.values()
            if r.state == "ready"
        ]
        runner_id = choose_victim(candidates, idle_only=idle_only)
        return None if runner_id is None else self._runners[runner_id]

    def _stops(self, now_s: float) -> Iterator[StopRunner]:
        wanted = self._waiting.lines.keys()
        for runner in self._runners.values():
            reason = self._stop_reason(runner, wanted, now_s)
            if reason:
                runner.state = "stopping"
                yield StopRunner(runner.runner_id, reason)

    def _stop_reason(self, runner: RunnerRecord, wanted: Collection[Path], now_s: float) -> str:
        if runner.n_active:
            return ""
        if runner.state == "leaving":
            return runner.reason
        if runner.model.weights in wanted:
            return ""
        if runner.state == "loading":
            return "nobody waits for it any more"
        if runner.state == "ready" and runner.expires_s <= now_s:
            return "its keep-alive is over"
        return ""

    # -- helpers -----------------------------------------------------------------------------------

    def _live(self, key: Path) -> RunnerRecord | None:
        """The runner of these weights, whatever its state: a second one starts only after it is gone."""
        return next((r for r in self._runners.values() if r.model.weights == key), None)

    def _has_free_slot(self, demand: Demand) -> bool:
        runner = self._live(demand.key)
        return (
            runner is not None
            and runner.state == "ready"
            and runner.has_free_slot
            and not is_reload_needed(runner.plan, demand.model, demand.options)
        )

    def _make_way(self, key: Path, client: str, position: int) -> None:
        """Have somebody give way to a client that waits for less, or refuse it. Raises Busy."""
        gives_way = self._waiting.newest_of_greediest(key, client)
        if gives_way is None:
            raise self._busy(key, position)
        ticket = self._waiting.remove(gives_way)
        self._gave_way.append(Refuse(gives_way, self._busy(ticket.demand.key, ticket.position)))

    def _busy(self, key: Path, position: int) -> Busy:
        """Guess when half of those ahead have been served, from the recent turns of this model."""
        runner = self._live(key)
        n_slots = runner.n_slots if runner is not None else 0
        mean_s = runner.mean_turn_s if runner is not None else TURN_GUESS_S
        guess_s = mean_s * position / (n_slots or 1) / 2
        retry_after_s = math.ceil(min(max(guess_s, _RETRY_MIN_S), _RETRY_MAX_S))
        return Busy(BUSY_TEXT, retry_after_s=float(retry_after_s), queue_position=position)

    def _refuse_all(self, key: Path, error: OlmError) -> list[Refuse]:
        line = self._waiting.lines.get(key, ())
        refused = [Refuse(ticket_id, error) for ticket_id, _ in line]
        for refuse in refused:
            self._waiting.remove(refuse.ticket_id)
        return refused

    def _set_parked(self, ticket_id: int, *, is_parked: bool) -> None:
        ticket = self._active[ticket_id]
        runner = self._runners.get(ticket.runner_id)
        if runner is not None:
            runner.n_parked += is_parked - ticket.is_parked
        ticket.is_parked = is_parked


def _one_slot(model: StoredModel, wanted: LoadOptions, policy: Policy) -> LoadPlan:
    return first_plan(model, wanted, attrs.evolve(policy, n_parallel=1))
