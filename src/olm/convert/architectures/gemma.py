"""Gemma 1 and 2. GGUF architectures `gemma` and `gemma2`."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.metadata import Metadata
from olm.convert.parts import plus_one
from olm.convert.registry import register
from olm.convert.vocab import Vocab

__all__ = ["Gemma", "Gemma2"]


@register("GemmaForCausalLM")
class Gemma(Architecture):
    """Norms are stored minus one, and the head is the embedding. Rope has the usual base, so its keys stay out."""

    gguf_name = "gemma"
    skipped = r"^lm_head\."

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.remove(".rope.freq_base")
        meta.u32(".attention.head_count_kv", self.n_kv_heads)
        meta.u32(".attention.key_length", self.head_dim)
        meta.u32(".attention.value_length", self.head_dim)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        yield name, plus_one(tensor) if name.endswith("norm.weight") else tensor

    def vocab(self) -> Vocab | None:
        vocab = super().vocab()
        return None if vocab is None else attrs.evolve(vocab, add_space_prefix=False)


@register("Gemma2ForCausalLM")
class Gemma2(Gemma):
    """Caps attention scores and logits; every other layer sees a window only."""

    gguf_name = "gemma2"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.f32(
            ".attn_logit_softcapping", self.hparams.number("attn_logit_softcapping", default=50.0)
        )
        meta.f32(
            ".final_logit_softcapping", self.hparams.number("final_logit_softcapping", default=30.0)
        )
        meta.u32(".attention.sliding_window", self.hparams.integer("sliding_window", default=4096))
