"""What names may stand for: what was told to be done is done, what was begun is done or not, nothing else happens. Pure.

A model is known by its mark, a text that is its own; absent is None. Operations may overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import attrs

__all__ = ["Ledger", "Operation"]

Kind = Literal[
    "pull", "push", "create", "link", "upload", "copy", "delete", "export", "import", "check", "list", "restart"
]  # fmt: skip


@attrs.frozen(kw_only=True)
class Operation:
    """One thing to be done to a store.

    Attributes:
        number: its own within a seed.
        models: names that it makes, changes or removes; those that `export` writes.
        marks: what `models` stand for when it is done.
        source: what `copy`, `create` and `push` start from; a push copies it under the registry's name first.
        path: of an archive or a linked file; of an archive to be written, from where the store is.
        is_beside: begun together with the one before.
        seed: for random bytes.
    """

    number: int
    kind: Kind
    models: Sequence[str] = ()
    marks: Sequence[str] = ()
    source: str = ""
    path: Path = Path()
    is_stream: bool = False
    is_beside: bool = False
    seed: int = 0

    @property
    def needs(self) -> Sequence[str]:
        """The models that have to be there."""
        if self.kind in ("export", "delete"):
            return self.models
        return (self.source,) if self.source else ()

    def __str__(self) -> str:
        parts = (self.kind, *self.models, *(("from", self.source) if self.source else ()))
        return f"#{self.number} {' '.join(parts)}" + (
            f" {self.path.name}" if self.path.name else ""
        )


class Ledger:
    """Follows the notes of a run. `allowed[name]` is what the name may stand for, `pending` what is begun or failed."""

    def __init__(
        self, script: Sequence[Operation], names: Mapping[str, str | None], builtin: tuple[str, str]
    ) -> None:
        """Begin with what `names` stand for; `builtin` is a name and mark that opening a store may make."""
        self._builtin = builtin
        self._is_gone = False
        self._script = {operation.number: operation for operation in script}
        self.allowed: dict[str, set[str | None]] = {name: {mark} for name, mark in names.items()}
        self.pending: dict[int, Operation] = {}
        self.running: dict[int, Operation] = {}
        self.done: list[Operation] = []
        self._shared: set[int] = set()
        self.opened()

    def of(self, name: str) -> set[str | None]:
        """What a name may stand for."""
        return self.allowed.get(name, {None})

    def note(self, text: str) -> None:
        """Take a note over: `begin 3`, `done 3`, `failed 3 …`; others say nothing about names."""
        word, _, rest = text.partition(" ")
        if word == "died":
            self.died()
        if word not in ("begin", "done", "failed"):
            return
        operation = self._script[int(rest.split(" ")[0])]
        getattr(self, f"_{word}")(operation)

    def died(self) -> None:
        """The process is gone; what ran did what it did."""
        self.running.clear()
        self._shared.clear()

    def opened(self) -> None:
        """A store was opened: the built-in model may have come, unless it was deleted."""
        name, mark = self._builtin
        if None in self.of(name) and not self._is_gone:
            self.allowed[name] = {None, mark}

    def _results(self, operation: Operation) -> dict[str, set[str | None]]:
        match operation.kind:
            case "delete":
                return {name: {None} for name in operation.models}
            case "copy" | "push":
                return {operation.models[0]: set(self.of(operation.source))}
            case "export" | "check" | "list" | "restart":
                return {}
            case _:
                return {
                    name: {mark}
                    for name, mark in zip(operation.models, operation.marks, strict=True)
                }

    def _begin(self, operation: Operation) -> None:
        for other in self.running.values():
            if self._touched(operation) & self._touched(other):
                self._shared |= {operation.number, other.number}
        self.running[operation.number] = operation
        self.pending[operation.number] = operation
        for name, marks in self._results(operation).items():
            self.allowed[name] = self.of(name) | marks

    def _done(self, operation: Operation) -> None:
        self.running.pop(operation.number)
        self.pending.pop(operation.number)
        self.done.append(operation)
        self._is_gone |= operation.kind == "delete" and self._builtin[0] in operation.models
        for name, marks in self._results(operation).items():
            is_shared = operation.number in self._shared
            self.allowed[name] = self.of(name) | marks if is_shared else marks

    def _failed(self, operation: Operation) -> None:
        self.running.pop(operation.number)

    @staticmethod
    def _touched(operation: Operation) -> set[str]:
        return {*operation.models, *operation.needs}

    def observe(self, names: Mapping[str, str | None]) -> list[str]:
        """Compare with what is there, and go on from that; returns what is wrong."""
        wrong = [
            f"{name} is {names.get(name)!r}, not one of {sorted(map(str, self.of(name)))}"
            for name in sorted({*names, *self.allowed})
            if names.get(name) not in self.of(name)
        ]
        self.allowed = {name: {names.get(name)} for name in {*names, *self.allowed}}
        return wrong

    def may_lack(self, operation: Operation) -> bool:
        """Whether what an operation starts from may not be there."""
        return any(None in self.of(name) for name in operation.needs)
