"""MiniCPM 1, 2 and 4, and MiniCPM3. GGUF architectures `minicpm`, `minicpm3`."""

from __future__ import annotations

from collections.abc import Iterable

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.metadata import Metadata
from olm.convert.parts import interleave_rope, longrope_factors
from olm.convert.registry import register

__all__ = ["MiniCpm", "MiniCpm3"]


@register("MiniCPMForCausalLM")
class MiniCpm(Architecture):
    """Llama's shape, with scaled embeddings, residuals and logits."""

    gguf_name = "minicpm"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        hparams = self.hparams
        depth = hparams.number("scale_depth") / hparams.integer("num_hidden_layers") ** 0.5
        meta.f32(".embedding_scale", hparams.number("scale_emb"))
        meta.f32(".residual_scale", depth)
        width = hparams.integer("hidden_size") / hparams.integer("dim_model_base")
        meta.f32(".logit_scale", width)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name.endswith("q_proj.weight"):
            tensor = interleave_rope(tensor, self.n_heads)
        elif name.endswith("k_proj.weight"):
            tensor = interleave_rope(tensor, self.n_kv_heads)
        yield name, tensor

    def extra(self) -> Iterable[NamedTensor]:
        n_dims = self.hparams.integer("hidden_size") // self.n_heads
        yield from longrope_factors(self.rope.full, n_dims)


@register("MiniCPM3ForCausalLM")
class MiniCpm3(Architecture):
    """Multi-head latent attention, decompressed when it runs."""

    gguf_name = "minicpm3"

    def write_keys(self, meta: Metadata) -> None:
        hparams = self.hparams
        n_rotated = hparams.integer("qk_rope_head_dim")
        meta.u32("general.file_type", 0)
        meta.u32(".context_length", hparams.integer("max_position_embeddings"))
        meta.u32(".embedding_length", hparams.integer("hidden_size"))
        meta.u32(".block_count", self.n_blocks)
        meta.u32(".feed_forward_length", hparams.integer("intermediate_size"))
        meta.u32(".attention.head_count", self.n_heads)
        meta.u32(".attention.head_count_kv", self.n_kv_heads)
        meta.f32(".attention.layer_norm_rms_epsilon", hparams.number("rms_norm_eps"))
        meta.u32(".vocab_size", hparams.integer("vocab_size"))
        rank = hparams.find_integer("q_lora_rank")
        if rank is not None:
            meta.u32(".attention.q_lora_rank", rank)
        meta.u32(".attention.kv_lora_rank", hparams.integer("kv_lora_rank"))
        meta.u32(".attention.key_length", hparams.integer("qk_nope_head_dim") + n_rotated)
        meta.u32(".rope.dimension_count", n_rotated)

    def extra(self) -> Iterable[NamedTensor]:
        yield from longrope_factors(self.rope.full, self.hparams.integer("qk_rope_head_dim"))
