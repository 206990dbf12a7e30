"""The towers of Qwen 3 VL, Qwen 3.5 and GLM 4V: projectors `qwen3vl_merger` and `glm4v`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import ClassVar, Final

from olm.checkpoint.types import RowReader
from olm.convert.architecture import NamedTensor
from olm.convert.hparams import Hparams
from olm.convert.metadata import Metadata
from olm.convert.projector import Projector
from olm.convert.registry import register
from olm.convert.tower_parts import FRAME_NAMES, frame_kernels
from olm.errors import CheckpointError

__all__ = ["Glm4VVision", "Qwen3VlVision"]

_N_POSITIONS: Final = 2304
_PATCH_SIZE: Final = 16
_DEEPSTACK: Final = "visual.deepstack_merger_list."
_DEEPSTACK_PARTS: Final = {"norm": "norm", "linear_fc1": "fc1", "linear_fc2": "fc2"}


class _QwenTower(Projector):
    """Patches span two frames; layers that Transformers keeps in `visual`."""

    prefixes = ("visual.",)
    names: ClassVar[Mapping[str, str]] = FRAME_NAMES

    def read_vision(self, found: Hparams) -> Hparams:
        if "image_size" in found:
            return found
        n_positions = found.integer("num_position_embeddings", default=_N_POSITIONS)
        patch = found.integer("patch_size", default=_PATCH_SIZE)
        return found.with_values(image_size=int(math.sqrt(n_positions) * patch))

    def keep(self, name: str) -> str | None:
        return super().keep(name.removeprefix("model."))

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name == "visual.patch_embed.proj.weight":
            yield from frame_kernels(tensor)
        else:
            yield name, tensor


@register(
    "Qwen3VLForConditionalGeneration",
    "Qwen3VLMoeForConditionalGeneration",
    "Qwen3_5ForConditionalGeneration",
    "Qwen3_5MoeForConditionalGeneration",
    projector=True,
)
class Qwen3VlVision(_QwenTower):
    """Some layers' features go past the others, into the first layers of the language model ("deepstack")."""

    projector_type = "qwen3vl_merger"
    vision_defaults: ClassVar[Mapping[str, object]] = {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "patch_size": 16,
        "depth": 27,
        "num_heads": 16,
        "spatial_merge_size": 2,
    }
    names: ClassVar[Mapping[str, str]] = {
        **FRAME_NAMES,
        "visual.merger.norm": "v.post_ln",
        "visual.merger.linear_fc1": "mm.0",
        "visual.merger.linear_fc2": "mm.2",
    }

    @property
    def deepstack(self) -> tuple[int, ...]:
        """The layers whose features are passed on."""
        return self.vision.integers("deepstack_visual_indexes")

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.flag(".use_gelu", value=True)
        merge = self.vision.find_integer("spatial_merge_size")
        if merge is not None:
            meta.u32(".vision.spatial_merge_size", merge)
        eps = self.towers.table("text_config").number("rms_norm_eps", default=1e-6)
        meta.f32(".vision.attention.layer_norm_epsilon", eps)
        n_layers = self.vision.integer("depth")
        if any(index >= n_layers for index in self.deepstack):
            raise CheckpointError(
                f"{self.vision.where}: 'deepstack_visual_indexes' {list(self.deepstack)} of {n_layers} layers"
            )
        meta.flags(".vision.is_deepstack_layers", [i in self.deepstack for i in range(n_layers)])

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name.startswith(_DEEPSTACK):
            yield self._deepstack_name(name.removeprefix(_DEEPSTACK)), tensor
        else:
            yield from super().modify(name, tensor)

    def _deepstack_name(self, rest: str) -> str:
        """`1.linear_fc1.weight` of the list -> that of the layer which the list means."""
        place, _, inner = rest.partition(".")
        part, _, suffix = inner.partition(".")
        if not place.isdecimal() or int(place) >= len(self.deepstack):
            raise CheckpointError("there is no such entry in 'deepstack_visual_indexes'")
        if part not in _DEEPSTACK_PARTS:
            raise CheckpointError("unknown part of a deepstack merger")
        return f"v.deepstack.{self.deepstack[int(place)]}.{_DEEPSTACK_PARTS[part]}.{suffix}"


@register(
    "Glm4vForConditionalGeneration",
    "Glm4vMoeForConditionalGeneration",
    "GlmOcrForConditionalGeneration",
    projector=True,
)
class Glm4VVision(_QwenTower):
    """RMS norms, a gated feed-forward, and a merger with one more matrix."""

    projector_type = "glm4v"
    vision_defaults: ClassVar[Mapping[str, object]] = {
        "image_size": 336,
        "patch_size": 14,
        "depth": 24,
        "hidden_act": "silu",
    }

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        activation = self.vision.text("hidden_act", default="").lower()
        if activation in ("gelu", "silu"):
            meta.flag(f".use_{activation}", value=True)
        eps = self.vision.number("rms_norm_eps", default=1e-5)
        meta.f32(".vision.attention.layer_norm_epsilon", eps)
