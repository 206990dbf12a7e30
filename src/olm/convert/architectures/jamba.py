"""Jamba: Mamba, attention and experts mixed. GGUF architecture `jamba`."""

from __future__ import annotations

from collections.abc import Iterable

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.metadata import Metadata
from olm.convert.parts import negative_exp, squeeze
from olm.convert.registry import register

__all__ = ["Jamba"]


@register("JambaForCausalLM")
class Jamba(Architecture):
    """Which layers have attention, and which have experts, is said by period and offset."""

    gguf_name = "jamba"

    def write_keys(self, meta: Metadata) -> None:
        hparams = self.hparams
        n_embd = hparams.integer("hidden_size", "mamba_d_model")
        rank = hparams.get("mamba_dt_rank")
        n_rank = -(n_embd // -16) if rank in (None, "auto") else hparams.integer("mamba_dt_rank")
        offset = hparams.integer("attn_layer_offset")
        period = max(hparams.integer("attn_layer_period"), 1)
        has_attention = [n >= offset and (n - offset) % period == 0 for n in range(self.n_blocks)]
        meta.u32(".block_count", self.n_blocks)
        meta.u32(".context_length", hparams.integer("max_position_embeddings", "n_ctx"))
        meta.u32(".embedding_length", n_embd)
        meta.u32(".feed_forward_length", hparams.integer("intermediate_size"))
        meta.u32(".attention.head_count", self.n_heads)
        meta.i32s(
            ".attention.head_count_kv", [self.n_kv_heads if here else 0 for here in has_attention]
        )
        meta.u32(".ssm.conv_kernel", hparams.integer("mamba_d_conv", default=4))
        meta.u32(".ssm.inner_size", hparams.integer("mamba_expand") * n_embd)
        meta.u32(".ssm.state_size", hparams.integer("mamba_d_state", default=16))
        meta.u32(".ssm.time_step_rank", n_rank)
        eps = hparams.number("layer_norm_epsilon", "rms_norm_eps", default=1e-6)
        meta.f32(".attention.layer_norm_rms_epsilon", eps)
        meta.u32(".expert_count", hparams.integer("num_local_experts", "num_experts"))
        n_used = hparams.integer("num_experts_per_tok", "num_experts_per_token")
        meta.u32(".expert_used_count", n_used)
        meta.u32("general.file_type", 0)

    def keep(self, name: str) -> str | None:
        """Mini-Jamba's names, and feed-forwards that are called the only expert."""
        name = name.replace(".moe.", ".feed_forward.")
        if ".experts.0." in name and not self._has_experts(name):
            name = name.replace(".experts.0.", ".")
        return super().keep(name)

    def _has_experts(self, name: str) -> bool:
        layer = int(name.partition(".layers.")[2].partition(".")[0])
        offset = self.hparams.integer("expert_layer_offset")
        period = max(self.hparams.integer("expert_layer_period"), 1)
        return layer >= offset and (layer - offset) % period == 0

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name.endswith(".A_log"):
            tensor = negative_exp(tensor)
        elif name.endswith(".conv1d.weight"):
            tensor = squeeze(tensor)
        yield name.replace(".feed_forward.experts.", ".mlp.experts."), tensor
