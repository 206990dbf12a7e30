"""Olmo 1 to 3, and OLMoE. GGUF architectures `olmo`, `olmo2`, `olmoe`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.architectures.qwen_moe import Qwen2Moe
from olm.convert.metadata import Metadata
from olm.convert.parts import interleave_rope
from olm.convert.registry import register

__all__ = ["Olmo", "Olmo2", "Olmoe"]

_EPS: Final = 1e-5  # written into the models' code, not into their config
_GLOBAL_EVERY: Final = 4  # Olmo 3's layers with full attention, where the config does not list them


@register("OlmoForCausalLM", "OLMoForCausalLM")
class Olmo(Architecture):
    """Its norms have no weights. Rope rotates neighbours."""

    gguf_name = "olmo"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.f32(".attention.layer_norm_epsilon", _EPS)
        clamp = self.hparams.find_number("clip_qkv")
        if clamp is not None:
            meta.f32(".attention.clamp_kqv", clamp)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name.endswith("q_proj.weight"):
            tensor = interleave_rope(tensor, self.n_heads)
        elif name.endswith("k_proj.weight"):
            tensor = interleave_rope(tensor, self.n_kv_heads)
        yield name, tensor


@register("Olmo2ForCausalLM", "Olmo3ForCausalLM")
class Olmo2(Architecture):
    """Norms behind attention and feed-forward. Olmo 3 is the same with windows in most layers."""

    gguf_name = "olmo2"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        window = self.hparams.find_integer("sliding_window")
        if window is None:
            return
        meta.u32(".attention.sliding_window", window)
        kinds = self.hparams.texts("layer_types")
        layers = range(1, self.n_blocks + 1)
        meta.flags(
            ".attention.sliding_window_pattern",
            [kind == "sliding_attention" for kind in kinds]
            or [layer % _GLOBAL_EVERY != 0 for layer in layers],
        )


@register("OlmoeForCausalLM")
class Olmoe(Qwen2Moe):
    """Experts as Qwen's."""

    gguf_name = "olmoe"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.f32(".attention.layer_norm_rms_epsilon", _EPS)
