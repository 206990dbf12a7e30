"""DBRX. GGUF architecture `dbrx`."""

from __future__ import annotations

from collections.abc import Iterable

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.lazy import reshape, transpose
from olm.convert.metadata import Metadata
from olm.convert.output_types import output_type
from olm.convert.registry import register

__all__ = ["Dbrx"]


@register("DbrxForCausalLM")
class Dbrx(Architecture):
    """All experts of a layer in one matrix, and the one that leads back turned."""

    gguf_name = "dbrx"

    def write_keys(self, meta: Metadata) -> None:
        hparams = self.hparams
        ffn, attention = hparams.table("ffn_config"), hparams.table("attn_config")
        meta.u32(".block_count", self.n_blocks)
        meta.u32(".context_length", hparams.integer("max_seq_len"))
        meta.u32(".embedding_length", hparams.integer("d_model"))
        meta.u32(".feed_forward_length", ffn.integer("ffn_hidden_size"))
        meta.u32(".attention.head_count", self.n_heads)
        meta.u32(".attention.head_count_kv", attention.integer("kv_n_heads"))
        meta.f32(".rope.freq_base", attention.number("rope_theta"))
        meta.f32(".attention.clamp_kqv", attention.number("clip_qkv"))
        meta.u32(".expert_count", ffn.integer("moe_num_experts"))
        meta.u32(".expert_used_count", ffn.integer("moe_top_k"))
        meta.f32(".attention.layer_norm_epsilon", 1e-5)
        meta.u32("general.file_type", 0)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if ".ffn.experts.mlp." not in name:
            yield name, tensor
            return
        n_experts = self.hparams.table("ffn_config").integer("moe_num_experts")
        experts = reshape(tensor, (n_experts, -1, self.hparams.integer("d_model")))
        stem = name.removesuffix(".weight")
        yield f"{stem}.weight", transpose(experts) if stem.endswith("w2") else experts

    def forced_type(self, name: str, tensor: RowReader) -> str | None:
        """Routers are matrices like all others here, as in llama.cpp's converter."""
        is_router = name.endswith("ffn_gate_inp.weight")
        return output_type("router.weight", tensor, self.options.type_name) if is_router else None
