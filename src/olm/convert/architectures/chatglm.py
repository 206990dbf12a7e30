"""ChatGLM 3, GLM-4 9B and GLM-Edge. GGUF architecture `chatglm`."""

from __future__ import annotations

from typing import Final

import attrs

from olm.convert.architecture import Architecture
from olm.convert.metadata import Metadata
from olm.convert.registry import register
from olm.convert.vocab import Vocab, with_special

__all__ = ["ChatGlm"]

_SPECIAL: Final = {"eos": "<|endoftext|>", "eot": "<|user|>", "unk": "<|endoftext|>"}


@register("GlmForCausalLM", "ChatGLMModel", "ChatGLMForConditionalGeneration")
class ChatGlm(Architecture):
    """Half of each head is rotated. The older checkpoints have their own names for everything."""

    gguf_name = "chatglm"
    skipped = r"(^|\.)rotary_pos_emb\.inv_freq$"

    def write_keys(self, meta: Metadata) -> None:
        hparams = self.hparams
        n_embd = hparams.integer("hidden_size", "n_embed")
        n_heads = self.n_heads
        n_kv = hparams.integer("multi_query_group_num", "num_key_value_heads", default=n_heads)
        n_ff = hparams.integer("ffn_hidden_size", "intermediate_size", default=4 * n_embd)
        n_dims = hparams.integer("attention_dim", default=n_embd // n_heads)
        factor = self.rope.full.number("partial_rotary_factor", default=0.5)
        meta.u32(".context_length", hparams.integer("seq_length", default=n_embd))
        meta.u32(".embedding_length", n_embd)
        meta.u32(".feed_forward_length", n_ff)
        meta.u32(".block_count", self.n_blocks)
        meta.u32(".attention.head_count", n_heads)
        meta.u32(".attention.head_count_kv", n_kv)
        eps = hparams.number("layernorm_epsilon", default=1e-5)
        meta.f32(".attention.layer_norm_rms_epsilon", eps)
        meta.u32("general.file_type", 0)
        meta.u32(".rope.dimension_count", int(n_dims * factor))
        meta.f32(".rope.freq_base", 10000 * hparams.number("rope_ratio", default=1.0))

    def keep(self, name: str) -> str | None:
        return super().keep(name.removeprefix("transformer."))

    def vocab(self) -> Vocab | None:
        vocab = super().vocab()
        return vocab and attrs.evolve(with_special(vocab, _SPECIAL), add_bos=False)
