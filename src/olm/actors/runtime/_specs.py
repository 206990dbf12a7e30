"""What a supervisor is told to run: specs of children, and the value that describes a running tree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeAlias

import attrs

from olm.actors.runtime._actor import Actor
from olm.actors.runtime._policy import Restart, RestartPolicy, Strategy

__all__ = ["ChildSpec", "Spec", "SupervisorSpec", "TreeNode"]


@attrs.frozen
class ChildSpec:
    """An actor to run.

    `factory` makes a fresh actor for each life: a class without arguments, a `functools.partial`, or `process_actor(...)`.
    `restart`: permanent children are always restarted, transient ones only after a crash, temporary ones never.
    `stop_within_s` bounds the message in progress when it is asked to stop, and again its `stop()`.
    """

    name: str
    factory: Callable[[], Actor]
    restart: Restart = "permanent"
    stop_within_s: float = 5.0


def _as_tuple(children: Iterable[Spec]) -> tuple[Spec, ...]:
    return tuple(children)


@attrs.frozen
class SupervisorSpec:
    """A supervisor to run under another one, with its children in start order.

    When it is restarted, these children come back; those added later with `start_child` do not.
    """

    name: str
    strategy: Strategy = "one_for_one"
    policy: RestartPolicy = attrs.field(factory=RestartPolicy)
    children: tuple[Spec, ...] = attrs.field(default=(), converter=_as_tuple)
    restart: Restart = "permanent"


Spec: TypeAlias = ChildSpec | SupervisorSpec


@attrs.frozen
class TreeNode:
    """One actor or supervisor as `Supervisor.tree()` found it."""

    name: str
    kind: Literal["actor", "supervisor"]
    state: str
    restart: Restart
    n_restarts: int
    n_waiting: int
    """Messages in the mailbox."""
    n_lost: int
    """Told messages that nobody handled because the actor went down."""
    n_refused: int
    """Told messages that were answered with an expected error, which nobody saw."""
    last_exit: str
    """How the life before this one ended; empty for the first."""
    children: tuple[TreeNode, ...] = ()

    def walk(self) -> Iterator[TreeNode]:
        """Yield this node and all below it, in start order."""
        yield self
        for child in self.children:
            yield from child.walk()

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self, indent: str = "") -> Iterable[str]:
        restarts = f", {self.n_restarts} restarts" if self.n_restarts else ""
        yield f"{indent}{self.name} ({self.state}{restarts})"
        for child in self.children:
            yield from child._lines(indent + "  ")
