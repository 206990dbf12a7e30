"""Gemma 3, its embedding model, and the tower that sees. GGUF `gemma3`, `gemma-embedding`, and a projector `gemma3`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.hparams import Hparams
from olm.convert.lazy import take
from olm.convert.metadata import Metadata
from olm.convert.parts import plus_one
from olm.convert.pooling import dense_layers, write_pooling
from olm.convert.projector import Projector
from olm.convert.registry import register
from olm.convert.vocab import Vocab

__all__ = ["EmbeddingGemma", "Gemma3", "Gemma3Vision"]

# What published configs leave out (Transformers, configuration_gemma3.py).
_DEFAULTS: Final = {
    "vocab_size": 262208,
    "max_position_embeddings": 131072,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "rope_local_base_freq": 1e4,
}
_USUAL_SCALE: Final = 4  # of the projector; others are said


@register("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration")
class Gemma3(Architecture):
    """Norms are stored minus one, also those of queries and keys. Five layers of six see a window only."""

    gguf_name = "gemma3"

    def read_hparams(self, config: Mapping[str, object]) -> Hparams:
        found = super().read_hparams(config)
        return found.with_values(**{k: v for k, v in _DEFAULTS.items() if k not in found})

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        cap = self.hparams.find_number("final_logit_softcapping")
        if cap:
            meta.f32(".final_logit_softcapping", cap)
        if self.hparams.get("sliding_window_pattern") != 1:
            meta.u32(".attention.sliding_window", self.hparams.integer("sliding_window"))

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name.endswith("embed_tokens.weight"):
            tensor = take(tensor, slice(self.hparams.integer("vocab_size")))
        elif name.endswith("norm.weight"):
            tensor = plus_one(tensor)
        yield name, tensor

    def vocab(self) -> Vocab | None:
        vocab = super().vocab()
        if vocab is None or vocab.model != "llama":
            return vocab
        return attrs.evolve(vocab, add_space_prefix=False)


@register("Gemma3TextModel")
class EmbeddingGemma(Gemma3):
    """Looks both ways, pools, and has two dense layers behind."""

    gguf_name = "gemma-embedding"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        for layer in dense_layers(self.checkpoint):
            meta.u32(f".{_dense_name(layer.folder)}_feat_in", layer.n_in)
            meta.u32(f".{_dense_name(layer.folder)}_feat_out", layer.n_out)
        write_pooling(meta, self.checkpoint, self.hparams)

    def keep(self, name: str) -> str | None:
        kept = super().keep(name)
        return kept if kept is None or kept.startswith("model.") else f"model.{kept}"

    def extra(self) -> Iterable[NamedTensor]:
        for layer in dense_layers(self.checkpoint):
            yield f"{_dense_name(layer.folder)}.weight", layer.weight


def _dense_name(folder: str) -> str:
    return "dense_2" if folder == "2_Dense" else "dense_3"


@register("Gemma3ForConditionalGeneration", projector=True)
class Gemma3Vision(Projector):
    """SigLIP, average pooling, a norm and one matrix."""

    projector_type = "gemma3"
    prefixes = ("multi_modal_projector.", "vision_tower.", "multimodal_projector.", "vision_model.")
    skipped = r"vision_model\.head\."

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.f32(
            ".vision.attention.layer_norm_epsilon",
            self.vision.number("layer_norm_eps", default=1e-6),
        )
        meta.flag(".use_gelu", value=True)
        side = math.isqrt(self.processor.integer("image_seq_length", default=256))
        n_patches = self.vision.integer("image_size") // self.vision.integer("patch_size")
        scale = n_patches // max(side, 1)
        if scale not in (0, _USUAL_SCALE):
            meta.u32(".vision.projector.scale_factor", scale)

    def keep(self, name: str) -> str | None:
        name = name.removeprefix("model.").replace("vision_tower.vision_model.", "vision_tower.")
        name = name.replace("vision_tower.", "vision_tower.vision_model.")  # newer files lack it
        kept = super().keep(name)
        return None if kept is None else kept.replace("_weight", ".weight")

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        yield name, plus_one(tensor) if "soft_emb_norm.weight" in name else tensor

    def forced_type(self, name: str, tensor: RowReader) -> str | None:
        if name.startswith("mm.input_projection"):
            return "F16"
        if "_embd" in name:
            return "F32"
        return super().forced_type(name, tensor)
