"""Architectures of their own that convert as Llama does: SmolLM3, Arcee, Apertus, Orion, Seed-OSS, XVERSE."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.architectures.llama import Llama
from olm.convert.lazy import read_all, widen
from olm.convert.metadata import Metadata
from olm.convert.parts import interleave_rope
from olm.convert.pooling import write_pooling
from olm.convert.registry import register
from olm.errors import CheckpointError

__all__ = ["Apertus", "Arcee", "Orion", "SeedOss", "SmolLm3", "Xverse"]

_LAYOUT: Final = "Meta AI original pth"  # what `.tensor_data_layout` says of interleaved rope
_XIELU: Final = ("alpha_n", "alpha_p", "beta", "eps")


@register("SmolLM3ForCausalLM")
class SmolLm3(Llama):
    """Some layers have no rope, which llama.cpp knows by number."""

    gguf_name = "smollm3"


@register("ArceeForCausalLM")
class Arcee(Llama):
    """A feed-forward without gate."""

    gguf_name = "arcee"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        write_pooling(meta, self.checkpoint, self.hparams)


@register("ApertusForCausalLM")
class Apertus(Llama):
    """Its activation, xIELU, has numbers for each layer: they become metadata. Rope rotates halves."""

    gguf_name = "apertus"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        for kind in _XIELU:
            meta.f32s(f"xielu.{kind}", [self._number(n, kind) for n in range(self.n_blocks)])

    def _number(self, layer: int, kind: str) -> float:
        name = f"model.layers.{layer}.mlp.act_fn.{kind}"
        tensor = self.checkpoint.tensors.get(name)
        if tensor is None:
            raise CheckpointError(f"tensor {name!r} is missing")
        values = read_all(widen(tensor)).reshape(-1)
        if len(values) != 1:
            raise CheckpointError(f"tensor {name!r}: wanted one number, found {len(values)}")
        return float(values[0])

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if ".act_fn." not in name:
            yield name, tensor


@register("OrionForCausalLM")
class Orion(Architecture):
    """Its norms are layer norms, whatever the setting is called."""

    gguf_name = "orion"

    def write_keys(self, meta: Metadata) -> None:
        hparams = self.hparams
        lengths = ("max_sequence_length", "max_position_embeddings", "model_max_length")
        meta.u32("general.file_type", 0)
        meta.text(".tensor_data_layout", _LAYOUT)
        meta.u32(".context_length", hparams.integer(*lengths))
        meta.u32(".embedding_length", hparams.integer("hidden_size"))
        meta.u32(".block_count", self.n_blocks)
        meta.u32(".feed_forward_length", hparams.integer("intermediate_size"))
        meta.u32(".attention.head_count", self.n_heads)
        meta.u32(".attention.head_count_kv", self.n_kv_heads)
        meta.f32(".attention.layer_norm_epsilon", hparams.number("rms_norm_eps"))


@register("SeedOssForCausalLM")
class SeedOss(Architecture):
    """Everything is as in the tables."""

    gguf_name = "seed_oss"


@register("XverseForCausalLM")
class Xverse(Architecture):
    """Rope rotates neighbours."""

    gguf_name = "xverse"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.text(".tensor_data_layout", _LAYOUT)
        meta.u32(".rope.dimension_count", self.hparams.integer("hidden_size") // self.n_heads)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name.endswith("q_proj.weight"):
            tensor = interleave_rope(tensor, self.n_heads)
        elif name.endswith("k_proj.weight"):
            tensor = interleave_rope(tensor, self.n_kv_heads)
        yield name, tensor
