"""A checkpoint's `config.json` by typed questions: every wrong or missing value is an error that names the key.

Keys go by several names in the wild (`hidden_size`, `n_embd`, `dim`), so every question may name more than one; the first
that is there and not null counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from olm.errors import CheckpointError

__all__ = ["Hparams", "text_hparams"]

_T = TypeVar("_T")

# Where multi-modal checkpoints keep the language model's settings (as llama.cpp's converter looks for them).
_TEXT_CONFIGS: Final = ("text_config", "llm_config", "lm_config", "language_config", "lfm")
_MAX_INTEGER: Final = (
    1 << 31
)  # of counts and lengths; more is nonsense, and would not fit their u32


class Hparams:
    """Settings with typed access. `where` is what messages call the file."""

    def __init__(self, values: Mapping[str, object], where: str = "config.json") -> None:
        self.values = values
        self.where = where

    def get(self, *names: str) -> object:
        """The first of these that is set, of any type; None when none is."""
        for name in names:
            value = self.values.get(name)
            if value is not None:
                return value
        return None

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def integer(self, *names: str, default: int | None = None) -> int:
        """A whole number, 0 or more (4096.0 counts as one). Raises CheckpointError when missing without default, or wrong."""
        found = self.find_integer(*names)
        return self._needed(found if found is not None else default, "a whole number", names)

    def find_integer(self, *names: str) -> int | None:
        """A whole number, or None when it is not set. Raises CheckpointError for anything else."""
        value = self.get(*names)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MAX_INTEGER:
            raise self._wrong("a whole number from 0 up", names, value)
        return value

    def number(self, *names: str, default: float | None = None) -> float:
        """A finite number. Raises CheckpointError when missing without default, or wrong (NaN too)."""
        found = self.find_number(*names)
        return self._needed(found if found is not None else default, "a number", names)

    def find_number(self, *names: str) -> float | None:
        """A finite number, or None when it is not set. Raises CheckpointError for anything else."""
        value = self.get(*names)
        if value is None:
            return None
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise self._wrong("a finite number", names, value)
        return float(value)

    def text(self, *names: str, default: str | None = None) -> str:
        """A string. Raises CheckpointError when missing without default, or wrong."""
        value = self.get(*names)
        if value is not None and not isinstance(value, str):
            raise self._wrong("a string", names, value)
        return self._needed(value if value is not None else default, "a string", names)

    def flag(self, *names: str, default: bool = False) -> bool:
        """A boolean; `default` when it is not set. Raises CheckpointError for anything else."""
        value = self.get(*names)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong("true or false", names, value)
        return value

    def integers(self, *names: str) -> tuple[int, ...]:
        """A list of whole numbers; empty when it is not set. Raises CheckpointError for anything else."""
        return tuple(
            self._item(names, i).integer("item") for i in self._list(names, "whole numbers")
        )

    def numbers(self, *names: str) -> tuple[float, ...]:
        """A list of finite numbers; empty when it is not set. Raises CheckpointError for anything else."""
        return tuple(self._item(names, i).number("item") for i in self._list(names, "numbers"))

    def texts(self, *names: str) -> tuple[str, ...]:
        """A list of strings; empty when it is not set. Raises CheckpointError for anything else."""
        return tuple(self._item(names, i).text("item") for i in self._list(names, "strings"))

    def per_layer(self, *names: str) -> int | tuple[int, ...]:
        """A whole number, or one for each layer. Raises CheckpointError when missing or wrong."""
        value = self.get(*names)
        return self.integers(*names) if isinstance(value, list | tuple) else self.integer(*names)

    def table(self, *names: str) -> Hparams:
        """A nested object; an empty one when it is not set. Raises CheckpointError for anything else."""
        value = self.get(*names)
        if value is None:
            return Hparams({}, f"{self.where}: {names[0]}")
        if not isinstance(value, Mapping):
            raise self._wrong("an object", names, value)
        return Hparams(value, f"{self.where}: {names[0]}")

    def with_values(self, **values: object) -> Hparams:
        """These settings with some replaced."""
        return Hparams({**self.values, **values}, self.where)

    def _list(self, names: Sequence[str], wanted: str) -> Sequence[object]:
        value = self.get(*names)
        if value is None:
            return ()
        if not isinstance(value, list | tuple):
            raise self._wrong(f"a list of {wanted}", names, value)
        return value

    def _item(self, names: Sequence[str], value: object) -> Hparams:
        return Hparams({"item": value}, f"{self.where}: {names[0]}")

    def _needed(self, value: _T | None, wanted: str, names: Sequence[str]) -> _T:
        if value is None:
            raise CheckpointError(
                f"{self.where}: {' or '.join(map(repr, names))} is missing, wanted {wanted}"
            )
        return value

    def _wrong(self, wanted: str, names: Sequence[str], value: object) -> CheckpointError:
        name = next(name for name in names if self.values.get(name) is not None)
        return CheckpointError(f"{self.where}: wanted {wanted} in {name!r}, found {_shown(value)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def text_hparams(config: Mapping[str, object]) -> Hparams:
    """The language model's settings: nested ones laid over the outer ones, which they complete."""
    outer = Hparams(config)
    nested: Mapping[str, object] = {}
    for name in _TEXT_CONFIGS:
        nested = nested or outer.table(name).values
    if "thinker_config" in outer:
        nested = outer.table("thinker_config").table("text_config").values
    return Hparams({**config, **{k: v for k, v in nested.items() if v is not None}})
