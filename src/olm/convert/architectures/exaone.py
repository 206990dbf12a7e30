"""EXAONE 3, 3.5, 4 and 4.5, and K-EXAONE. GGUF architectures `exaone`, `exaone4`, `exaone-moe`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.metadata import Metadata
from olm.convert.names import NEXTN_NAMES
from olm.convert.parts import llama3_rope_factors
from olm.convert.registry import register
from olm.errors import CheckpointError

__all__ = ["Exaone", "Exaone4", "Exaone45", "ExaoneMoe"]

# Tensors beside the layers that predict further tokens; each such layer has a copy.
_NEXTN_SHARED: Final = {
    "mtp.fc": "eh_proj",
    "mtp.pre_fc_norm_embedding": "enorm",
    "mtp.pre_fc_norm_hidden": "hnorm",
    "mtp.norm": "shared_head.norm",
}


@register("ExaoneForCausalLM")
class Exaone(Architecture):
    """Llama 3.1's rope scaling is a tensor."""

    gguf_name = "exaone"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        activation = self.hparams.text("activation_function", default="silu")
        if activation != "silu":
            raise CheckpointError(f"config.json: EXAONE's activation is silu, found {activation!r}")
        # Its norms are RMS norms whatever the setting is called.
        eps = self.hparams.number("rms_norm_eps", "layer_norm_epsilon", default=1e-5)
        meta.f32(".attention.layer_norm_rms_epsilon", eps)
        factor = self.rope.full.number("partial_rotary_factor", default=1.0)
        n_dims = self.hparams.integer("hidden_size") // self.n_heads
        meta.u32(".rope.dimension_count", int(factor * n_dims))

    def extra(self) -> Iterable[NamedTensor]:
        factors = llama3_rope_factors(self.rope.full, self.head_dim)
        if factors is not None:
            yield "rope_freqs.weight", factors


@register("Exaone4ForCausalLM")
class Exaone4(Architecture):
    """Layers of sliding and of full attention alternate."""

    gguf_name = "exaone4"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.u32(".vocab_size", self.hparams.integer("vocab_size"))
        window = self.hparams.find_integer("sliding_window")
        if window is None:
            return
        meta.u32(".attention.sliding_window", window)
        pattern = self._pattern()
        if pattern:
            meta.flags(".attention.sliding_window_pattern", pattern)

    def _pattern(self) -> Sequence[bool]:
        """Which layers slide: said for each, as letters that repeat (LLLG), or as every how manieth does not."""
        kinds = self.hparams.texts("layer_types")
        if kinds:
            return [kind == "sliding_attention" for kind in kinds]
        n_layers = self.hparams.integer("num_hidden_layers")
        letters = self.hparams.get("sliding_window_pattern")
        if isinstance(letters, str) and letters:
            return [letters[layer % len(letters)] == "L" for layer in range(n_layers)]
        every = self.hparams.integer("sliding_window_pattern", default=0)
        return [(layer + 1) % every != 0 for layer in range(n_layers)] if every else ()

    def extra(self) -> Iterable[NamedTensor]:
        rope = self.rope.full.with_values(factor=self.rope.full.number("factor", default=16.0))
        factors = llama3_rope_factors(rope, self.head_dim)
        if factors is not None:
            yield "rope_freqs.weight", factors


class _WithNextLayers(Exaone4):
    """Layers that predict further tokens (`mtp.`) come behind the others."""

    names = NEXTN_NAMES

    @property
    def n_main(self) -> int:
        return self.hparams.integer("num_hidden_layers")

    @property
    def n_next(self) -> int:
        return self.hparams.integer("num_nextn_predict_layers", default=0)

    @property
    def n_blocks(self) -> int:
        """Layers, with those that predict further tokens."""
        return self.n_main + self.n_next

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if not name.startswith("mtp."):
            yield name, tensor
            return
        further = range(self.n_main, self.n_blocks)
        layer = re.match(r"mtp\.layers\.(\d+)\.(.*)", name)
        if layer is None:
            stem, _, suffix = name.rpartition(".")
            if stem not in _NEXTN_SHARED:
                raise CheckpointError("is not known to a layer that predicts further tokens")
            for number in further:
                yield f"model.layers.{number}.{_NEXTN_SHARED[stem]}.{suffix}", tensor
        elif self.hparams.flag("mtp_share_layers"):
            for number in further:
                yield f"model.layers.{number}.{layer[2]}", tensor
        elif self.n_next:
            yield f"model.layers.{self.n_main + int(layer[1])}.{layer[2]}", tensor


@register("Exaone4_5_ForConditionalGeneration")
class Exaone45(_WithNextLayers):
    """EXAONE 4's text model beside a tower."""

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        if self.n_next:
            meta.u32(".nextn_predict_layers", self.n_next)


@register("ExaoneMoEForCausalLM", "ExaoneMoeForCausalLM")
class ExaoneMoe(_WithNextLayers):
    """With experts, a shared one among them."""

    gguf_name = "exaone-moe"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        n_ff = self.hparams.integer("moe_intermediate_size")
        n_shared = self.hparams.integer("num_shared_experts")
        n_dense = self.hparams.integer(
            "first_k_dense_replace", "first_last_k_dense_replace", default=0
        )
        meta.u32(".expert_feed_forward_length", n_ff)
        meta.u32(".expert_shared_count", n_shared)
        meta.u32(".expert_shared_feed_forward_length", n_ff * n_shared)
        meta.f32(".expert_weights_scale", self.hparams.number("routed_scaling_factor"))
        meta.flag(".expert_weights_norm", self.hparams.flag("norm_topk_prob"))
        meta.u32(".leading_dense_block_count", n_dense)
        meta.u32(".nextn_predict_layers", self.n_next)
        meta.text(".rope.scaling.type", "none")
