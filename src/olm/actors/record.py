"""What the book writes down: one record for each runner, one ticket for each request. No decisions here."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import attrs

from olm.actors.client import LoadedModel, StoredModel
from olm.actors.placement import LoadPlan
from olm.actors.queue import FairQueue, QueueRow
from olm.chat.options import LoadOptions
from olm.native.wire import Loaded

__all__ = ["TURN_GUESS_S", "Demand", "RunnerRecord", "Ticket", "queue_row"]

TURN_GUESS_S: Final = 5.0
"""How long a turn takes before any has ended."""

_TURN_WEIGHT: Final = 0.2
"""Smoothing of the mean turn time: about the last ten turns count."""

RunnerState = Literal["loading", "ready", "leaving", "stopping"]


@attrs.frozen
class Demand:
    """What a request needs: its model, the load options it set, and how long the model shall stay afterwards.

    Attributes:
        client: who asks; waiting requests are served round robin over clients.
    """

    model: StoredModel
    options: LoadOptions = attrs.field(factory=LoadOptions)
    keep_alive_s: float | None = None
    client: str = ""

    @property
    def key(self) -> Path:
        """Runners are kept by weights: names that share them share a runner."""
        return self.model.weights


@attrs.define
class Ticket:
    """A request that waits or runs.

    Attributes:
        position: where it stood in its line when it came, from 1; 0 when there was nothing to wait for.
        is_parked: it runs, its reader is away, and its slot is lent out.
    """

    demand: Demand
    asked_s: float
    position: int
    runner_id: int = 0
    granted_s: float = 0.0
    is_parked: bool = False


@attrs.define
class RunnerRecord:
    """A runner. `leaving`: takes nobody new and stops when idle. `stopping`: it was told to, `gone` will come.

    Attributes:
        n_active: tickets that run; n_parked: those of them that use no slot.
        mean_turn_s: how long a ticket holds its slot, smoothed over the recent ones.
    """

    runner_id: int
    model: StoredModel
    plan: LoadPlan
    keep_alive_s: float
    mean_turn_s: float = TURN_GUESS_S
    state: RunnerState = "loading"
    info: Loaded | None = None
    pid: int = 0
    n_active: int = 0
    n_parked: int = 0
    last_used_s: float = 0.0
    reason: str = ""

    @property
    def n_slots(self) -> int:
        """Slots of the loaded model, 0 while it loads."""
        return self.info.n_parallel if self.info else 0

    @property
    def has_free_slot(self) -> bool:
        """Whether one more turn may run. Readers that came back may hold more slots than there are for a while."""
        return self.n_active - self.n_parked < self.n_slots

    @property
    def expires_s(self) -> float:
        """When it goes if nobody uses it, by the clock of the book."""
        return self.last_used_s + self.keep_alive_s

    def grant(self, ticket: Ticket, now_s: float) -> None:
        """Give a slot to a ticket."""
        ticket.runner_id, ticket.granted_s = self.runner_id, now_s
        self.n_active += 1
        self.last_used_s = now_s
        if ticket.demand.keep_alive_s is not None:
            self.keep_alive_s = ticket.demand.keep_alive_s

    def take_back(self, ticket: Ticket, now_s: float) -> None:
        """Take the slot of a ticket that ends."""
        self.n_active -= 1
        self.n_parked -= ticket.is_parked
        self.last_used_s = now_s
        self.mean_turn_s += _TURN_WEIGHT * (now_s - ticket.granted_s - self.mean_turn_s)

    def row(self, now_s: float) -> LoadedModel | None:
        """Write the row of `ps`; None while it loads."""
        if self.info is None:
            return None
        match self.state:
            case "leaving" | "stopping":
                expires_s = 0.0
            case _ if self.n_active:
                expires_s = self.keep_alive_s
            case _:
                expires_s = self.expires_s - now_s
        return LoadedModel(
            name=self.model.name,
            digest=self.model.digest,
            details=self.model.details,
            size_bytes=self.info.size_bytes or self.plan.need_bytes,
            vram_bytes=self.info.vram_bytes,
            n_ctx=self.info.n_ctx,
            expires_s=expires_s,
        )


def queue_row(
    runner: RunnerRecord | None, line: FairQueue[Ticket] | None, now_s: float
) -> QueueRow:
    """Say who runs and waits for one model; at least one of the two is there."""
    waiting = [line.head(client)[1] for client in line.clients] if line is not None else []
    model = runner.model if runner is not None else waiting[0].demand.model
    return QueueRow(
        model=model.name,
        state=runner.state if runner is not None else "waiting",
        n_slots=runner.n_slots if runner is not None else 0,
        n_running=runner.n_active if runner is not None else 0,
        n_paused=runner.n_parked if runner is not None else 0,
        n_waiting=len(line) if line is not None else 0,
        n_clients=len(waiting),
        longest_wait_s=max((now_s - ticket.asked_s for ticket in waiting), default=0.0),
        mean_turn_s=runner.mean_turn_s if runner is not None else 0.0,
    )
