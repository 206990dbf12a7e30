"""ModernBERT. GGUF architecture `modern-bert`."""

from __future__ import annotations

import attrs

from olm.convert.architectures.bert import Bert
from olm.convert.metadata import Metadata
from olm.convert.registry import register
from olm.convert.vocab import Vocab

__all__ = ["ModernBert"]


@register("ModernBertModel", "ModernBertForMaskedLM", "ModernBertForSequenceClassification")
class ModernBert(Bert):
    """Rope with two bases, windows in two layers of three, gated feed-forward."""

    gguf_name = "modern-bert"
    prefix = "model."
    skipped = rf"{Bert.skipped}|^decoder\."

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        if ".attention.layer_norm_epsilon" not in meta:
            eps = self.hparams.number("layer_norm_eps", "norm_eps")
            meta.f32(".attention.layer_norm_epsilon", eps)
        meta.u32(".attention.sliding_window", self.hparams.integer("local_attention"))
        period = self.hparams.find_integer("global_attn_every_n_layers")
        if period is not None:
            meta.u32(".attention.sliding_window_pattern", period)
        meta.text(".rope.scaling.type", "none")
        meta.u32(".vocab_size", self.hparams.integer("vocab_size"))
        activation = self.hparams.text("hidden_activation", default="")
        if activation:
            meta.text(".hidden_activation", activation)

    def vocab(self) -> Vocab | None:
        vocab = super().vocab()
        if vocab is None:
            return None
        return attrs.evolve(vocab, add_bos=True, add_eos=True, add_sep=True)
