"""Laguna. GGUF architecture `laguna`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.metadata import Metadata
from olm.convert.registry import register
from olm.convert.vocab import TokenType, Vocab
from olm.errors import CheckpointError

__all__ = ["Laguna"]


# The gguf package does not know this architecture.
_NAMES: Final = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers.{bid}.input_layernorm": "blk.{bid}.attn_norm",
    "model.layers.{bid}.self_attn.q_proj": "blk.{bid}.attn_q",
    "model.layers.{bid}.self_attn.k_proj": "blk.{bid}.attn_k",
    "model.layers.{bid}.self_attn.v_proj": "blk.{bid}.attn_v",
    "model.layers.{bid}.self_attn.o_proj": "blk.{bid}.attn_output",
    "model.layers.{bid}.self_attn.g_proj": "blk.{bid}.attn_gate",
    "model.layers.{bid}.self_attn.q_norm": "blk.{bid}.attn_q_norm",
    "model.layers.{bid}.self_attn.k_norm": "blk.{bid}.attn_k_norm",
    "model.layers.{bid}.post_attention_layernorm": "blk.{bid}.ffn_norm",
    "model.layers.{bid}.mlp.gate_proj": "blk.{bid}.ffn_gate",
    "model.layers.{bid}.mlp.up_proj": "blk.{bid}.ffn_up",
    "model.layers.{bid}.mlp.down_proj": "blk.{bid}.ffn_down",
    "model.layers.{bid}.mlp.gate": "blk.{bid}.ffn_gate_inp",
    "model.layers.{bid}.mlp.experts.gate_proj": "blk.{bid}.ffn_gate_exps",
    "model.layers.{bid}.mlp.experts.up_proj": "blk.{bid}.ffn_up_exps",
    "model.layers.{bid}.mlp.experts.down_proj": "blk.{bid}.ffn_down_exps",
    "model.layers.{bid}.mlp.experts.e_score_correction": "blk.{bid}.exp_probs_b",
    "model.layers.{bid}.mlp.shared_expert.gate_proj": "blk.{bid}.ffn_gate_shexp",
    "model.layers.{bid}.mlp.shared_expert.up_proj": "blk.{bid}.ffn_up_shexp",
    "model.layers.{bid}.mlp.shared_expert.down_proj": "blk.{bid}.ffn_down_shexp",
}


@register("LagunaForCausalLM")
class Laguna(Architecture):
    """Heads differ from layer to layer, attention's output is gated, experts are chosen by sigmoid."""

    gguf_name = "laguna"
    names = _NAMES

    @property
    def heads(self) -> Sequence[int]:
        """Query heads of each layer."""
        said = self.hparams.integers("num_attention_heads_per_layer")
        if said and len(said) != self.n_blocks:
            raise CheckpointError(
                f"config.json: heads of {len(said)} layers are said, there are {self.n_blocks}"
            )
        return said or [self.n_heads] * self.n_blocks

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        hparams = self.hparams
        meta.u32(".vocab_size", hparams.integer("vocab_size"))
        meta.i32s(".attention.head_count", self.heads)
        window = hparams.integer("sliding_window", default=0)
        if window:
            meta.u32(".attention.sliding_window", window)
        meta.u32(".expert_feed_forward_length", hparams.integer("moe_intermediate_size"))
        n_shared = hparams.integer("shared_expert_intermediate_size")
        meta.u32(".expert_shared_feed_forward_length", n_shared)
        meta.flag(".expert_weights_norm", value=True)
        meta.f32(".expert_weights_scale", hparams.number("moe_routed_scaling_factor"))
        meta.u32(".expert_gating_func", 2)  # sigmoid
        dense = itertools.takewhile(lambda kind: kind == "dense", hparams.texts("mlp_layer_types"))
        meta.u32(".leading_dense_block_count", len(list(dense)))
        full, sliding = self.rope.full, self.rope.sliding
        rotated = full.number("partial_rotary_factor", default=1.0)
        meta.u32(".rope.dimension_count", int(self.head_dim * rotated))
        if sliding.values:
            rotated = sliding.number("partial_rotary_factor", default=1.0)
            meta.u32(".rope.dimension_count_swa", int(self.head_dim * rotated))

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name.endswith("self_attn.g_proj.weight"):
            layer = int(name.split(".layers.")[1].partition(".")[0])
            self._check_gate(layer, tensor.shape[0])
        yield name, tensor

    def _check_gate(self, layer: int, n_rows: int) -> None:
        """A gate is one number for each head, or for each element; the config must agree with the weights."""
        said = self.hparams.texts("gating_types") or [self._gating()] * self.n_blocks
        is_by_element = said[layer].replace("-", "_") == "per_element"
        wanted = self.heads[layer] * (self.head_dim if is_by_element else 1)
        if n_rows != wanted:
            raise CheckpointError(f"{n_rows} rows of a gate that is {said[layer]}, wanted {wanted}")

    def _gating(self) -> str:
        said = self.hparams.get("gating")
        return said if isinstance(said, str) else "per_head"

    def vocab(self) -> Vocab | None:
        """The token that ends a turn is one of the end tokens, though its tokenizer calls it ordinary."""
        vocab = super().vocab()
        if vocab is None:
            return None
        types = [
            TokenType.CONTROL if piece in ("</assistant>", b"</assistant>") else kind
            for piece, kind in zip(vocab.tokens, vocab.types, strict=True)
        ]
        ends = self.hparams.get("eos_token_id")
        further = [e for e in ends if isinstance(e, int)] if isinstance(ends, list) else []
        further = [end for end in further if end != self.hparams.get("bos_token_id")]
        special = {**vocab.special, "eot": further[0]} if further else vocab.special
        return attrs.evolve(vocab, types=types, special=special)
