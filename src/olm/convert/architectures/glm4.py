"""GLM-4 (0414), GLM-4V and GLM-OCR, dense. GGUF architecture `glm4`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.lazy import take
from olm.convert.metadata import Metadata
from olm.convert.registry import register
from olm.convert.vocab import Vocab, with_special
from olm.errors import CheckpointError

__all__ = ["Glm4", "GlmOcr"]

_SPECIAL: Final = {
    "eos": "<|endoftext|>",
    "eot": "<|user|>",
    "unk": "<|endoftext|>",
    "bos": "<|endoftext|>",
}


@register("Glm4ForCausalLM", "Glm4vForConditionalGeneration")
class Glm4(Architecture):
    """Half of each head is rotated, neighbours with each other; llama.cpp's M-RoPE wants halves, so there rows move."""

    gguf_name = "glm4"

    @property
    def n_rotated(self) -> int:
        """Elements of a head that rope rotates."""
        return int(self.head_dim * self.rope.full.number("partial_rotary_factor", default=0.5))

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.u32(".rope.dimension_count", self.n_rotated)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if self.rope.sections and name.rpartition(".")[0].endswith(("q_proj", "k_proj")):
            tensor = _halves_of_neighbours(tensor, self.head_dim, self.n_rotated)
        yield name, tensor

    def vocab(self) -> Vocab | None:
        """Its tokenizer's files call neither the end nor a turn's end by name."""
        vocab = super().vocab()
        return vocab and with_special(vocab, _SPECIAL)


def _halves_of_neighbours(projection: RowReader, head_dim: int, n_rotated: int) -> RowReader:
    """Of each head's rotated rows, first the even ones, then the odd ones."""
    n_rows = projection.shape[0]
    if n_rows % head_dim or n_rotated % 2:
        raise CheckpointError(f"{n_rows} rows of a projection do not divide into heads")
    head = np.arange(head_dim)
    order = np.concatenate([head[:n_rotated:2], head[1:n_rotated:2], head[n_rotated:]])
    return take(projection, (np.arange(0, n_rows, head_dim)[:, None] + order).reshape(-1))


@register("GlmOcrForConditionalGeneration")
class GlmOcr(Glm4):
    """One layer more, which predicts a further token."""

    @property
    def n_blocks(self) -> int:
        """Layers, with those that predict further tokens."""
        return super().n_blocks + self.hparams.integer("num_nextn_predict_layers", default=0)

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        n_next = self.hparams.find_integer("num_nextn_predict_layers")
        if n_next is not None:
            meta.u32(".nextn_predict_layers", n_next)
