"""Llama 4. GGUF architecture `llama4`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.hparams import Hparams
from olm.convert.lazy import transpose
from olm.convert.metadata import Metadata
from olm.convert.parts import llama3_rope_factors, split_gate_up
from olm.convert.registry import register

__all__ = ["Llama4"]


@register("Llama4ForConditionalGeneration", "Llama4ForCausalLM")
class Llama4(Architecture):
    """Stacked experts that stand the other way round. Its rope rotates neighbours already."""

    gguf_name = "llama4"

    def read_hparams(self, config: Mapping[str, object]) -> Hparams:
        """`intermediate_size` is the experts'; that of the other layers has the longer name."""
        hparams = super().read_hparams(config)
        n_ff = hparams.integer("intermediate_size")
        n_dense = hparams.integer("intermediate_size_mlp")
        return hparams.with_values(intermediate_size=n_dense, intermediate_size_moe=n_ff)

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        hparams = self.hparams
        meta.u32(".vocab_size", hparams.integer("vocab_size"))
        meta.u32(".rope.dimension_count", self.head_dim)
        meta.u32(".interleave_moe_layer_step", hparams.integer("interleave_moe_layer_step"))
        meta.u32(".expert_feed_forward_length", hparams.integer("intermediate_size_moe"))
        kinds = hparams.texts("layer_types")
        if kinds and all(kind == "full_attention" for kind in kinds):
            meta.u32(".attention.sliding_window", 0)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        stem, _, kind = name.rpartition(".")
        if kind == "gate_up_proj":
            gate, up = split_gate_up(transpose(tensor))
            yield f"{stem}.gate_proj.weight", gate
            yield f"{stem}.up_proj.weight", up
        elif kind == "down_proj":
            yield f"{name}.weight", transpose(tensor)
        else:
            yield name, tensor

    def extra(self) -> Iterable[NamedTensor]:
        factors = llama3_rope_factors(self.rope.full, self.head_dim)
        if factors is not None:
            yield "rope_freqs.weight", factors
