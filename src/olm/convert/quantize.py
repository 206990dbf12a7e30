"""Give a model other types: one pass, from a checkpoint or from a GGUF, as llama-quantize would.

The types are `recipe`'s, the importance of columns `imatrix`', the bytes come when the file is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from olm.convert.imatrix import ImportanceMatrix
from olm.convert.metadata import Metadata
from olm.convert.model_file import ModelFile, OutTensor
from olm.convert.recipe import Recipe, file_type_number, in_order, needs_imatrix, types_of
from olm.convert.writer import Imatrix
from olm.errors import InvalidRequest

__all__ = ["importance", "quantized"]

_PLAIN: Final = ("F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64")
_QUANTIZATION_VERSION: Final = 2


def quantized(
    file: ModelFile, recipe: Recipe, imatrix: ImportanceMatrix | None = None
) -> ModelFile:
    """The same model with the types of `recipe`, in the order and with the keys of llama-quantize. A projector stays as it is.

    Raises:
        InvalidRequest: an unknown type, a tensor that is quantized already, or one that needs an importance matrix.
    """
    number = file_type_number(recipe.file_type)
    if file.kind != "model":
        return file
    tensors = in_order(file.tensors)
    types = types_of(file.metadata, tensors, recipe, has_imatrix=imatrix is not None)
    changed: list[OutTensor] = []
    for tensor, type_name in zip(tensors, types, strict=True):
        _check_tensor(tensor, type_name, number, recipe, imatrix)
        changed.append(attrs.evolve(tensor, type_name=type_name))
    meta = file.metadata.copy()
    _write_keys(meta, number, imatrix)
    return attrs.evolve(file, metadata=meta, tensors=tuple(changed))


def _check_tensor(
    tensor: OutTensor,
    type_name: str,
    file_type: int,
    recipe: Recipe,
    imatrix: ImportanceMatrix | None,
) -> None:
    before = tensor.reader.dtype
    is_packed = before not in _PLAIN and tensor.type_name == before
    if is_packed and type_name != before and not recipe.allow_requantize:
        raise InvalidRequest(
            f"tensor {tensor.name!r} is {before} already: quantization is only supported for F16, BF16 and F32 models"
        )
    if type_name == before or not needs_imatrix(tensor.name, type_name, file_type):
        return
    if imatrix is None or imatrix.weights_of(tensor) is None:
        missing = (
            "needs an importance matrix" if imatrix is None else "is not in the importance matrix"
        )
        raise InvalidRequest(
            f"{recipe.file_type}: tensor {tensor.name!r} as {type_name} {missing}; without it the result is useless"
        )


def _write_keys(meta: Metadata, file_type: int, imatrix: ImportanceMatrix | None) -> None:
    """llama-quantize moves these to the end."""
    for key in ("general.quantization_version", "general.file_type"):
        meta.remove(key)
    meta.u32("general.quantization_version", _QUANTIZATION_VERSION)
    meta.u32("general.file_type", file_type)
    if imatrix is None:
        return
    meta.text("quantize.imatrix.file", imatrix.name)
    if imatrix.dataset:
        meta.text("quantize.imatrix.dataset", imatrix.dataset)
    meta.u32("quantize.imatrix.entries_count", len(imatrix.entries))
    if imatrix.n_chunks > 0:
        meta.u32("quantize.imatrix.chunks_count", imatrix.n_chunks)


def importance(tensors: Sequence[OutTensor], imatrix: ImportanceMatrix) -> Imatrix:
    """What the writer wants of an importance matrix: that of the tensors which change their type.

    Raises:
        CheckpointError: it is of another model.
    """
    found = {}
    for tensor in tensors:
        if tensor.type_name in _PLAIN or tensor.type_name == tensor.reader.dtype:
            continue
        weights = imatrix.weights_of(tensor)
        if weights is not None:
            found[tensor.name] = weights
    return found
