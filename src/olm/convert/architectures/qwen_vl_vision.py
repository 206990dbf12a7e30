"""The tower of Qwen 2 VL and 2.5 VL: a projector `qwen2vl_merger` or `qwen2.5vl_merger`. `qwen_vl` has the language models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

from olm.checkpoint.types import RowReader
from olm.convert.architecture import NamedTensor
from olm.convert.hparams import Hparams
from olm.convert.lazy import split
from olm.convert.metadata import Metadata
from olm.convert.projector import Projector
from olm.convert.registry import register
from olm.convert.tower_parts import FRAME_NAMES, frame_kernels
from olm.errors import CheckpointError

__all__ = ["Qwen2VlVision"]

_IMAGE_SIZE: Final = 560


@register(
    "Qwen2VLModel",
    "Qwen2VLForConditionalGeneration",
    "Qwen2_5_VLForConditionalGeneration",
    projector=True,
)
class Qwen2VlVision(Projector):
    """Fused projections are cut; the patch embedding spans two frames, and becomes two."""

    prefixes: ClassVar[tuple[str, ...]] = ("visual.",)
    names = FRAME_NAMES

    @property
    def is_newer(self) -> bool:
        """2.5: windows, and a gated feed-forward."""
        return self.hparams.text("model_type", default="") == "qwen2_5_vl"

    def read_vision(self, found: Hparams) -> Hparams:
        found = found.with_values(image_size=found.integer("image_size", default=_IMAGE_SIZE))
        if "embed_dim" not in found:
            return found
        return found.with_values(
            intermediate_size=found.get("hidden_size"), hidden_size=found.get("embed_dim")
        )

    def projector_name(self) -> str:
        return "qwen2.5vl_merger" if self.is_newer else "qwen2vl_merger"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        if self.is_newer:
            meta.flag(".use_silu", value=True)
            meta.u32(".vision.n_wa_pattern", self._window_period())
        outer = Hparams(self.checkpoint.config)
        meta.f32(".vision.attention.layer_norm_epsilon", outer.number("rms_norm_eps", default=1e-6))

    def _window_period(self) -> int:
        """Every so many layers one sees all."""
        full = self.vision.integers("fullatt_block_indexes")
        period = full[0] + 1 if full else 0
        if list(full) != [(i + 1) * period - 1 for i in range(len(full))] or not period:
            raise CheckpointError(
                f"{self.vision.where}: 'fullatt_block_indexes' {list(full)} are not at equal distances"
            )
        return period

    def keep(self, name: str) -> str | None:
        return super().keep(name.removeprefix("model."))

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if ".qkv." in name:
            if tensor.shape[0] % 3:
                raise CheckpointError(f"{tensor.shape[0]} rows are no queries, keys and values")
            parts = split(tensor, [tensor.shape[0] // 3] * 3)
            for letter, part in zip("qkv", parts, strict=True):
                yield name.replace("qkv", letter), part
        elif name.endswith("patch_embed.proj.weight"):
            yield from frame_kernels(tensor)
        else:
            yield name, tensor

    def forced_type(self, name: str, tensor: RowReader) -> str | None:
        return "F32" if ".position_embd." in name else super().forced_type(name, tensor)
