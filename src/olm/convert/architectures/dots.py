"""dots.llm1. GGUF architecture `dots1`."""

from __future__ import annotations

from collections.abc import Mapping

from olm.convert.architectures.qwen_moe import Qwen2Moe
from olm.convert.hparams import Hparams
from olm.convert.metadata import Metadata
from olm.convert.registry import register

__all__ = ["Dots1"]


@register("Dots1ForCausalLM")
class Dots1(Qwen2Moe):
    """Experts as DeepSeek's, with shared ones."""

    gguf_name = "dots1"

    def read_hparams(self, config: Mapping[str, object]) -> Hparams:
        """Experts are chosen by sigmoid; the config says nothing, or `noaux_tc`, the name of the whole method."""
        hparams = super().read_hparams(config)
        if hparams.text("scoring_func", default="noaux_tc") != "noaux_tc":
            return hparams
        return hparams.with_values(scoring_func="sigmoid")

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        hparams = self.hparams
        meta.u32(".leading_dense_block_count", hparams.integer("first_k_dense_replace"))
        meta.u32(".expert_shared_count", hparams.integer("n_shared_experts"))
        meta.f32(".expert_weights_scale", hparams.number("routed_scaling_factor"))
        meta.flag(".expert_weights_norm", hparams.flag("norm_topk_prob"))
