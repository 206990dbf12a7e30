"""What sentence-transformers' files beside a checkpoint say: how token embeddings become one, and dense layers behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from olm.checkpoint.types import Checkpoint, RowReader
from olm.convert.hparams import Hparams
from olm.convert.metadata import Metadata
from olm.convert.tokenizers.files import table
from olm.errors import CheckpointError

__all__ = ["DenseLayer", "dense_layers", "write_pooling"]

_MODULES: Final = "modules.json"
# Values of `llama_pooling_type`.
_TYPES: Final = {"mean": 1, "cls": 2, "lasttoken": 3}
_FLAGS: Final = (
    ("pooling_mode_mean_tokens", "mean"),
    ("pooling_mode_cls_token", "cls"),
    ("pooling_mode_lasttoken", "lasttoken"),
)


@attrs.frozen
class DenseLayer:
    """A linear layer after pooling: the folder it is in, its input and output lengths, its weight [n_out, n_in]."""

    folder: str
    n_in: int
    n_out: int
    weight: RowReader


def write_pooling(meta: Metadata, checkpoint: Checkpoint, hparams: Hparams) -> None:
    """Write the pooling of an embedding model, and that of a classifier (`classifier_pooling` in its config), where they are said.

    Raises:
        CheckpointError: a mode that llama.cpp does not have, or a damaged file.
    """
    folder = next((path for kind, path in _modules(checkpoint) if kind.endswith("Pooling")), None)
    if folder is not None:
        meta.u32(".pooling_type", _TYPES[_mode(checkpoint, folder)])
    classifier = hparams.text("classifier_pooling", default="")
    if classifier:
        if classifier not in ("cls", "mean"):
            raise CheckpointError(
                f"config.json: classifier_pooling is {classifier!r}; known are cls and mean"
            )
        meta.u32(".classifier.pooling_type", _TYPES[classifier])


def dense_layers(checkpoint: Checkpoint) -> Iterator[DenseLayer]:
    """The dense layers of `modules.json`, in order.

    Raises:
        CheckpointError: a layer has no weight, or another shape than its config says.
    """
    for kind, folder in _modules(checkpoint):
        if not kind.endswith("Dense"):
            continue
        where = f"{folder}/config.json"
        settings = _settings(checkpoint, where)
        weight = checkpoint.part(folder).tensors.get("linear.weight")
        n_in, n_out = settings.integer("in_features"), settings.integer("out_features")
        if weight is None or weight.shape != (n_out, n_in):
            found = "none" if weight is None else str(weight.shape)
            raise CheckpointError(
                f"{folder}: wanted linear.weight of ({n_out}, {n_in}), found {found}"
            )
        yield DenseLayer(folder, n_in, n_out, weight)


def _modules(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """(class, folder) of each of sentence-transformers' modules."""
    listed = checkpoint.json(_MODULES)
    if listed is None:
        return
    if not isinstance(listed, list):
        raise CheckpointError(f"{_MODULES}: wanted a list of modules")
    for entry in listed:
        module = table(entry, _MODULES)
        yield module.text("type"), module.text("path", default="")


def _mode(checkpoint: Checkpoint, folder: str) -> str:
    settings = _settings(checkpoint, f"{folder}/config.json")
    for flag, mode in _FLAGS:
        if settings.flag(flag):
            return mode
    mode = settings.text("pooling_mode", default="")
    if mode not in _TYPES:
        raise CheckpointError(
            f"{settings.where}: pooling is none of {', '.join(_TYPES)}, which are known"
        )
    return mode


def _settings(checkpoint: Checkpoint, name: str) -> Hparams:
    value = checkpoint.json(name)
    if value is None:
        raise CheckpointError(f"{name} is missing, though {_MODULES} names its folder")
    return table(value, name)
