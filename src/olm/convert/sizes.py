"""How large a model is in words: `general.size_label`, as `8B` or `8x7B` (GGUF naming convention)."""

from __future__ import annotations

from collections.abc import Sequence

from olm.convert.model_file import OutTensor

__all__ = ["size_label"]

_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"))
_MIN_DIGITS = 2


def size_label(tensors: Sequence[OutTensor]) -> str:
    """Total parameters; of a mixture of experts, their number and what one token's path would hold with one of them."""
    experts = [t for t in tensors if "_exps." in t.name and len(t.reader.shape) >= 3]
    n_total = sum(tensor.n_elements for tensor in tensors)
    if not experts:
        return _rounded(n_total)
    n_in_experts = sum(tensor.n_elements for tensor in experts)
    n_of_one = sum(tensor.n_elements // tensor.reader.shape[0] for tensor in experts)
    n_experts = sum(tensor.reader.shape[0] for tensor in experts) // len(experts)
    return f"{n_experts}x{_rounded(n_total - n_in_experts + n_of_one)}"


def _rounded(count: int) -> str:
    for limit, unit in _UNITS:
        if count > limit:
            scaled, suffix = count / limit, unit
            break
    else:
        scaled, suffix = count / 1e3, "K"
    digits = max(_MIN_DIGITS - len(str(round(scaled)).lstrip("0")), 0)
    return f"{scaled:.{digits}f}{suffix}"
