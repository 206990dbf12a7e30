"""Whether a LoRA adapter fits a model, by their headers. Pure.

llama.cpp checks most of this when it loads an adapter (`llama-adapter.cpp`, ggml 0.25.3), in words that name neither; what
it does not check ends the process at the first token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from olm.errors import GgufError
from olm.gguf.types import Header

__all__ = ["check_adapter", "check_fit"]

_SUFFIXES: Final = (".lora_a", ".lora_b")
_EMBEDDING: Final = "token_embd.weight"
_OUTPUT: Final = "output.weight"

Shape = tuple[int, ...]


def check_adapter(adapter: Header, base: Header, name: str = "the adapter") -> None:
    """Check a GGUF adapter against the model it is to act on.

    Args:
        name: what messages call the adapter.

    Raises:
        GgufError: it is no LoRA adapter, or one for another model.
    """
    if adapter.text("general.type") != "adapter" or adapter.text("adapter.type") != "lora":
        raise GgufError(f"{name} is no LoRA adapter")
    if "adapter.alora.invocation_tokens" in adapter.values:
        raise GgufError(f"{name} is switched on by an invocation (aLoRA), which is not supported")
    shapes = {tensor.name: tensor.shape for tensor in adapter.tensors}
    check_fit(adapter.text("general.architecture"), shapes, base, name)


def check_fit(
    architecture: str, shapes: Mapping[str, Shape], base: Header, name: str = "the adapter"
) -> None:
    """Check an adapter's architecture, names and shapes.

    Args:
        shapes: of its tensors by name, fastest dimension first.
        base: the model's header; of a split model the first part's, whose tensors are not all there are.

    Raises:
        GgufError: it was made for another model; names the tensor.
    """
    wanted = base.text("general.architecture")
    if architecture != wanted:
        raise GgufError(
            f"{name} was made for a model of architecture {architecture!r}, not {wanted!r}"
        )
    found = {tensor.name: tensor.shape for tensor in base.tensors}
    is_whole = base.integer("split.count") <= 1
    for weight in dict.fromkeys(_weight_of(tensor) for tensor in shapes):
        if weight.endswith("_norm.weight") and weight in shapes:
            continue  # llama.cpp reads over it
        a, b = (shapes.get(weight + suffix) for suffix in _SUFFIXES)
        if a is None or b is None:
            raise GgufError(f"{name}: tensor {weight!r} lacks one of its two factors")
        if weight in found:
            _check_shapes(name, weight, (a, b), found[weight])
        elif is_whole:
            raise GgufError(f"{name}: {_missing(weight)}")
    if is_whole and _EMBEDDING + _SUFFIXES[0] in shapes and _OUTPUT not in found:
        # llama.cpp would apply the factors, which lie the other way round, to the output too, and abort.
        raise GgufError(
            f"{name} changes the token embeddings, which are this model's output as well: that cannot be run"
        )


def _weight_of(tensor: str) -> str:
    for suffix in _SUFFIXES:
        if tensor.endswith(suffix):
            return tensor.removesuffix(suffix)
    return tensor


def _missing(weight: str) -> str:
    if weight == _OUTPUT:
        return "it changes the output, which this model shares with its token embeddings"
    return f"it changes tensor {weight!r}, which the model does not have"


def _check_shapes(name: str, weight: str, factors: tuple[Shape, Shape], found: Shape) -> None:
    (a_columns, a_rows), (b_columns, b_rows) = (_matrix(shape) for shape in factors)
    columns, rows = _matrix(found)
    if weight == _EMBEDDING:
        fits = (columns, rows) == (b_rows, a_rows) and a_columns == b_columns
    else:
        fits = (columns, rows) == (a_columns, b_rows) and a_rows == b_columns
    if not fits:
        raise GgufError(
            f"{name}: its factors {factors[1]} and {factors[0]} do not fit tensor {weight!r} of {found}"
        )


def _matrix(shape: Shape) -> tuple[int, int]:
    return (*shape, 1, 1)[0], (*shape, 1, 1)[1]
