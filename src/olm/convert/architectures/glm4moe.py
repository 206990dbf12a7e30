"""GLM-4.5 to 4.7 with experts, GLM-4.5V, Solar Open. GGUF architecture `glm4moe`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from olm.convert.architecture import Architecture
from olm.convert.metadata import Metadata
from olm.convert.registry import register
from olm.convert.vocab import Vocab, with_special

__all__ = ["GLM_SPECIAL", "Glm4Moe"]

GLM_SPECIAL: Final[Mapping[str, str]] = {
    "bos": "[gMASK]",
    "eot": "<|user|>",
    "unk": "<|endoftext|>",
    "eom": "<|observation|>",
}
"""Special tokens of GLM from 4.5 on, which its tokenizer's files do not name."""

_SOLAR_SPECIAL: Final = {
    "eos": "<|endoftext|>",
    "eot": "<|endoftext|>",
    "unk": "<unk>",
    "bos": "<|startoftext|>",
}


@register("Glm4MoeForCausalLM", "Glm4vMoeForConditionalGeneration", "SolarOpenForCausalLM")
class Glm4Moe(Architecture):
    """Layers that predict further tokens come behind the others."""

    gguf_name = "glm4moe"

    @property
    def n_blocks(self) -> int:
        """Layers, with those that predict further tokens."""
        return super().n_blocks + self.hparams.integer("num_nextn_predict_layers", default=0)

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        factor = self.rope.full.number("partial_rotary_factor", default=0.5)
        meta.u32(".rope.dimension_count", int(self.head_dim * factor))
        meta.u32(".expert_gating_func", 2)  # sigmoid
        counts = {
            ".expert_count": "n_routed_experts",
            ".expert_feed_forward_length": "moe_intermediate_size",
            ".expert_shared_count": "n_shared_experts",
            ".leading_dense_block_count": "first_k_dense_replace",
            ".nextn_predict_layers": "num_nextn_predict_layers",
        }
        for key, setting in counts.items():
            count = self.hparams.find_integer(setting)
            if count is not None:
                meta.u32(key, count)
        scale = self.hparams.find_number("routed_scaling_factor")
        if scale is not None:
            meta.f32(".expert_weights_scale", scale)
        if "norm_topk_prob" in self.hparams:
            meta.flag(".expert_weights_norm", self.hparams.flag("norm_topk_prob"))

    def vocab(self) -> Vocab | None:
        vocab = super().vocab()
        is_solar = self.hf_name == "SolarOpenForCausalLM"
        return vocab and with_special(vocab, _SOLAR_SPECIAL if is_solar else GLM_SPECIAL)
