"""Command R and Command R7B (Cohere 1 and 2). GGUF architectures `command-r`, `cohere2`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.hparams import Hparams
from olm.convert.lazy import read_all
from olm.convert.metadata import Metadata
from olm.convert.registry import register
from olm.errors import CheckpointError

__all__ = ["Cohere", "Cohere2"]


@register("CohereForCausalLM")
class Cohere(Architecture):
    """Trained on longer contexts than `max_position_embeddings` says."""

    gguf_name = "command-r"

    def read_hparams(self, config: Mapping[str, object]) -> Hparams:
        hparams = super().read_hparams(config)
        length = hparams.integer("model_max_length", "max_position_embeddings")
        return hparams.with_values(max_position_embeddings=length)

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.f32(".logit_scale", self.hparams.number("logit_scale"))
        meta.text(".rope.scaling.type", "none")


@register("Cohere2ForCausalLM")
class Cohere2(Architecture):
    """Three layers of sliding attention to one of full attention. Biases are all zero, and llama.cpp has none."""

    gguf_name = "cohere2"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        hparams = self.hparams
        rotated = hparams.find_number("rotary_pct")
        if rotated is None:
            rotated = self.rope.full.number("partial_rotary_factor", default=1.0)
        head_dim = hparams.integer("hidden_size") // self.n_heads
        meta.f32(".logit_scale", hparams.number("logit_scale"))
        meta.u32(".attention.sliding_window", hparams.integer("sliding_window"))
        meta.u32(".vocab_size", hparams.integer("vocab_size"))
        meta.u32(".rope.dimension_count", int(rotated * head_dim))
        meta.text(".rope.scaling.type", "none")

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if not name.endswith(".bias"):
            yield name, tensor
        elif read_all(tensor).any():
            raise CheckpointError("a bias that is not zero, which llama.cpp's cohere2 lacks")
