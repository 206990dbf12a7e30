"""DeciLM and Llama Nemotron, whose layers differ in size. GGUF architecture `deci`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.hparams import Hparams
from olm.convert.metadata import Metadata
from olm.convert.parts import interleave_rope, llama3_rope_factors
from olm.convert.registry import register
from olm.errors import CheckpointError

__all__ = ["Deci"]

_MULTIPLE: Final = 256


@register("DeciLMForCausalLM")
class Deci(Architecture):
    """`block_configs` says for each layer how many keys it has, or none, and how wide it is."""

    gguf_name = "deci"

    @property
    def blocks(self) -> Sequence[Hparams]:
        """The settings of each layer; empty where all are alike."""
        found = self.hparams.get("block_configs")
        if found is None:
            return ()
        if not isinstance(found, list) or len(found) != self.n_blocks:
            raise CheckpointError(f"config.json: wanted {self.n_blocks} block_configs")
        return [
            Hparams({"block": block}, f"config.json: block_configs[{n}]").table("block")
            for n, block in enumerate(found)
        ]

    def heads_of(self, layer: int) -> tuple[int, int]:
        """Query heads and key heads of a layer; (n, 0) is a linear layer, (0, 0) one without attention."""
        blocks = self.blocks
        if not blocks:
            per_layer = self.hparams.integers("num_key_value_heads_per_layer")
            return self.n_heads, per_layer[layer] if per_layer else self.n_kv_heads
        attention = blocks[layer].table("attention")
        group = attention.find_integer("n_heads_in_group")
        if group is None:
            return (self.n_heads if attention.flag("replace_with_linear") else 0), 0
        return self.n_heads, self.n_heads // max(group, 1)

    def write_keys(self, meta: Metadata) -> None:
        hparams = self.hparams
        if self.blocks:
            self._write_blocks(meta)
        else:
            super().write_keys(meta)
            per_layer = hparams.integers("num_key_value_heads_per_layer")
            if per_layer:
                meta.i32s(".attention.head_count_kv", per_layer)
        meta.u32(".vocab_size", hparams.integer("vocab_size"))
        meta.u32(".rope.dimension_count", self.head_dim)

    def _write_blocks(self, meta: Metadata) -> None:
        hparams = self.hparams
        n_embd = hparams.integer("hidden_size")
        heads = [self.heads_of(layer) for layer in range(self.n_blocks)]
        theta = self.rope.full.find_number("rope_theta")
        if theta is not None:
            meta.f32(".rope.freq_base", theta)
        meta.i32s(".attention.head_count_kv", [n_kv for _, n_kv in heads])
        meta.i32s(".attention.head_count", [n_heads for n_heads, _ in heads])
        meta.i32s(".feed_forward_length", [_n_ff(block, n_embd) for block in self.blocks])
        meta.u32(".block_count", self.n_blocks)
        meta.u32(".context_length", hparams.integer("max_position_embeddings"))
        meta.u32(".embedding_length", n_embd)
        meta.f32(".attention.layer_norm_rms_epsilon", hparams.number("rms_norm_eps"))
        meta.u32(".attention.key_length", n_embd // self.n_heads)
        meta.u32(".attention.value_length", n_embd // self.n_heads)
        meta.u32("general.file_type", 0)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name.endswith(("q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias")):
            layer = int(name.partition(".layers.")[2].partition(".")[0])
            n_heads, n_kv_heads = self.heads_of(layer)
            tensor = interleave_rope(tensor, n_heads if ".q_proj." in name else n_kv_heads)
        yield name, tensor

    def extra(self) -> Iterable[NamedTensor]:
        factors = llama3_rope_factors(self.rope.full, self.head_dim)
        if factors is not None:
            yield "rope_freqs.weight", factors


def _n_ff(block: Hparams, n_embd: int) -> int:
    """A feed-forward's length, rounded up; 0 for none."""
    multiplier = block.table("ffn").number("ffn_mult", default=0.0)
    return -(int(2 * multiplier * n_embd / 3) // -_MULTIPLE) * _MULTIPLE
