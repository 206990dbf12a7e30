"""Kimi VL's tower, MoonViT: a projector `kimivl`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from olm.checkpoint.types import RowReader
from olm.convert.architecture import NamedTensor
from olm.convert.hparams import Hparams
from olm.convert.lazy import reshape
from olm.convert.metadata import Metadata
from olm.convert.projector import Projector
from olm.convert.registry import register
from olm.convert.tower_parts import thirds

__all__ = ["KimiVlVision"]

_IMAGE_SIZE: Final = 64 * 14  # the grid of positions, in pixels
_MERGED: Final = 2  # patches along each side that become one


@register("KimiVLForConditionalGeneration", projector=True)
class KimiVlVision(Projector):
    """Positions are a grid."""

    projector_type = "kimivl"
    prefixes = ("vision_tower.", "multi_modal_projector.")

    def read_vision(self, found: Hparams) -> Hparams:
        return found.with_values(image_size=_IMAGE_SIZE)

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.flag(".use_gelu", value=True)
        meta.u32(".vision.projector.scale_factor", _MERGED)
        eps = self.vision.number("layer_norm_eps", default=1e-5)
        meta.f32(".vision.attention.layer_norm_epsilon", eps)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name.endswith("pos_emb.weight"):
            tensor = reshape(tensor, (-1, tensor.shape[-1]))
        if "wqkv" not in name:
            yield name, tensor
            return
        for letter, part in zip("qkv", thirds(tensor), strict=True):
            yield name.replace("wqkv", f"w{letter}"), part
