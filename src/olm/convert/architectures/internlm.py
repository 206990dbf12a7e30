"""InternLM2 and InternLM3. GGUF architectures `internlm2` and `llama`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import attrs

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.metadata import Metadata
from olm.convert.parts import interleave_rope, ungroup_qkv
from olm.convert.registry import register
from olm.convert.vocab import Vocab, with_special

__all__ = ["InternLm2", "InternLm3"]

_ZERO_PIECE: Final = "🐉"
_SPECIAL: Final = {"eos": "<|im_end|>"}  # of the chat models, whose files name the other end


@register("InternLM2ForCausalLM")
class InternLm2(Architecture):
    """One fused projection, grouped by keys; rope rotates neighbours."""

    gguf_name = "internlm2"

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if ".attention.wqkv." not in name:
            yield name, tensor
            return
        head_dim = self.hparams.integer("hidden_size") // self.n_heads
        q, k, v = ungroup_qkv(tensor, self.n_heads, self.n_kv_heads, head_dim)
        stem, _, rest = name.partition(".attention.wqkv.")
        layer = stem.rpartition(".")[2]
        yield f"blk.{layer}.attn_q.{rest}", interleave_rope(q, self.n_heads)
        yield f"blk.{layer}.attn_k.{rest}", interleave_rope(k, self.n_kv_heads)
        yield f"blk.{layer}.attn_v.{rest}", v

    def vocab(self) -> Vocab | None:
        """One piece is a zero byte, at which C strings end: it becomes a dragon, as in llama.cpp's converter."""
        vocab = super().vocab()
        if vocab is None:
            return None
        tokens = [_ZERO_PIECE if piece in ("\0", b"\0") else piece for piece in vocab.tokens]
        return with_special(attrs.evolve(vocab, tokens=tokens), _SPECIAL)


@register("InternLM3ForCausalLM")
class InternLm3(Architecture):
    """Llama's shape, with biases."""

    gguf_name = "llama"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.u32(".vocab_size", self.hparams.integer("vocab_size"))
        meta.u32(".rope.dimension_count", self.head_dim)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name.endswith(("q_proj.weight", "q_proj.bias")):
            tensor = interleave_rope(tensor, self.n_heads)
        elif name.endswith(("k_proj.weight", "k_proj.bias")):
            tensor = interleave_rope(tensor, self.n_kv_heads)
        yield name, tensor

    def vocab(self) -> Vocab | None:
        vocab = super().vocab()
        return vocab and with_special(vocab, _SPECIAL)
