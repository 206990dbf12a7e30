"""What a supervisor runs and stops, in one shape: an actor, or a supervisor below it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import trio

from olm.actors.runtime._actor import Actor
from olm.actors.runtime._address import Address
from olm.actors.runtime._exits import Exit, Shutdown
from olm.actors.runtime._life import live
from olm.actors.runtime._policy import Backoff, Restart
from olm.actors.runtime._signal import Signal
from olm.actors.runtime._specs import TreeNode

__all__ = ["ActorUnit", "Child", "Unit"]


class Unit(Protocol):
    """The seam between a supervisor and what it supervises."""

    kind: Literal["actor", "supervisor"]
    stop_within_s: float
    """How long it may take to end by itself after `request_stop`."""

    async def run(self, started: Callable[[], None]) -> Exit:
        """Live once; call `started` when ready; return how it ended, with every task gone."""

    def request_stop(self, reason: str) -> None:
        """Ask it to end in order."""

    def cancel(self, reason: str) -> None:
        """Make it end now."""

    def retire(self) -> None:
        """It will not run again."""

    def node(self, child: Child) -> TreeNode:
        """Describe it."""


class ActorUnit:
    """An actor under a supervisor."""

    __slots__ = ("_factory", "address", "stop_within_s")

    kind: Literal["actor", "supervisor"] = "actor"

    def __init__(
        self, address: Address, factory: Callable[[], Actor], stop_within_s: float
    ) -> None:
        self.address = address
        self._factory = factory
        self.stop_within_s = stop_within_s

    async def run(self, started: Callable[[], None]) -> Exit:
        return await live(self.address, self._factory, self.stop_within_s, started)

    def request_stop(self, reason: str) -> None:
        if not self.address.is_down:
            self.address.close(Shutdown(reason))

    def cancel(self, reason: str) -> None:
        nursery = self.address.nursery
        if nursery is not None:
            if self.address.ending is None:
                self.address.close(Shutdown(reason))
            nursery.cancel_scope.cancel(reason)

    def retire(self) -> None:
        self.address.retire()

    def node(self, child: Child) -> TreeNode:
        address = self.address
        return TreeNode(
            name=child.name,
            kind="actor",
            state=address.state.value,
            restart=child.restart,
            n_restarts=child.n_restarts,
            n_waiting=address.n_waiting,
            n_lost=address.n_lost,
            n_refused=address.n_refused,
            last_exit=child.exit_text,
        )


class Child:
    """A supervisor's record of one child."""

    __slots__ = (
        "_backoff", "exit_text", "gone", "halting", "is_first", "n_restarts", "name", "order", "pause", "ready",
        "restart", "unit",
    )  # fmt: skip

    def __init__(self, name: str, restart: Restart, unit: Unit, order: int) -> None:
        self.name = name
        self.order = order  # in which it was first started among its siblings
        self.restart: Restart = restart
        self.unit = unit
        self.is_first = True  # it has not been up yet, so a failing start is the starter's
        self.n_restarts = 0
        self.exit_text = ""
        self.halting = False
        self.pause: trio.CancelScope | None = None
        # `ready`: up, or ended before it was. `gone`: its task ended.
        self.ready: Signal[Exit | None] = Signal()
        self.gone: Signal[Exit] = Signal()
        self._backoff: Backoff | None = None

    def renew(self) -> None:
        """Get ready for another task of its own."""
        self.halting = False
        self.ready = Signal()
        self.gone = Signal()

    def note_ready(self) -> None:
        """It is up."""
        self.is_first = False
        self.ready.fire(None)

    def backoff(self, make: Callable[[], Backoff]) -> Backoff:
        """Return its record of waits; most children never need one."""
        if self._backoff is None:
            self._backoff = make()
        return self._backoff
