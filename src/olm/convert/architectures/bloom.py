"""BLOOM. GGUF architecture `bloom`."""

from __future__ import annotations

from collections.abc import Iterable

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.lazy import concat
from olm.convert.metadata import Metadata
from olm.convert.parts import ungroup_qkv
from olm.convert.registry import register

__all__ = ["Bloom"]


@register("BloomForCausalLM", "BloomModel")
class Bloom(Architecture):
    """The fused projection holds q, k and v of each head side by side; llama.cpp wants all queries first."""

    gguf_name = "bloom"

    def write_keys(self, meta: Metadata) -> None:
        hparams = self.hparams
        n_embd = hparams.integer("hidden_size", "n_embed")
        meta.u32(".context_length", hparams.integer("seq_length", default=n_embd))
        meta.u32(".embedding_length", n_embd)
        meta.u32(".feed_forward_length", 4 * n_embd)
        meta.u32(".block_count", self.n_blocks)
        meta.u32(".attention.head_count", self.n_heads)
        meta.u32(".attention.head_count_kv", self.n_heads)
        meta.f32(".attention.layer_norm_epsilon", hparams.number("layer_norm_epsilon"))
        meta.u32("general.file_type", 0)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if ".self_attention.query_key_value." in name:
            n_embd = self.hparams.integer("hidden_size", "n_embed")
            tensor = concat(ungroup_qkv(tensor, self.n_heads, self.n_heads, n_embd // self.n_heads))
        yield name.removeprefix("transformer."), tensor
