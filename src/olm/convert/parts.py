"""What several architectures do to their tensors: rope's order of rows, rope's factors, fused projections.

Each function is one fact about how llama.cpp wants weights; the files in `architectures` name the ones they need.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from olm.checkpoint.types import RowReader
from olm.convert.hparams import Hparams
from olm.convert.lazy import constant, map_values, n_rows, reshape, split, take
from olm.errors import CheckpointError

__all__ = [
    "interleave_rope",
    "is_same",
    "llama3_rope_factors",
    "longrope_factors",
    "negative_exp",
    "plus_one",
    "split_gate_up",
    "split_heads",
    "squeeze",
    "ungroup_qkv",
]

_ROWS_COMPARED: Final = 1024


def interleave_rope(projection: RowReader, n_heads: int) -> RowReader:
    """Reorder the rows of a query or key projection, [n_heads * head_dim, …], or the entries of its bias.

    Hugging Face rotates row i of a head with row i + head_dim/2, llama.cpp's ROPE_TYPE_NORM rotates neighbours; so the
    halves of each head are interleaved. Not for architectures of ROPE_TYPE_NEOX.

    Raises:
        CheckpointError: the rows do not divide into heads.
    """
    n_rows = projection.shape[0]
    if n_heads <= 0 or n_rows % (2 * n_heads):
        raise CheckpointError(f"{n_rows} rows of a projection do not divide into {n_heads} heads")
    rows = np.arange(n_rows).reshape(n_heads, 2, n_rows // n_heads // 2)
    return take(projection, rows.swapaxes(1, 2).reshape(-1))


def llama3_rope_factors(rope: Hparams, head_dim: int) -> RowReader | None:
    """The tensor `rope_freqs.weight` of Llama 3.1's rope scaling, [head_dim / 2]; None for any other scaling.

    Low frequencies are divided by `factor`, high ones stay, those between are interpolated (Meta's `apply_scaling`, as in
    llama.cpp's converter). llama.cpp divides the frequencies by these.

    Raises:
        CheckpointError: a setting has the wrong type.
    """
    if rope.text("rope_type", default="").lower() != "llama3":
        return None
    base = rope.number("rope_theta", default=10000.0)
    factor = rope.number("factor", default=8.0)
    low = rope.number("low_freq_factor", default=1.0)
    high = rope.number("high_freq_factor", default=4.0)
    n_ctx = rope.number("original_max_position_embeddings", default=8192)
    if high <= low:
        raise CheckpointError(f"{rope.where}: high_freq_factor must be above low_freq_factor")
    # In f32, as the models were trained and as llama.cpp's converter computes it.
    powers = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    freqs = np.float32(1.0) / np.power(np.float32(base), powers)
    wavelengths = 2 * math.pi / freqs.astype(np.float64)
    smooth = (n_ctx / wavelengths - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    factors = np.where(wavelengths > n_ctx / low, factor, between)
    return constant(np.where(wavelengths < n_ctx / high, 1.0, factors).astype(np.float32))


def split_heads(
    fused: RowReader, n_heads: int, n_kv_heads: int, head_dim: int
) -> Sequence[RowReader]:
    """Cut a fused [q; k; v] projection or its bias into q, k and v."""
    return split(fused, [n_heads * head_dim, n_kv_heads * head_dim, n_kv_heads * head_dim])


def split_gate_up(fused: RowReader) -> tuple[RowReader, RowReader]:
    """Cut [gate; up] of a feed-forward, or of each of the experts: [2n, columns], or [n_experts, 2n, columns].

    Raises:
        CheckpointError: the rows do not divide by two.
    """
    *experts, n_rows, length = fused.shape if len(fused.shape) > 1 else (*fused.shape, 0)
    if len(experts) > 1 or not length or n_rows % 2:
        raise CheckpointError(f"a tensor of {fused.shape} is no gate and up in one")
    first = np.arange(math.prod(experts) * 2).reshape(-1, 2)
    halves = reshape(fused, (first.size, n_rows // 2, length))
    shape = (*experts, n_rows // 2, length)
    return reshape(take(halves, first[:, 0]), shape), reshape(take(halves, first[:, 1]), shape)


def plus_one(norm: RowReader) -> RowReader:
    """A norm that is stored minus one (Gemma)."""
    return map_values(norm, lambda values: values + np.float32(1))


def ungroup_qkv(
    fused: RowReader, n_heads: int, n_kv_heads: int, head_dim: int
) -> tuple[RowReader, RowReader, RowReader]:
    """Take q, k and v out of a projection, or its bias, that is fused by groups.

    Each of the `n_kv_heads` groups holds the query heads that share a key, then that key, then its value (Falcon, InternLM2;
    GPT-NeoX and Bloom, where each query has a key of its own).

    Raises:
        CheckpointError: the rows do not divide into such groups.
    """
    if n_kv_heads <= 0 or n_heads % n_kv_heads:
        raise CheckpointError(f"{n_heads} heads do not divide into {n_kv_heads} groups")
    size = n_heads // n_kv_heads + 2
    if fused.shape[0] != n_kv_heads * size * head_dim:
        raise CheckpointError(
            f"{fused.shape[0]} rows of a projection, expected {n_heads} + 2 * {n_kv_heads} heads of {head_dim}"
        )
    rows = np.arange(fused.shape[0]).reshape(n_kv_heads, size, head_dim)
    parts = (rows[:, :-2], rows[:, -2], rows[:, -1])
    q, k, v = (take(fused, part.reshape(-1)) for part in parts)
    return q, k, v


def longrope_factors(rope: Hparams, n_dims: int) -> Sequence[tuple[str, RowReader]]:
    """The tensors `rope_factors_long.weight` and `rope_factors_short.weight`, [n_dims / 2] each; none without such scaling.

    Raises:
        CheckpointError: one of the two is missing, or too short or long.
    """
    found = {kind: rope.numbers(f"{kind}_factor") for kind in ("long", "short")}
    if not any(found.values()):
        return ()
    for kind, factors in found.items():
        if len(factors) != n_dims // 2:
            raise CheckpointError(
                f"{rope.where}: {len(factors)} numbers in {kind}_factor, wanted {n_dims // 2}"
            )
    return [(f"rope_factors_{kind}.weight", constant(np.array(f))) for kind, f in found.items()]


def negative_exp(logs: RowReader) -> RowReader:
    """Mamba's A out of its logarithm: -exp(x), rounded once."""
    return map_values(logs, lambda x: -np.exp(x.astype(np.float64)).astype(np.float32))


def squeeze(tensor: RowReader) -> RowReader:
    """Drop dimensions of 1, as a depthwise convolution's kernel [channels, 1, width] has one."""
    return reshape(tensor, [size for size in tensor.shape if size != 1])


def is_same(one: RowReader, other: RowReader) -> bool:
    """Whether two tensors hold the same bits. Reads both, unless they differ early."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    starts = range(0, n_rows(one), _ROWS_COMPARED)
    ends = ((start, min(start + _ROWS_COMPARED, n_rows(one))) for start in starts)
    return all(np.array_equal(one.read(a, b), other.read(a, b)) for a, b in ends)
