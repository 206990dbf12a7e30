"""Supervisors: a nursery that keeps its children alive by a strategy, and stops them in order.

How children are kept is `_keeper`. The whole tree runs under one shield, at the root, so that cancellation from outside becomes an
orderly stop: last started, first stopped, each one bounded.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Literal, overload

import trio

from olm.actors.runtime._address import Address
from olm.actors.runtime._exits import (
    Crashed,
    Exit,
    Shutdown,
    describe_exit,
    stopped_error,
    unwrap_single,
)
from olm.actors.runtime._keeper import Keeper
from olm.actors.runtime._policy import RestartPolicy, Strategy
from olm.actors.runtime._signal import Signal
from olm.actors.runtime._specs import ChildSpec, Spec, SupervisorSpec, TreeNode
from olm.actors.runtime._units import ActorUnit, Child, Unit
from olm.errors import ActorError

__all__ = ["Supervisor", "open_supervisor"]


class Supervisor:
    """Children under one restart strategy. Made by `open_supervisor`, or by `start_child` with a `SupervisorSpec`.

    The object stays valid while it is restarted by the supervisor above it.
    """

    kind: Literal["actor", "supervisor"] = "supervisor"
    # Each child is bounded, so the whole is.
    stop_within_s = float("inf")

    def __init__(self, path: str, spec: SupervisorSpec, rng: random.Random) -> None:
        self.name = path
        self._spec = spec
        self._rng = rng
        self._keeper: Keeper | None = None
        self._starting: trio.CancelScope | None = None
        self._last_exit: Exit | None = None
        self._n_started = 0
        # The children of the spec, which keep their addresses when this supervisor is restarted.
        self._own: dict[str, Unit] = {}
        self._own = {child.name: self._make_unit(child) for child in spec.children}

    def __repr__(self) -> str:
        return f"<Supervisor {self.name} {self._spec.strategy} {self._state}>"

    # -- for everybody -----------------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Whether it takes children."""
        return self._keeper is not None and not self._keeper.end.is_set

    @overload
    async def start_child(self, spec: ChildSpec) -> Address: ...
    @overload
    async def start_child(self, spec: SupervisorSpec) -> Supervisor: ...
    async def start_child(self, spec: Spec) -> Address | Supervisor:
        """Start a child after the others and return its address once its `start` is done.

        Cancelled meanwhile, the child is stopped first and waited for.

        Raises:
            Exception: what `start` or the factory raised; there is no such child then, and no retry.
            ActorError: the name is taken.
            ActorStopped: this supervisor is down or stopping, or it stopped the child before it was up.
        """
        keeper = self._keeper
        if keeper is None or keeper.end.is_set:
            await trio.lowlevel.checkpoint()
            raise stopped_error(self.name, self._last_exit)
        if spec.name in keeper.children:
            await trio.lowlevel.checkpoint()
            raise ActorError(f"supervisor {self.name} already has a child named {spec.name!r}")
        unit = self._make_unit(spec)
        await keeper.start_first(self._make_child(spec, unit))
        if isinstance(unit, ActorUnit):
            return unit.address
        assert isinstance(unit, Supervisor), "a unit is an actor or a supervisor"
        return unit

    async def stop_child(self, name: str, reason: str = "stopped by request") -> Exit | None:
        """Stop a child in order, wait until it is gone, and forget it; its name is free then.

        Returns how it ended, or None if there is no such child (it may just have ended by itself). A caller that is
        cancelled only stops waiting. An actor that stops itself this way would wait for itself: use `finish`.
        """
        keeper = self._keeper
        child = keeper.children.get(name) if keeper is not None else None
        if keeper is None or child is None:
            await trio.lowlevel.checkpoint()
            return None
        keeper.begin_halt(child, reason)
        exit_ = await child.gone.wait()
        keeper.drop(child)
        return exit_

    def address(self, path: str) -> Address:
        """Look up an actor by name, or by a path such as `models/scheduler`. Raises ActorError if there is none."""
        unit = self._find(path)
        if isinstance(unit, ActorUnit):
            return unit.address
        raise ActorError(f"there is no actor {path!r} under supervisor {self.name}")

    def supervisor(self, path: str) -> Supervisor:
        """Look up a supervisor below this one by name or path. Raises ActorError if there is none."""
        unit = self._find(path)
        if isinstance(unit, Supervisor):
            return unit
        raise ActorError(f"there is no supervisor {path!r} under supervisor {self.name}")

    def tree(self) -> TreeNode:
        """Describe this supervisor and all below it as a value."""
        return self.node(Child(self.name, self._spec.restart, self, 0))

    # -- for the runtime: a supervisor is a unit of the one above it ---------------------------------------------------

    async def run(self, started: Callable[[], None]) -> Exit:
        """Run the children until asked to stop, or until they crash too often."""
        spec = self._spec
        try:
            async with trio.open_nursery() as nursery:
                keeper = Keeper(self.name, spec.strategy, spec.policy, self._rng, nursery)
                self._keeper = keeper
                with trio.CancelScope() as self._starting:
                    await self._start_own(keeper)
                self._starting = None
                if not keeper.end.is_set:
                    started()
                exit_ = await keeper.end.wait()
                await keeper.stop_all(describe_exit(exit_))
        except BaseExceptionGroup as group:
            crash, rest = group.split(Exception)
            if rest is not None:
                raise rest from None
            assert crash is not None, "a group has members"
            exit_ = Crashed(unwrap_single(crash))
        self._retire_added()
        self._last_exit = exit_
        self._keeper = None
        return exit_

    def request_stop(self, reason: str) -> None:
        """Have the children stopped in order, then end."""
        if self._keeper is not None:
            self._keeper.end.fire(Shutdown(reason))
        if self._starting is not None:
            self._starting.cancel(reason)

    def cancel(self, reason: str) -> None:
        """Do the same: the children are stopped in order, each bounded, in any case."""
        self.request_stop(reason)

    def retire(self) -> None:
        """Mark all addresses below as gone for good."""
        for unit in self._own.values():
            unit.retire()

    def node(self, child: Child) -> TreeNode:
        """Describe it and all below it."""
        children = self._keeper.children.values() if self._keeper is not None else ()
        return TreeNode(
            name=child.name,
            kind="supervisor",
            state=self._state,
            restart=child.restart,
            n_restarts=child.n_restarts,
            n_waiting=0,
            n_lost=0,
            n_refused=0,
            last_exit=child.exit_text,
            children=tuple(below.unit.node(below) for below in children),
        )

    # -- helpers -----------------------------------------------------------------------------------------------------

    @property
    def _state(self) -> str:
        if self._keeper is None:
            return "down"
        return "stopping" if self._keeper.end.is_set else "running"

    async def _start_own(self, keeper: Keeper) -> None:
        for spec in self._spec.children:
            try:
                await keeper.start_first(self._make_child(spec, self._own[spec.name]))
            except Exception as exc:
                # The first start of a tree is not retried here; the supervisor above may start all of it again.
                keeper.end.fire(Crashed(exc))
                return

    def _make_unit(self, spec: Spec) -> Unit:
        path = f"{self.name}/{spec.name}"
        if isinstance(spec, ChildSpec):
            return ActorUnit(Address(path), spec.factory, spec.stop_within_s)
        return Supervisor(path, spec, self._rng)

    def _make_child(self, spec: Spec, unit: Unit) -> Child:
        self._n_started += 1
        return Child(spec.name, spec.restart, unit, self._n_started)

    def _retire_added(self) -> None:
        """Children added by `start_child` do not come back when this supervisor is restarted."""
        for name, child in self._keeper.children.items() if self._keeper is not None else ():
            if self._own.get(name) is not child.unit:
                child.unit.retire()

    def _find(self, path: str) -> Unit | None:
        first, _, rest = path.partition("/")
        unit: Unit | None = None
        if self._keeper is not None and first in self._keeper.children:
            unit = self._keeper.children[first].unit
        unit = unit or self._own.get(first)
        if not rest:
            return unit
        return unit._find(rest) if isinstance(unit, Supervisor) else None


