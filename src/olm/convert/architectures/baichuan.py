"""Baichuan 1 and 2. GGUF architecture `baichuan`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.lazy import map_values
from olm.convert.metadata import Metadata
from olm.convert.parts import interleave_rope, split_heads
from olm.convert.registry import register

__all__ = ["Baichuan"]

_VOCAB_2: Final = 125696  # by which Baichuan 2 is told


@register("BaichuanForCausalLM", "BaiChuanForCausalLM")
class Baichuan(Architecture):
    """One fused projection, q before k before v; rope rotates neighbours."""

    gguf_name = "baichuan"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.text(".tensor_data_layout", "Meta AI original pth")
        meta.u32(".rope.dimension_count", self.hparams.integer("hidden_size") // self.n_heads)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name.endswith(".W_pack.weight"):
            stem = name.removesuffix("W_pack.weight")
            q, k, v = split_heads(tensor, self.n_heads, self.n_kv_heads, self.head_dim)
            yield f"{stem}q_proj.weight", interleave_rope(q, self.n_heads)
            yield f"{stem}k_proj.weight", interleave_rope(k, self.n_kv_heads)
            yield f"{stem}v_proj.weight", v
        elif name == "lm_head.weight" and self.hparams.integer("vocab_size") == _VOCAB_2:
            yield name, map_values(tensor, _normalized)
        else:
            yield name, tensor


def _normalized(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Baichuan 2 divides each row of its head by the row's length before use (NormHead of its modeling code)."""
    lengths = np.sqrt(np.sum(np.square(rows, dtype=np.float64), axis=1, keepdims=True))
    return np.asarray(rows / np.maximum(lengths, 1e-12), dtype=np.float32)
