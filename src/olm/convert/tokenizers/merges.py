"""Merges of a BPE, in both forms that tokenizer.json has: `"a b"`, and `["a", "b"]` since transformers 4.45."""

from __future__ import annotations

from collections.abc import Sequence

from olm.convert.hparams import Hparams
from olm.errors import CheckpointError

__all__ = ["read_merges", "written"]


def read_merges(model: Hparams) -> Sequence[tuple[str, str]]:
    """The pairs of a tokenizer.json's `model`, best first.

    Raises:
        CheckpointError: there are none, or one is damaged.
    """
    entries = model.get("merges")
    if not isinstance(entries, list):
        raise CheckpointError(f"{model.where}: 'merges' is missing, wanted a list of pairs")
    return [_pair(entry, model.where, i) for i, entry in enumerate(entries)]


def _pair(entry: object, where: str, index: int) -> tuple[str, str]:
    if isinstance(entry, str):
        left, space, right = entry.partition(" ")
        if left and space and right and " " not in right:
            return left, right
    elif isinstance(entry, list) and len(entry) == 2:
        left, right = entry
        if isinstance(left, str) and isinstance(right, str) and left and right:
            return left, right
    raise CheckpointError(f"{where}: merge {index} is not a pair: {str(entry)[:60]!r}")


def written(pair: tuple[str, str]) -> str:
    """A pair as a GGUF has it. A space within a piece is written as byte-level BPE writes spaces, for the one between is the mark."""
    left, right = pair
    if " " in left or " " in right:
        left, right = left.replace(" ", "Ġ"), right.replace(" ", "Ġ")
    return f"{left} {right}"
