"""Ling and Ring (Bailing), 1 and 2, with experts. GGUF architectures `bailingmoe`, `bailingmoe2`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.lazy import map_values, n_rows, row_length, widen
from olm.convert.metadata import Metadata
from olm.convert.parts import interleave_rope, split_heads
from olm.convert.registry import register

__all__ = ["BailingMoe", "BailingMoe2"]

_ROWS: int = 4096  # of a head at once


@register("BailingMoeForCausalLM")
class BailingMoe(Architecture):
    """One fused projection, whose rope rotates neighbours; a head that may have to be normalized."""

    gguf_name = "bailingmoe"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        hparams = self.hparams
        meta.u32(".rope.dimension_count", self.head_dim)
        meta.u32(".leading_dense_block_count", hparams.integer("first_k_dense_replace"))
        meta.u32(".vocab_size", hparams.integer("vocab_size"))
        meta.u32(".expert_feed_forward_length", hparams.integer("moe_intermediate_size"))
        meta.f32(".expert_weights_scale", 1.0)
        meta.u32(".expert_shared_count", hparams.integer("num_shared_experts"))
        meta.flag(".expert_weights_norm", hparams.flag("norm_topk_prob"))

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name.endswith("query_key_value.weight"):
            layer = name.partition(".layers.")[2].partition(".")[0]
            q, k, v = split_heads(tensor, self.n_heads, self.n_kv_heads, self.head_dim)
            yield f"blk.{layer}.attn_q.weight", interleave_rope(q, self.n_heads)
            yield f"blk.{layer}.attn_k.weight", interleave_rope(k, self.n_kv_heads)
            yield f"blk.{layer}.attn_v.weight", v
        elif name.endswith("attention.dense.weight"):
            layer = name.partition(".layers.")[2].partition(".")[0]
            yield f"blk.{layer}.attn_output.weight", tensor
        elif name == "lm_head.weight" and self.hparams.flag("norm_head"):
            yield name, _normalized(tensor)
        else:
            yield name, tensor


def _normalized(head: RowReader) -> RowReader:
    """Each column divided by its length. Reads the head once, a part at a time, to know the lengths."""
    wide = widen(head)
    total = np.zeros(row_length(wide), dtype=np.float64)
    for start in range(0, n_rows(wide), _ROWS):
        rows = wide.read(start, min(start + _ROWS, n_rows(wide)))
        total += np.sum(np.square(rows, dtype=np.float64), axis=0)
    lengths = np.sqrt(total).astype(np.float32) + np.float32(1e-7)
    return map_values(head, lambda rows: rows / lengths)


@register("BailingMoeV2ForCausalLM")
class BailingMoe2(Architecture):
    """Half of each head is rotated; layers that predict further tokens come last."""

    gguf_name = "bailingmoe2"

    @property
    def n_blocks(self) -> int:
        """Layers, with those that predict further tokens."""
        return super().n_blocks + self.hparams.integer("num_nextn_predict_layers", default=0)

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        hparams = self.hparams
        factor = self.rope.full.number("partial_rotary_factor", default=0.5)
        n_ff = hparams.integer("moe_intermediate_size")
        n_shared = hparams.integer("num_shared_experts")
        shared = hparams.integer("moe_shared_expert_intermediate_size", default=n_ff * n_shared)
        meta.u32(".rope.dimension_count", int(self.head_dim * factor))
        meta.u32(".leading_dense_block_count", hparams.integer("first_k_dense_replace"))
        meta.u32(".vocab_size", hparams.integer("vocab_size"))
        meta.u32(".expert_feed_forward_length", n_ff)
        meta.u32(".expert_shared_feed_forward_length", shared)
        meta.f32(".expert_weights_scale", hparams.number("routed_scaling_factor"))
        meta.u32(".expert_shared_count", n_shared)
        meta.flag(".expert_weights_norm", hparams.flag("norm_topk_prob"))
        n_next = hparams.find_integer("num_nextn_predict_layers")
        if n_next is not None:
            meta.u32(".nextn_predict_layers", n_next)

    def keep(self, name: str) -> str | None:
        return super().keep(f"{name}.bias" if name.endswith(".expert_bias") else name)
