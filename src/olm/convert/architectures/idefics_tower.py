"""The tower of Idefics 3 and SmolVLM: a projector `idefics3`; and their language models, of Llama's shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from olm.checkpoint.types import RowReader
from olm.convert.architectures.llama import Llama
from olm.convert.metadata import Metadata
from olm.convert.projector import Projector
from olm.convert.registry import register

__all__ = ["Idefics3Text", "Idefics3Vision"]

_NAMES: Final = ("Idefics3ForConditionalGeneration", "SmolVLMForConditionalGeneration")


@register("VLlama3ForCausalLM", *_NAMES)
class Idefics3Text(Llama):
    """Llama's layers under `model.text_model`."""

    def keep(self, name: str) -> str | None:
        return super().keep(name.replace("text_model.", ""))


@register(*_NAMES, projector=True)
class Idefics3Vision(Projector):
    """SigLIP, whose neighbouring patches are joined before the one matrix of the projector."""

    projector_type = "idefics3"
    vision_defaults: ClassVar[Mapping[str, object]] = {
        "hidden_size": 1152,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 32,
        "layer_norm_eps": 1e-6,
    }
    prefixes = ("model.vision_model.", "model.connector.", "vision_tower.", "vision_model.")

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        eps = self.vision.number("layer_norm_eps", default=1e-5)
        meta.f32(".vision.attention.layer_norm_epsilon", eps)
        factor = self.hparams.integer("scale_factor", default=2)
        meta.u32(".vision.projector.scale_factor", factor)
        meta.flag(".use_gelu", value=True)
        edge = self.processor.table("size").find_integer("longest_edge")
        size = self.vision.integer("image_size") if edge is None else edge
        meta.u32(".vision.preproc_image_size", size)

    def forced_type(self, name: str, tensor: RowReader) -> str | None:
        return "F32" if name.startswith("v.patch_embd.") else super().forced_type(name, tensor)
