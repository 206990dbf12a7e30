"""The tower of Idefics 3 and SmolVLM: a projector `idefics3`; and their language models, of Llama's shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from olm.checkpoint.types import RowReader
from olm.convert.architectures.llama import Llama
from olm.convert.hparams import Hparams
from olm.convert.metadata import Metadata
from olm.convert.projector import Projector
from olm.convert.registry import register

__all__ = ["Idefics3Text", "Idefics3Vision"]

_NAMES: Final = ("Idefics3ForConditionalGeneration", "SmolVLMForConditionalGeneration")
# What published configs of SmolVLM 2 leave out (Transformers, configuration_smolvlm.py).
_DEFAULTS: Final = {"hidden_size": 1152, "num_attention_heads": 16, "intermediate_size": 3072}


@register("VLlama3ForCausalLM", *_NAMES)
class Idefics3Text(Llama):
    """Llama's layers under `model.text_model`."""

    def keep(self, name: str) -> str | None:
        return super().keep(name.replace("text_model.", ""))


@register(*_NAMES, projector=True)
class Idefics3Vision(Projector):
    """SigLIP, whose neighbouring patches are joined before the one matrix of the projector."""

    projector_type = "idefics3"
    prefixes = ("model.vision_model.", "model.connector.", "vision_tower.", "vision_model.")

    def read_vision(self, found: Hparams) -> Hparams:
        if found.get("model_type") != "smolvlm_vision":
            return found
        return found.with_values(**_missing(found, _DEFAULTS))

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


def _missing(found: Hparams, defaults: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in defaults.items() if name not in found}
