"""InternVL's tower: a projector `internvl`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from olm.checkpoint.types import RowReader
from olm.convert.architecture import NamedTensor
from olm.convert.hparams import Hparams
from olm.convert.metadata import Metadata
from olm.convert.projector import Projector
from olm.convert.registry import register
from olm.convert.tower_parts import thirds, write_activation
from olm.errors import CheckpointError

__all__ = ["InternVision"]

_BARE: Final = (".ls", ".lambda_", "position_embedding")  # names that lack their `.weight`
_QKV: Final = "attn.qkv"
_MERGER: Final = {
    "model.multi_modal_projector.layer_norm.": "mlp1.0.",
    "model.multi_modal_projector.linear_1.": "mlp1.1.",
    "model.multi_modal_projector.linear_2.": "mlp1.3.",
}


@register("InternVLChatModel", "InternVLForConditionalGeneration", projector=True)
class InternVision(Projector):
    """Layers are scaled; neighbouring patches are joined before two matrices. Pictures are cut into tiles."""

    projector_type = "internvl"
    prefixes = ("vision_tower.", "mlp", "model.vision_tower.")

    def read_vision(self, found: Hparams) -> Hparams:
        sides = ("image_size", "patch_size")
        return found.with_values(
            **{k: found.integers(k)[0] for k in sides if isinstance(found.get(k), list)}
        )

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        eps = self.vision.number("layer_norm_eps", default=1e-6)
        meta.f32(".vision.attention.layer_norm_epsilon", eps)
        write_activation(meta, self.vision, self.vision.text("hidden_act", default="gelu"))
        ratio = self.hparams.number("downsample_ratio")
        if not 0 < ratio <= 1:
            raise CheckpointError(f"{self.hparams.where}: 'downsample_ratio' is {ratio}")
        meta.u32(".vision.projector.scale_factor", int(1 / ratio))
        for key, name in (
            (".vision.preproc_min_tiles", "min_dynamic_patch"),
            (".vision.preproc_max_tiles", "max_dynamic_patch"),
        ):
            n_tiles = self.hparams.integer(name, default=0)
            if n_tiles > 0:
                meta.u32(key, n_tiles)

    def keep(self, name: str) -> str | None:
        for old, new in _MERGER.items():
            name = name.replace(old, new)
        if name.startswith("vision_model"):
            name = f"vision_tower.{name}"
        if any(part in name for part in _BARE) and not name.endswith(".weight"):
            name = f"{name}.weight"
        return super().keep(name)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if f".{_QKV}." not in name:
            yield name, tensor
            return
        for letter, part in zip("qkv", thirds(tensor), strict=True):
            yield name.replace(_QKV, f"self_attn.{letter}_proj"), part
