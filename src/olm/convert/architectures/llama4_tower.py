"""The tower of Llama 4: a projector `llama4`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from olm.checkpoint.types import RowReader
from olm.convert.architecture import NamedTensor
from olm.convert.metadata import Metadata
from olm.convert.projector import Projector
from olm.convert.registry import register
from olm.convert.tower_parts import write_activation
from olm.errors import CheckpointError

__all__ = ["Llama4Vision"]


@register("Llama4ForConditionalGeneration", projector=True)
class Llama4Vision(Projector):
    """Neighbouring patches are joined before the projector, which is one matrix."""

    projector_type = "llama4"
    vision_defaults: ClassVar[Mapping[str, object]] = {
        "hidden_size": 768,
        "intermediate_size": 5632,
        "num_hidden_layers": 34,
        "num_attention_heads": 16,
        "image_size": 448,
        "patch_size": 14,
    }
    prefixes = ("multi_modal_projector.", "vision_model.")

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        eps = self.vision.number("norm_eps", default=1e-5)
        meta.f32(".vision.attention.layer_norm_epsilon", eps)
        ratio = self.vision.number("pixel_shuffle_ratio", default=0.5)
        if not 0 < ratio <= 1:
            raise CheckpointError(f"{self.vision.where}: 'pixel_shuffle_ratio' is {ratio}")
        meta.u32(".vision.projector.scale_factor", int(1 / ratio))
        write_activation(meta, self.vision, self.vision.text("hidden_act", default="gelu"))

    def keep(self, name: str) -> str | None:
        kept = super().keep(name.removeprefix("model."))
        is_bare = kept is not None and kept.endswith("positional_embedding_vlm")
        return f"{kept}.weight" if is_bare else kept

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        yield name.replace("multi_modal_projector.linear_1", "mm.model.fc"), tensor