@asynccontextmanager
async def open_supervisor(
    name: str = "root",
    strategy: Strategy = "one_for_one",
    policy: RestartPolicy = RestartPolicy(),  # noqa: B008 # a frozen value
    *,
    children: Iterable[Spec] = (),
    rng: random.Random | None = None,
) -> AsyncIterator[Supervisor]:
    """Open a supervisor for the length of a block. Leaving it, by whatever way, stops the children in reverse order.

    Args:
        name: the first part of every actor's path.
        strategy: what is restarted with a crashed child: it alone, all, or it and those started after it.
        policy: how many crashes are borne, and the waits between restarts.
        children: started in order before the block begins.
        rng: where the jitter of the waits comes from; give a seeded one to tests.

    Raises:
        ExceptionGroup: like any nursery. It holds what the block raised, or `TooManyRestarts` when the children
            crashed too often; the block is cancelled in that case.
    """
    spec = SupervisorSpec(name, strategy, policy, children)
    supervisor = Supervisor(name, spec, rng or random.Random())
    ready: Signal[None] = Signal()
    async with trio.open_nursery() as nursery:
        try:
            nursery.start_soon(_run_root, supervisor, ready, name=name)
            await ready.wait()
            yield supervisor
        finally:
            supervisor.request_stop("its supervisor was closed")


async def _run_root(supervisor: Supervisor, ready: Signal[None]) -> None:
    # Cancelled before it began, nobody would ask it to stop any more.
    await trio.lowlevel.checkpoint_if_cancelled()
    with trio.CancelScope(
        shield=True
    ):  # bounded: each child is, and the block's end asks them to stop
        exit_ = await supervisor.run(lambda: ready.fire(None))
        supervisor.retire()
    if isinstance(exit_, Crashed):
        raise exit_.exc
