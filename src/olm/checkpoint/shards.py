"""Which files hold a checkpoint's weights, and whether the shards are all there and agree with their index. Pure.

The order of formats is Ollama's (`convert/reader.go`, spec/ollama §11.2), then what it does not know: adapters in
PyTorch's format and files of any name. Where an index or a numbered set is there, other files of the same kind are
left alone: repositories of Mistral hold the same weights twice, as `model-*` and as `consolidated`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

import attrs

from olm.errors import CheckpointError

__all__ = ["Choice", "check_index", "choose_weights", "read_index"]

_CHOICES: Final[Sequence[tuple[str, bool]]] = (
    ("model*.safetensors", True),
    ("adapter*.safetensors", True),
    ("*.safetensors", True),
    ("pytorch_model-*-of-*.bin", False),
    ("pytorch_model.bin", False),
    ("consolidated.*.pth", False),
    ("adapter_model.bin", False),
    ("*.pth", False),
    ("*.pt", False),
    ("*.bin", False),
)
"""Patterns of names, first match first, and whether they are safetensors."""

_INDEXES: Final = {True: "model.safetensors.index.json", False: "pytorch_model.bin.index.json"}
_NOT_WEIGHTS: Final = ("optimizer*", "scheduler*", "rng_state*", "training_args*")
"""What a trainer leaves beside the weights in the same format."""
_SINGLES: Final = frozenset(("model.safetensors", "pytorch_model.bin"))
_SHARD: Final = re.compile(r"(?P<stem>.*)-(?P<number>\d{1,6})-of-(?P<total>\d{1,6})(?P<end>\.\w+)")
_MAX_TOTAL: Final = 10_000
_MAX_SHOWN: Final = 5


@attrs.frozen
class Choice:
    """The weight files to read.

    Attributes:
        files: names in order.
        is_safetensors: else PyTorch's format.
        index: the name of an index beside them; what it says goes before `files`.
    """

    files: Sequence[str]
    is_safetensors: bool
    index: str | None = None


def choose_weights(names: Collection[str]) -> Choice:
    """Choose among a checkpoint's files by name; only its top level counts.

    Raises:
        CheckpointError: there is nothing to choose, or a numbered set without index is not complete.
    """
    top = sorted(
        name
        for name in names
        if "/" not in name and not any(fnmatchcase(name, other) for other in _NOT_WEIGHTS)
    )
    for pattern, is_safetensors in _CHOICES:
        files = [name for name in top if fnmatchcase(name, pattern)]
        if not files:
            continue
        single = next((name for name in files if name in _SINGLES), None)
        if single is not None:
            return Choice([single], is_safetensors)
        index = _INDEXES[is_safetensors]
        if index in top:
            return Choice(files, is_safetensors, index)
        return Choice(_numbered(files) or files, is_safetensors)
    raise CheckpointError(
        "unknown tensor format: no *.safetensors, pytorch_model*.bin, consolidated.*.pth, *.pth, *.pt or *.bin"
    )


def _numbered(files: Sequence[str]) -> Sequence[str]:
    """The files of a numbered set, complete; none when no name has numbers."""
    sets: dict[tuple[str, str, str], dict[int, str]] = {}
    for name in files:
        if match := _SHARD.fullmatch(name):
            key = (match["stem"], match["total"], match["end"])
            sets.setdefault(key, {})[int(match["number"])] = name
    if not sets:
        return []
    # Published folders have one set; with several (`model.fp32-…` beside `model-…`) the shortest name is the plain one.
    key = min(sets, key=lambda key: (len(key[0]), key))
    _check_complete(sets[key], *key)
    return list(sets[key].values())


def _check_complete(numbers: Collection[int], stem: str, total: str, end: str) -> None:
    n_total = int(total)
    if not 0 < n_total <= _MAX_TOTAL:
        raise CheckpointError(f"{stem}-*-of-{total}{end}: there cannot be {n_total} files")
    first = 0 if 0 in numbers else 1
    missing = [n for n in range(first, first + n_total) if n not in numbers]
    if missing:
        raise _missing([f"{stem}-{n:0{len(total)}}-of-{total}{end}" for n in missing])


def _missing(files: Sequence[str]) -> CheckpointError:
    more = f" and {len(files) - _MAX_SHOWN} more" if len(files) > _MAX_SHOWN else ""
    shown = ", ".join(ascii(file[:200])[1:-1] for file in files[:_MAX_SHOWN])
    return CheckpointError(f"{shown}{more}: missing, the checkpoint is not complete")


def read_index(value: object, index: str, names: Collection[str]) -> Mapping[str, str]:
    """Read an index's `weight_map`: tensor -> file.

    Args:
        value: the index's JSON.
        index: its name.
        names: the files that are there.

    Raises:
        CheckpointError: it has another shape, or names files that are missing.
    """
    match value:
        case {"weight_map": dict(weights)} if weights and all(
            isinstance(file, str) for file in weights.values()
        ):
            missing = sorted(set(weights.values()).difference(names))
            if missing:
                raise _missing(missing)
            return weights
        case _:
            raise CheckpointError(f"{index}: has no `weight_map` of tensors and files")


def check_index(weights: Mapping[str, str], index: str, found: Mapping[str, str]) -> None:
    """Compare an index with what the shards hold (`found`: tensor -> file). A tensor it leaves out is let pass.

    Raises:
        CheckpointError: a tensor is missing or in another shard; names it.
    """
    for tensor, file in weights.items():
        actual = found.get(tensor)
        if actual is None:
            raise CheckpointError(
                f"{file}: tensor {tensor[:200]!r} is missing, which {index} names"
            )
        if actual != file:
            raise CheckpointError(
                f"{actual}: tensor {tensor[:200]!r} should be in {file}, says {index}"
            )
