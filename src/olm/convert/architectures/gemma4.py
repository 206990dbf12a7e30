"""Gemma 4, the language model. GGUF architecture `gemma4`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Final

import numpy as np

from olm.checkpoint.types import RowReader
from olm.convert.architecture import NamedTensor
from olm.convert.architectures.gemma3 import Gemma3
from olm.convert.lazy import constant
from olm.convert.metadata import Metadata
from olm.convert.registry import register
from olm.errors import CheckpointError

__all__ = ["Gemma4"]

_NEVER: Final = 1e30  # a frequency divided by this does not rotate


@register("Gemma4ForCausalLM", "Gemma4ForConditionalGeneration")
class Gemma4(Gemma3):
    """Layers with full attention have heads of another size, and rotate a part of them. Norms are stored as they are."""

    gguf_name = "gemma4"
    names: ClassVar[Mapping[str, str]] = {
        "model.layers.{bid}.router.scale": "blk.{bid}.ffn_gate_inp.scale",
        "model.layers.{bid}.router.per_expert_scale": "blk.{bid}.ffn_down_exps.scale",
    }

    @property
    def is_sliding(self) -> list[bool]:
        """For each layer whether it sees a window only."""
        return [kind == "sliding_attention" for kind in self.hparams.texts("layer_types")]

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        hparams = self.hparams
        meta.u32(".attention.shared_kv_layers", hparams.integer("num_kv_shared_layers"))
        meta.u32(
            ".embedding_length_per_layer_input",
            hparams.integer("hidden_size_per_layer_input", default=0),
        )
        meta.flags(".attention.sliding_window_pattern", self.is_sliding)
        n_ff = hparams.find_integer("expert_intermediate_size", "moe_intermediate_size")
        if n_ff is not None:
            meta.u32(".expert_feed_forward_length", n_ff)
        self._write_heads(meta)
        if hparams.flag("use_double_wide_mlp"):
            n_ff, first = hparams.integer("intermediate_size"), self._first_shared
            widths = [n_ff * (1 if layer < first else 2) for layer in range(self.n_blocks)]
            meta.i32s(".feed_forward_length", widths)

    def _write_heads(self, meta: Metadata) -> None:
        full, sliding = self._full_head_dim, self.head_dim
        for what in ("key", "value"):
            meta.u32(f".attention.{what}_length", full)
            meta.u32(f".attention.{what}_length_swa", sliding)
        n_full = self._of_full_layers("num_global_key_value_heads", "num_key_value_heads")
        if n_full is not None:
            n_kv = self.n_kv_heads
            heads = [n_kv if is_sliding else n_full for is_sliding in self.is_sliding]
            meta.i32s(".attention.head_count_kv", heads)
        meta.u32(".rope.dimension_count", full)
        meta.u32(".rope.dimension_count_swa", sliding)

    def keep(self, name: str) -> str | None:
        kept = super().keep(name)
        if kept is None:
            return None
        is_bare = kept.endswith(("per_dim_scale", "layer_scalar"))
        if ".experts." in kept and not kept.endswith((".weight", ".weight_scale")):
            is_bare = True
        return f"{kept}.weight" if is_bare else kept

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        yield name, tensor

    def extra(self) -> Iterable[NamedTensor]:
        """Factors for full attention: the frequencies behind the rotated part stand still."""
        rope = self.rope.full
        if rope.text("rope_type", default="") != "proportional":
            raise CheckpointError(f"{rope.where}: Gemma 4 has rope of type 'proportional'")
        n_pairs = self._full_head_dim // 2
        n_rotated = int(self._full_head_dim * rope.number("partial_rotary_factor") / 2)
        factors = np.full(n_pairs, _NEVER, np.float32)
        factors[:n_rotated] = 1
        yield "rope_freqs.weight", constant(factors)

    @property
    def _first_shared(self) -> int:
        """The first layer that takes keys and values from one before."""
        return self.n_blocks - self.hparams.integer("num_kv_shared_layers")

    @property
    def _full_head_dim(self) -> int:
        dim = self._of_full_layers("global_head_dim", "head_dim")
        if dim is None:
            raise CheckpointError("config.json: 'global_head_dim' is missing")
        return dim

    def _of_full_layers(self, name: str, name_in_layer: str) -> int | None:
        """A figure of layers with full attention: said once, or for each layer that differs."""
        said = self.hparams.find_integer(name)
        if said is not None:
            return said
        layers = self.hparams.table("per_layer_config")
        for layer, is_sliding in enumerate(self.is_sliding):
            found = layers.table(str(layer)).find_integer(name_in_layer)
            if not is_sliding and found is not None:
                return found
        return None
