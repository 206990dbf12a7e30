"""Nemotron 3 and 4 (Minitron). GGUF architecture `nemotron`."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.metadata import Metadata
from olm.convert.parts import plus_one
from olm.convert.registry import register
from olm.convert.vocab import Vocab

__all__ = ["Nemotron"]


@register("NemotronForCausalLM")
class Nemotron(Architecture):
    """Norms are stored minus one; rope rotates a part of each head."""

    gguf_name = "nemotron"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        hparams = self.hparams
        eps = hparams.number("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps")
        rotated = self.rope.full.number("partial_rotary_factor", default=0.5)
        meta.u32(".vocab_size", hparams.integer("vocab_size"))
        meta.f32(".attention.layer_norm_epsilon", eps)
        meta.u32(
            ".rope.dimension_count", int(rotated * hparams.integer("hidden_size")) // self.n_heads
        )
        factor = hparams.find_number("factor") or self.rope.full.find_number("factor")
        meta.text(".rope.scaling.type", "linear" if factor else "none")
        if factor:
            meta.f32(".rope.scaling.factor", factor)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        yield name, plus_one(tensor) if name.endswith("norm.weight") else tensor

    def vocab(self) -> Vocab | None:
        vocab = super().vocab()
        return vocab and attrs.evolve(vocab, special={**vocab.special, "pad": 0, "unk": 1})
