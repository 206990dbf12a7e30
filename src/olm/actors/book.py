"""Who waits, who runs, what is loaded: the scheduler's book-keeping as a state machine without time or I/O.

Feed it events (`request`, `leave`, `loaded`, `failed`, `gone`), then ask `decide` what to do; it answers with actions
and has already written them down. The scheduler carries them out. Memory arithmetic is in `placement`.

Order: requests are served first come, first served for each model; a request that needs a load which does not fit yet
holds back later requests that would need one too (they could take its room for ever), never those whose model runs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final, Literal

import attrs

from olm.actors.client import LoadedModel, StoredModel
from olm.actors.memory import Memory
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
from olm.chat.options import LoadOptions
from olm.errors import Busy, OlmError, ShuttingDown
from olm.native.wire import Loaded

__all__ = ["Action", "Book", "Demand", "Grant", "Refuse", "StartRunner", "StopRunner"]

BUSY_TEXT: Final = "server busy, please try again.  maximum pending requests exceeded"
"""Ollama's words, two spaces included (spec §1.12)."""

SHUTDOWN_TEXT: Final = "the server is shutting down"

_RETRY_MIN_S: Final = 1.0
_RETRY_MAX_S: Final = 60.0
_TURN_GUESS_S: Final = 5.0
_TURN_WEIGHT: Final = 0.2
"""Smoothing of the mean turn time: about the last ten turns count."""


@attrs.frozen
class Demand:
    """What a request needs: its model, the load options it set, and how long the model shall stay afterwards."""

    model: StoredModel
    options: LoadOptions = attrs.field(factory=LoadOptions)
    keep_alive_s: float | None = None

    @property
    def key(self) -> Path:
        """Runners are kept by weights: names that share them share a runner."""
        return self.model.weights


@attrs.frozen
class Grant:
    """The ticket may use a slot of the runner until it leaves."""

    ticket_id: int
    runner_id: int


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

_State = Literal["loading", "ready", "leaving", "stopping"]


@attrs.define
class _Ticket:
    demand: Demand
    runner_id: int | None = None
    granted_s: float = 0.0


@attrs.define
class _Runner:
    """`leaving`: takes nobody new and stops when idle. `stopping`: `StopRunner` is out, `gone` will come."""

    runner_id: int
    model: StoredModel
    plan: LoadPlan
    keep_alive_s: float
    state: _State = "loading"
    info: Loaded | None = None
    pid: int = 0
    n_active: int = 0
    last_used_s: float = 0.0
    reason: str = ""

    @property
    def n_slots(self) -> int:
        return self.info.n_parallel if self.info else 0

    @property
    def expires_s(self) -> float:
        return self.last_used_s + self.keep_alive_s


