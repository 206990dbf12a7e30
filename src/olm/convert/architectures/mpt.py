"""MPT. GGUF architecture `mpt`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.metadata import Metadata
from olm.convert.registry import register

__all__ = ["Mpt"]


@register("MPTForCausalLM", "MptForCausalLM")
class Mpt(Architecture):
    """Positions by ALiBi."""

    gguf_name = "mpt"
    names: ClassVar[Mapping[str, str]] = {
        "transformer.blocks.{bid}.ffn.act.scales": "blk.{bid}.ffn.act.scales"
    }

    def write_keys(self, meta: Metadata) -> None:
        hparams = self.hparams
        attention = hparams.table("attn_config")
        n_embd = hparams.integer("d_model")
        meta.u32(".context_length", hparams.integer("max_seq_len"))
        meta.u32(".embedding_length", n_embd)
        meta.u32(".block_count", self.n_blocks)
        meta.u32(".feed_forward_length", 4 * n_embd)
        meta.u32(".attention.head_count", self.n_heads)
        n_kv = attention.integer("kv_n_heads", default=0)
        if n_kv:
            meta.u32(".attention.head_count_kv", n_kv)
        meta.f32(".attention.layer_norm_epsilon", 1e-5)
        clip = attention.find_number("clip_qkv")
        if clip is not None:
            meta.f32(".attention.clamp_kqv", clip)
        has_alibi = attention.flag("alibi")
        bias = attention.number("alibi_bias_max", default=8.0) if has_alibi else 0.0
        meta.f32(".attention.max_alibi_bias", bias)
        meta.u32("general.file_type", 0)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        yield name, tensor
