"""Which class converts which model: the names in `config.json`, and the modules of `architectures` that know them.

A module says so itself, with the decorator; so one file is all that a new architecture takes.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeVar

from olm.convert.hparams import Hparams
from olm.errors import CheckpointError

if TYPE_CHECKING:
    from olm.convert.architecture import Architecture

__all__ = [
    "architecture_of",
    "known_architectures",
    "known_projectors",
    "projector_of",
    "register",
]

_Class = TypeVar("_Class", bound="type[Architecture]")
_MODELS: Final[dict[str, type[Architecture]]] = {}
_PROJECTORS: Final[dict[str, type[Architecture]]] = {}
_N_NEAREST: Final = 3


def register(*names: str, projector: bool = False) -> Callable[[_Class], _Class]:
    """Decorate the class that converts checkpoints whose `architectures[0]` is one of `names`.

    A `projector` converts the vision or audio tower of such a checkpoint, into a file of its own.
    """
    table = _PROJECTORS if projector else _MODELS

    def decorate(cls: _Class) -> _Class:
        for name in names:
            other = table.get(name)
            assert other is None or other.__qualname__ == cls.__qualname__, (
                f"{name} is registered twice"
            )
            table[name] = cls
        return cls

    return decorate


def architecture_of(config: Hparams) -> tuple[str, type[Architecture]]:
    """The architecture's name in the config, and the class that converts it.

    Raises:
        CheckpointError: the config names none, or none that is known; says which are nearest.
    """
    _load()
    names = config.texts("architectures")
    nested = config.table("text_config", "llm_config").texts("architectures")
    for name in (*names[:1], *nested[:1]):
        if name in _MODELS:
            return name, _MODELS[name]
    if not names:
        raise CheckpointError(
            "config.json: 'architectures' is missing, so it is unknown what this model is"
        )
    raise CheckpointError(_unknown(names[0]))


def projector_of(config: Hparams) -> type[Architecture] | None:
    """The class that converts the checkpoint's vision or audio tower; None when nobody knows of one."""
    _load()
    names = config.texts("architectures")
    return _PROJECTORS.get(names[0]) if names else None


def known_architectures() -> Mapping[str, type[Architecture]]:
    """All names that can be converted, sorted."""
    _load()
    return dict(sorted(_MODELS.items()))


def known_projectors() -> Mapping[str, type[Architecture]]:
    """All names whose tower can be converted, sorted."""
    _load()
    return dict(sorted(_PROJECTORS.items()))


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, _MODELS, n=_N_NEAREST, cutoff=0.5)
    hint = f"; the nearest known are {', '.join(near)}" if near else ""
    families = sorted({cls.gguf_name for cls in _MODELS.values()})
    return f"unsupported architecture {name!r}{hint}. Known: {', '.join(families)}"


@functools.cache
def _load() -> None:
    """Import every module of `architectures`: they are small, and only the converting child does this."""
    from olm.convert import architectures

    for module in pkgutil.iter_modules(architectures.__path__):
        importlib.import_module(f"{architectures.__name__}.{module.name}")