class Book:
    """The state of the scheduler. Times are seconds of one clock; every method is immediate.

    Args:
        policy: limits of placement.
        keep_alive_s: for runners whose requests name none.
        max_queue: how many tickets may wait.
        memory: asked only when something is to be loaded.
    """

    def __init__(
        self, policy: Policy, *, keep_alive_s: float, max_queue: int, memory: Memory
    ) -> None:
        self._policy = policy
        self._keep_alive_s = keep_alive_s
        self._max_queue = max_queue
        self._memory = memory
        self._runners: dict[int, _Runner] = {}
        self._waiting: dict[int, _Ticket] = {}
        self._active: dict[int, _Ticket] = {}
        self._ids = count(1)
        self._mean_turn_s = _TURN_GUESS_S
        self._draining = False

    # -- events ------------------------------------------------------------------------------------

    def request(self, demand: Demand) -> int:
        """Put a request into the queue and return its ticket's id.

        Raises:
            Busy: the queue is full. ShuttingDown: the daemon drains.
        """
        if self._draining:
            raise ShuttingDown(SHUTDOWN_TEXT, retry_after_s=_RETRY_MIN_S)
        if len(self._waiting) >= self._max_queue and not self._has_free_slot(demand):
            raise Busy(BUSY_TEXT, retry_after_s=self._retry_after_s())
        ticket_id = next(self._ids)
        self._waiting[ticket_id] = _Ticket(demand)
        return ticket_id

    def leave(self, ticket_id: int, now_s: float) -> None:
        """End a ticket, waiting or active. Unknown ids are fine: the ticket may just have been refused."""
        if self._waiting.pop(ticket_id, None) is not None:
            return
        ticket = self._active.pop(ticket_id, None)
        if ticket is None:
            return
        turn_s = now_s - ticket.granted_s
        self._mean_turn_s += _TURN_WEIGHT * (turn_s - self._mean_turn_s)
        runner = self._runners.get(ticket.runner_id or 0)
        if runner is not None:
            runner.n_active -= 1
            runner.last_used_s = now_s

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
        if stopped_by_us:
            return []
        refused = [
            Refuse(ticket_id, error)
            for ticket_id, ticket in self._waiting.items()
            if ticket.demand.key == runner.model.weights
        ]
        for refuse in refused:
            del self._waiting[refuse.ticket_id]
        return refused

    def gone(self, runner_id: int) -> None:
        """A runner's process has ended; whoever waited for a slot of it waits for the next one."""
        self._runners.pop(runner_id, None)

    def expire(self, key: Path) -> None:
        """Let a model go as soon as it is idle."""
        for runner in self._live(key):
            runner.keep_alive_s = 0.0

    def drain(self) -> list[Refuse]:
        """Take nobody new, refuse those who wait, let the running go on."""
        self._draining = True
        error = ShuttingDown(SHUTDOWN_TEXT, retry_after_s=_RETRY_MIN_S)
        refused = [Refuse(ticket_id, error) for ticket_id in self._waiting]
        self._waiting.clear()
        return refused

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
        waiting = Counter(ticket.demand.model.name for ticket in self._waiting.values())
        return waiting, Counter({r.runner_id: r.n_active for r in self._runners.values()})

    def next_deadline_s(self) -> float:
        """When the next idle model expires; infinite when none does."""
        return min(
            (r.expires_s for r in self._runners.values() if r.state == "ready" and not r.n_active),
            default=math.inf,
        )

    def rows(self, now_s: float) -> dict[int, LoadedModel]:
        """The rows of `ps` by runner, the longest-lived first."""
        rows = [(i, _row(r, r.info, now_s)) for i, r in self._runners.items() if r.info]
        return dict(sorted(rows, key=lambda item: -item[1].expires_s))

    # -- decisions ---------------------------------------------------------------------------------

    def decide(self, now_s: float) -> list[Action]:
        """Say what is to be done now. Ends in a state where a second call has nothing to add."""
        actions: list[Action] = []
        held_back = False
        for ticket_id, ticket in list(self._waiting.items()):
            runner = next(self._live(ticket.demand.key), None)
            if runner is None:
                if not held_back:
                    start = self._start(ticket.demand)
                    held_back = start is None
                    actions += [start] if start else []
            elif runner.state == "ready":
                actions += self._use(ticket_id, ticket, runner, now_s)
        actions += self._stops(now_s)
        return actions

    def _use(
        self, ticket_id: int, ticket: _Ticket, runner: _Runner, now_s: float
    ) -> Iterator[Action]:
        if is_reload_needed(runner.plan, ticket.demand.model, ticket.demand.options):
            runner.state, runner.reason = "leaving", "other load options are asked for"
        elif runner.n_active < runner.n_slots:
            del self._waiting[ticket_id]
            self._active[ticket_id] = ticket
            ticket.runner_id, ticket.granted_s = runner.runner_id, now_s
            runner.n_active += 1
            runner.last_used_s = now_s
            if ticket.demand.keep_alive_s is not None:
                runner.keep_alive_s = ticket.demand.keep_alive_s
            yield Grant(ticket_id, runner.runner_id)

    def _start(self, demand: Demand) -> StartRunner | None:
        """Plan a load, or make room and return None."""
        plan = self._room_for(demand)
        if plan is None:
            return None
        runner = _Runner(next(self._ids), demand.model, plan, self._keep_alive_s)
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

    def _victim(self, *, idle_only: bool) -> _Runner | None:
        candidates = [
            Candidate(r.runner_id, r.n_active, r.last_used_s)
            for r in self._runners.values()
            if r.state == "ready"
        ]
        runner_id = choose_victim(candidates, idle_only=idle_only)
        return None if runner_id is None else self._runners[runner_id]

    def _stops(self, now_s: float) -> Iterator[StopRunner]:
        wanted = {ticket.demand.key for ticket in self._waiting.values()}
        for runner in self._runners.values():
            reason = self._stop_reason(runner, wanted, now_s)
            if reason:
                runner.state = "stopping"
                yield StopRunner(runner.runner_id, reason)

    def _stop_reason(self, runner: _Runner, wanted: set[Path], now_s: float) -> str:
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

    def _live(self, key: Path) -> Iterator[_Runner]:
        """The runner of these weights, whatever its state: a second one starts only after it is gone."""
        return (r for r in self._runners.values() if r.model.weights == key)

    def _has_free_slot(self, demand: Demand) -> bool:
        return any(
            r.state == "ready"
            and r.n_active < r.n_slots
            and not is_reload_needed(r.plan, demand.model, demand.options)
            for r in self._live(demand.key)
        )

    def _retry_after_s(self) -> float:
        """Guess when a place in the queue is free: the turns ahead, over all slots there are."""
        slots = sum(r.n_slots for r in self._runners.values()) or 1
        guess = self._mean_turn_s * (len(self._waiting) + 1) / slots / 2
        return float(math.ceil(min(max(guess, _RETRY_MIN_S), _RETRY_MAX_S)))


def _one_slot(model: StoredModel, wanted: LoadOptions, policy: Policy) -> LoadPlan:
    return first_plan(model, wanted, attrs.evolve(policy, n_parallel=1))


def _row(runner: _Runner, info: Loaded, now_s: float) -> LoadedModel:
    match runner.state:
        case "leaving" | "stopping":
            expires_s = 0.0
        case _ if runner.n_active:
            expires_s = runner.keep_alive_s
        case _:
            expires_s = runner.expires_s - now_s
    return LoadedModel(
        name=runner.model.name,
        digest=runner.model.digest,
        details=runner.model.details,
        size_bytes=info.size_bytes or runner.plan.need_bytes,
        vram_bytes=info.vram_bytes,
        n_ctx=info.n_ctx,
        expires_s=expires_s,
    )
