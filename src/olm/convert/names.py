"""From a checkpoint's tensor names to a GGUF's: the tables of the `gguf` package, and an architecture's own beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["NEXTN_NAMES", "TensorNames"]

NEXTN_NAMES: Final[Mapping[str, str]] = {
    "model.layers.{bid}.eh_proj": "blk.{bid}.nextn.eh_proj",
    "model.layers.{bid}.embed_tokens": "blk.{bid}.nextn.embed_tokens",
    "model.layers.{bid}.enorm": "blk.{bid}.nextn.enorm",
    "model.layers.{bid}.hnorm": "blk.{bid}.nextn.hnorm",
    "model.layers.{bid}.shared_head.head": "blk.{bid}.nextn.shared_head_head",
    "model.layers.{bid}.shared_head.norm": "blk.{bid}.nextn.shared_head_norm",
}
"""Names of a layer that predicts further tokens, which the tables have for some architectures only: an `Architecture.names`."""

_LIMITS: Final = (".input_max", ".input_min", ".output_max", ".output_min")  # of clipped layers
_SUFFIXES: Final = (".weight", ".bias", *_LIMITS)
_BLOCK: Final = "{bid}"
_PART: Final = "{sid}"


class TensorNames:
    """The names of one model.

    Args:
        architecture: the GGUF's, `llama`; one that the `gguf` package does not know has `own` names only.
        n_blocks: layers.
        own: names without `.weight` and `.bias`, `{bid}` for the layer: `model.layers.{bid}.mixer.D` -> `blk.{bid}.ssm_d`;
            `{sid}` for a second number.
            They win over the tables. A name that has no suffix in the GGUF either is written with what it has.
    """

    def __init__(self, architecture: str, n_blocks: int, own: Mapping[str, str]) -> None:
        # Some 50 ms: the converting process only.
        from gguf.constants import MODEL_ARCH, MODEL_ARCH_NAMES
        from gguf.tensor_mapping import get_tensor_name_map

        numbers = {name: number for number, name in MODEL_ARCH_NAMES.items()}
        number = MODEL_ARCH.MMPROJ if architecture == "clip" else numbers.get(architecture)
        self._table = None if number is None else get_tensor_name_map(number, n_blocks)
        self._own = dict(own)
        self._targets = frozenset(own.values())

    def find(self, name: str) -> str | None:
        """The GGUF's name of a tensor; a name that is one already stays; None for one nobody knows."""
        stem, suffix = _split(name)
        pattern, block = _without_number(stem, _BLOCK)
        inner, part = _without_number(pattern, _PART)
        for known in (pattern, inner):
            own = self._own.get(known)
            if own is not None:
                return own.replace(_BLOCK, block).replace(_PART, part) + suffix
            if known in self._targets:
                return name
        found = None if self._table is None else self._table.get_name(name, try_suffixes=_SUFFIXES)
        return found if isinstance(found, str) else None


def _split(name: str) -> tuple[str, str]:
    for suffix in _SUFFIXES:
        if name.endswith(suffix):
            return name[: -len(suffix)], suffix
    return name, ""


def _without_number(stem: str, place: str) -> tuple[str, str]:
    """`model.layers.12.mlp`, `{bid}` -> (`model.layers.{bid}.mlp`, `12`): the first number is the layer."""
    found = re.search(r"(?<=\.)\d+(?=\.|$)", stem)
    if found is None:
        return stem, ""
    return stem[: found.start()] + place + stem[found.end() :], found.group()
