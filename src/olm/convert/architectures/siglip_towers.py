"""Towers made of SigLIP 2, whose patch embedding is a matrix: those of LFM2 VL and Phi 4. Projectors `lfm2` and `phi4`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import ClassVar, Final

from olm.checkpoint.types import RowReader
from olm.convert.architecture import NamedTensor
from olm.convert.hparams import Hparams
from olm.convert.metadata import Metadata
from olm.convert.projector import Projector
from olm.convert.registry import register
from olm.convert.tower_parts import patch_kernel
from olm.errors import CheckpointError

__all__ = ["Lfm2VlVision", "Phi4Vision"]

_LFM2_IMAGE: Final = 256  # pictures may have any size; llama.cpp wants one
_LFM2_PATCH: Final = 16
_SIGLIP2: Final[Mapping[str, object]] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "patch_size": 16,
}
_LAYER: Final = re.compile(r"\.layers\.(\d+)\.")


@register("Lfm2VlForConditionalGeneration", projector=True)
class Lfm2VlVision(Projector):
    """The layer whose features are used may be an earlier one than the last."""

    projector_type = "lfm2"
    vision_defaults: ClassVar[Mapping[str, object]] = _SIGLIP2
    prefixes = ("vision_tower.", "multi_modal_projector.")

    def read_vision(self, found: Hparams) -> Hparams:
        return found.with_values(image_size=_LFM2_IMAGE)

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        eps = self.vision.number("layer_norm_eps", default=1e-6)
        meta.f32(".vision.attention.layer_norm_epsilon", eps)
        factor = self.hparams.integer("downsample_factor", default=2)
        meta.u32(".vision.projector.scale_factor", factor)
        meta.flag(".use_gelu", value=True)
        last = int(self.hparams.number("vision_feature_layer", default=-1))
        n_layers = self.vision.integer("num_hidden_layers")
        if not -n_layers <= last < 0:
            raise CheckpointError(
                f"{self.hparams.where}: 'vision_feature_layer' {last} is no layer"
            )
        meta.u32(".vision.block_count", n_layers + last + 1)

    def keep(self, name: str) -> str | None:
        name = name.removeprefix("model.").replace("vision_tower.vision_model.", "vision_tower.")
        name = name.replace("vision_tower.", "vision_tower.vision_model.")  # newer files lack it
        return super().keep(name)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        is_patch = name.endswith("patch_embedding.weight")
        yield name, patch_kernel(tensor, _LFM2_PATCH) if is_patch else tensor


@register("Phi4ForCausalLMV", projector=True)
class Phi4Vision(Projector):
    """Features of the layer before the last; so the last is left out, and the norm behind it."""

    projector_type = "phi4"
    prefixes = ("vision_tower.", "mm_projector.")
    skipped = r"\.vision_model\.(head|post_layernorm)\."
    names: ClassVar[Mapping[str, str]] = {"mm_projector.{bid}": "mm.{bid}"}

    def read_vision(self, found: Hparams) -> Hparams:
        n_layers = found.find_integer("num_hidden_layers")
        patch = self.processor.find_integer("patch_size")
        if n_layers is None or patch is None:
            return found
        return found.with_values(
            num_hidden_layers=max(n_layers - 1, 0),
            patch_size=patch,
            image_size=self._n_side() * patch,
        )

    def _n_side(self) -> int:
        """Patches along each side of the grid of positions."""
        wanted = "vision_model.embeddings.position_embedding.weight"
        tables = [t for name, t in self.checkpoint.tensors.items() if name.endswith(wanted)]
        n_positions = tables[0].shape[0] if tables else 0
        side = math.isqrt(n_positions)
        if side * side != n_positions:
            raise CheckpointError(f"{n_positions} positions are no square")
        return side

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        for key, name in (
            (".vision.image_min_pixels", "min_num_patches"),
            (".vision.image_max_pixels", "max_num_patches"),
        ):
            said = self.processor.find_integer(name)
            n_patches = self.hparams.integer(name) if said is None else said
            meta.u32(key, n_patches * self.vision.integer("patch_size") ** 2)
        meta.flag(".use_gelu", value=True)
        eps = self.vision.number("layer_norm_eps", default=1e-6)
        meta.f32(".vision.attention.layer_norm_epsilon", eps)

    def keep(self, name: str) -> str | None:
        name = name.removeprefix("model.").replace("vision_tower.vision_tower.", "vision_tower.")
        layer = _LAYER.search(name)
        if layer and int(layer[1]) >= self.vision.integer("num_hidden_layers"):
            return None
        return super().keep(name)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name.endswith("vision_model.embeddings.patch_embedding.weight"):
            tensor = patch_kernel(tensor, self.vision.integer("patch_size"))
        yield name, tensor
