"""Phi 2 to 4, and Phi 3.5 with experts. GGUF architectures `phi2`, `phi3`, `phimoe`."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.lazy import constant
from olm.convert.metadata import Metadata
from olm.convert.registry import register
from olm.errors import CheckpointError

__all__ = ["Phi2", "Phi3", "PhiMoe"]


class _Phi(Architecture):
    """Part of each head is rotated."""

    @property
    def rope_dims(self) -> int:
        """Rotated elements of a head."""
        part = self.rope.full.number("partial_rotary_factor", default=1.0)
        return int(part * self.hparams.integer("hidden_size", "n_embd")) // max(self.n_heads, 1)


@register("PhiForCausalLM")
class Phi2(_Phi):
    """Phi 1, 1.5 and 2."""

    gguf_name = "phi2"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.remove(".rope.freq_base")
        meta.u32(".feed_forward_length", 4 * self.hparams.integer("hidden_size", "n_embd"))
        meta.u32(".attention.head_count_kv", self.n_heads)
        meta.u32(".rope.dimension_count", self.rope_dims)


@register("Phi3ForCausalLM", "Phi4ForCausalLMV")
class Phi3(_Phi):
    """Phi 3 and 4: fused projections stay as they are; long contexts have a factor for each frequency."""

    gguf_name = "phi3"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        for key in (".rope.scaling.type", ".attention.key_length", ".attention.value_length"):
            meta.remove(key)
        meta.u32(".rope.scaling.original_context_length", self._original_context)
        meta.u32(".rope.dimension_count", self.rope_dims)
        # Zero tells llama.cpp that it is a Phi 4.
        meta.u32(".attention.sliding_window", self.hparams.integer("sliding_window", default=0))
        if self.rope.full.numbers("long_factor"):
            meta.f32(".rope.scaling.attn_factor", self._attention_factor())

    def extra(self) -> Iterable[NamedTensor]:
        rope = self.rope.full
        long, short = rope.numbers("long_factor"), rope.numbers("short_factor")
        if not long:
            return
        for name, factors in (("long", long), ("short", short)):
            if len(factors) * 2 != self.rope_dims:
                raise CheckpointError(
                    f"{rope.where}: wanted {self.rope_dims // 2} numbers in '{name}_factor', found {len(factors)}"
                )
            yield f"rope_factors_{name}.weight", constant(np.array(factors, np.float32))

    @property
    def _original_context(self) -> int:
        full = self.hparams.integer("max_position_embeddings", "n_positions")
        return self.rope.full.integer("original_max_position_embeddings", default=full)

    def _attention_factor(self) -> float:
        """How much longer contexts scale attention (Phi 3's `modeling_phi3.py`)."""
        original = self._original_context
        scale = self.hparams.integer("max_position_embeddings", "n_positions") / max(original, 1)
        kind = self.rope.full.text("rope_type", default="").lower()
        if scale <= 1:
            return 1.0
        if kind in ("su", "longrope"):
            return math.sqrt(1 + math.log(scale) / math.log(original))
        if kind == "yarn":
            return 0.1 * math.log(scale) + 1
        raise CheckpointError(
            f"{self.rope.full.where}: rope of type {kind!r}; known are su, longrope and yarn"
        )


@register("PhiMoEForCausalLM")
class PhiMoe(Phi3):
    """Experts as Mixtral's."""

    gguf_name = "phimoe"
