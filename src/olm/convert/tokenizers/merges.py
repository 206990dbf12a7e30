"""Merges of a BPE, in both forms that tokenizer.json has: `"a b"`, and `["a", "b"]` since transformers 4.45."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from olm.convert.hparams import Hparams
from olm.errors import CheckpointError

__all__ = ["read_merges", "write_merges", "written"]


def read_merges(model: Hparams) -> Iterator[tuple[str, str]]:
    """The pairs of a tokenizer.json's `model`, best first.

    Raises:
        CheckpointError: there are none, or one is damaged.
    """
    entries = model.get("merges")
    if not isinstance(entries, list):
        raise CheckpointError(f"{model.where}: 'merges' is missing, wanted a list of pairs")
    for index, entry in enumerate(entries):
        # Half a million of them, so the usual forms come first and at once.
        if type(entry) is list and len(entry) == 2:
            left, right = entry
        elif type(entry) is str:
            left, _, right = entry.partition(" ")
            if " " in right:
                left = ""
        else:
            left = right = ""
        if not (left and right and type(left) is str and type(right) is str):
            raise CheckpointError(
                f"{model.where}: merge {index} is not a pair: {str(entry)[:60]!r}"
            )
        yield left, right


def write_merges(pairs: Iterable[tuple[str, str]]) -> Sequence[str]:
    """Pairs as a GGUF has them."""
    return [written(left, right) for left, right in pairs]


def written(left: str, right: str) -> str:
    """One pair. A space within a piece is written as byte-level BPE writes spaces, for the one between is the mark."""
    if " " in left or " " in right:
        left, right = left.replace(" ", "Ġ"), right.replace(" ", "Ġ")
    return f"{left} {right}"
