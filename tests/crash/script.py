"""What a seed stands for: a store to begin from, operations, and when what goes wrong. Pure."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Literal

import attrs

from crash.ledger import Kind, Operation
from crash.shim import Moment
from crash.world import IMPORTED, PULLED, World, local

__all__ = ["FAULTS", "KINDS", "Fault", "Focus", "Life", "Script", "first_life", "make_script"]

FaultName = Literal["kill", "short", "eio", "enospc", "full", "none"]
FAULTS: Final[tuple[FaultName, ...]] = ("kill", "short", "eio", "enospc", "full", "none")
_FAULT_WEIGHTS: Final = (8, 3, 4, 3, 4, 2)
KINDS: Final[dict[Kind, int]] = {
    "pull": 6, "push": 3, "create": 4, "link": 2, "upload": 4, "copy": 4, "delete": 5, "export": 3, "import": 6,
    "check": 2, "list": 1, "restart": 2,
}  # fmt: skip
_TYPICAL_STEPS: Final[dict[Kind, int]] = {
    "pull": 45, "push": 30, "create": 20, "link": 24, "upload": 24, "copy": 8, "delete": 12, "export": 12, "import": 28,
    "check": 3, "list": 3, "restart": 12,
}  # fmt: skip
"""How many changes of the file system an operation makes, more or less; a fault falls on one of them."""
_LOCAL: Final = ("one", "two", "three", "four", "x")
_FORMS: Final = (".tar", ".tar.zst", ".d")


@attrs.frozen(kw_only=True)
class Fault:
    """What goes wrong: at the `step`-th change after operation `at` of a life began.

    Attributes:
        moment: for kill and short.
        room_bytes: what a full disk still takes from there on; it tells so only when `tells`.
        seed: of short writes.
    """

    name: FaultName
    at: int
    step: int
    moment: Moment
    n_errors: int = 1
    room_bytes: int = 0
    tells: bool = False
    seed: int = 0

    @property
    def error(self) -> int:
        """The errno that it brings; 0 for none."""
        return {"eio": errno.EIO, "enospc": errno.ENOSPC, "full": errno.ENOSPC}.get(self.name, 0)

    @property
    def kills(self) -> bool:
        """Whether it is a death."""
        return self.name in ("kill", "short")


@attrs.frozen
class Life:
    """One run of a daemon: operations, a fault, and how it ends when that was no death.

    Attributes:
        tries_again: what failed is done again in the same process, when the fault is over.
        ends_well: it closes its store; else it is killed at the end.
    """

    operations: Sequence[Operation]
    fault: Fault
    tries_again: bool
    ends_well: bool


@attrs.frozen
class Script:
    """All of a seed."""

    seed: int
    start: Path
    lives: Sequence[Life]

    def __str__(self) -> str:
        lines = [f"from {self.start.name!r}"]
        for life in self.lives:
            fault = life.fault
            lines += [
                f"{'  and' if operation.is_beside else '  then'} {operation}"
                for operation in life.operations
            ]
            what = f"{fault.name}, {fault.moment}, at change {fault.step} of {life.operations[fault.at]}"
            lines.append(
                f"  fault: {what}; tries again: {life.tries_again}; ends well: {life.ends_well}"
            )
        return "\n    ".join(lines)

    @property
    def operations(self) -> list[Operation]:
        """Those of all lives."""
        return [operation for life in self.lives for operation in life.operations]


@attrs.frozen
class Focus:
    """What to look at more closely: every fault is this one, and falls on this operation; None for any."""

    fault: FaultName | None = None
    kind: Kind | None = None


def make_script(seed: int, world: World, focus: Focus) -> Script:
    """Write the script of a seed."""
    dice = random.Random(seed)
    start = dice.choice(world.starts)
    author = _Author(seed, dice, world, focus)
    if start.name != "nothing":
        author.names |= {*map(local, ("one", "two")), *map(world.remote, "ab")}
    lives = tuple(author.life() for _ in range(dice.choice((1, 1, 1, 2, 3))))
    return Script(seed, start, lives)


def first_life(world: World) -> Life:
    """One of every operation, and nothing goes wrong: for a store that is full."""
    author = _Author(0, random.Random(0), world, Focus())
    kinds: list[Kind] = ["restart", *(kind for kind in KINDS if kind != "restart")]
    fault = Fault(name="none", at=0, step=1, moment="before")
    return Life(
        [author.operation(kind) for kind in kinds], fault, tries_again=False, ends_well=True
    )


class _Author:
    """Writes operations that make sense one after the other, as far as nothing goes wrong."""

    def __init__(self, seed: int, dice: random.Random, world: World, focus: Focus) -> None:
        self._focus = focus
        self._seed = seed
        self._dice = dice
        self._world = world
        self._number = 0
        self.names: set[str] = {local("tiny")}

    def life(self) -> Life:
        """The next one."""
        dice = self._dice
        operations = [self.operation("restart"), self.operation(self._focus.kind)]
        for _ in range(dice.randint(0, 5)):
            operation = self.operation()
            if dice.random() < 0.25 and self._goes_beside(operation, operations):
                operation = attrs.evolve(operation, is_beside=True)
            operations.append(operation)
        return Life(operations, self._fault(operations), dice.random() < 0.5, dice.random() < 0.5)

    @staticmethod
    def _goes_beside(operation: Operation, others: Sequence[Operation]) -> bool:
        """Not a base and its end: it would be asked of a registry. Which of the others will run, too, does not matter."""
        if "restart" in (operation.kind, others[-1].kind):
            return False
        pairs = [pair for other in others for pair in ((operation, other), (other, operation))]
        return not any(
            one.kind == "create" and two.kind == "delete" and one.source in two.models
            for one, two in pairs
        )

    def _fault(self, operations: Sequence[Operation]) -> Fault:
        dice, focus = self._dice, self._focus
        (name,) = [focus.fault] if focus.fault else dice.choices(FAULTS, _FAULT_WEIGHTS)
        at = 0 if dice.random() < 0.1 else dice.randrange(1, len(operations))
        at = 1 if focus.kind else at
        moment: Moment = dice.choice(("before", "after", "middle"))
        return Fault(
            name=name,
            at=at,
            step=dice.randint(1, int(1.2 * _TYPICAL_STEPS[operations[at].kind])),
            moment=moment,
            n_errors=dice.choice((1, 1, 1, 2, 5)),
            room_bytes=dice.choice((0, 3000, 100_000, 500_000, 1_500_000))
            if name == "full"
            else -1,
            tells=dice.random() < 0.3,
            seed=dice.getrandbits(40) | 1,
        )

    def operation(self, kind: Kind | None = None) -> Operation:
        """The next one; of a kind of chance's choosing."""
        dice = self._dice
        self._number += 1
        if kind is None:
            (kind,) = dice.choices(list(KINDS), list(KINDS.values()))
        known = sorted(self.names)
        if kind in ("push", "create", "copy", "delete", "export", "list") and not known:
            kind = "pull"
        made = self._made(kind, known)
        if kind == "delete":
            self.names -= set(made.models)
        elif kind != "export":
            self.names |= set(made.models)
        return made

    def _made(self, kind: Kind, known: Sequence[str]) -> Operation:
        dice = self._dice
        target, source = local(dice.choice(_LOCAL)), dice.choice(known) if known else ""
        new = partial(Operation, number=self._number, kind=kind, seed=dice.getrandbits(32))
        mark = f"made {self._number}"
        match kind:
            case "pull":
                name = dice.choice(PULLED)
                return new(models=(self._world.remote(name),), marks=(name,))
            case "push":
                name = self._world.remote(f"p{self._seed}-{self._number}")
                return new(models=(name,), source=source)
            case "create":
                return new(models=(target,), marks=(mark,), source=source)
            case "link":
                return new(models=(target,), marks=(mark,), path=self._world.linked)
            case "upload":
                return new(models=(target,), marks=(mark,))
            case "copy":
                return new(models=(target,), source=source)
            case "delete":
                return new(models=(source,))
            case "list":
                return new(source=source)
            case "export" | "import":
                return self._archive(new, known)
            case "check" | "restart":
                return new()

    def _archive(self, new: Callable[..., Operation], known: Sequence[str]) -> Operation:
        dice = self._dice
        if new(models=()).kind == "export":
            several = tuple(dice.sample(known, dice.randint(1, min(3, len(known)))))
            return new(models=several, path=Path("out") / f"{self._number}{dice.choice(_FORMS)}")
        return new(
            models=tuple(map(local, IMPORTED)),
            marks=IMPORTED,
            path=dice.choice(self._world.archives),
            is_stream=dice.random() < 0.4,
        )
