"""The two towers of DeepSeek OCR, SAM and CLIP, one behind the other: a projector `deepseekocr`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from olm.checkpoint.types import RowReader
from olm.convert.architecture import NamedTensor
from olm.convert.hparams import Hparams
from olm.convert.lazy import reshape
from olm.convert.metadata import Metadata
from olm.convert.projector import Projector
from olm.convert.registry import register
from olm.errors import CheckpointError

__all__ = ["DeepseekOcrVision"]

_BARE: Final = ("pos_embed", "rel_pos_h", "rel_pos_w")  # names that lack their `.weight`
_N_IMAGE_TOKENS: Final = 256
_USUAL_SCALE: Final = 4  # others are said
_MIN_TILES: Final = 2
_MAX_TILES: Final = {"DeepseekOCRForCausalLM": 9, "UnlimitedOCRForCausalLM": 32}
_F32: Final = (
    "v.patch_embd.",
    "v.position_embd.",
    "v.sam.pos_embd.",
    ".attn.pos_h.",
    ".attn.pos_w.",
    "v.sam.neck.",
    "v.sam.net_",
)


@register(*_MAX_TILES, projector=True)
class DeepseekOcrVision(Projector):
    """The settings of both towers stand in a table called `width`."""

    projector_type = "deepseekocr"
    prefixes = (
        "model.sam_model.",
        "model.vision_model.",
        "model.projector.",
        "model.image_newline",
        "model.view_seperator",
    )

    def read_vision(self, found: Hparams) -> Hparams:
        if not found.values:
            return found
        widths = found.table("width")
        merged = found.with_values(
            sam=widths.table("sam_vit_b").values, **widths.table("clip-l-14-224").values
        )
        heads = merged.find_integer("heads")
        # As llama.cpp's converter has it, though a feed-forward is wider; its reader does not ask.
        return merged if heads is None else merged.with_values(intermediate_size=heads * 4)

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        eps = self.vision.number("layer_norm_eps", default=1e-6)
        meta.f32(".vision.attention.layer_norm_epsilon", eps)
        meta.flag(".use_gelu", value=True)
        scale = self._scale()
        if scale not in (0, _USUAL_SCALE):
            meta.u32(".vision.projector.scale_factor", scale)
        meta.u32(".vision.window_size", self.vision.integer("window_size", default=14))
        meta.u32(".vision.preproc_min_tiles", _MIN_TILES)
        meta.u32(".vision.preproc_max_tiles", _MAX_TILES[self.hparams.texts("architectures")[0]])
        sam = self.vision.table("sam")
        meta.u32(".vision.sam.block_count", sam.integer("layers"))
        meta.u32(".vision.sam.embedding_length", sam.integer("width"))
        meta.u32(".vision.sam.head_count", sam.integer("heads"))

    def _scale(self) -> int:
        """How many patches along a side become one."""
        side = math.isqrt(self.processor.integer("image_seq_length", default=_N_IMAGE_TOKENS))
        patch = self.vision.integer("patch_size")
        if not side or not patch:
            raise CheckpointError(f"{self.vision.where}: pictures of no patches")
        return self.vision.integer("image_size") // patch // side

    def keep(self, name: str) -> str | None:
        return super().keep(f"{name}.weight" if name.endswith(_BARE) else name)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        is_separator = name.endswith("view_seperator")
        yield name, reshape(tensor, (1, *tensor.shape)) if is_separator else tensor

    def forced_type(self, name: str, tensor: RowReader) -> str | None:
        if name.startswith(_F32) or any(part in name for part in _F32):
            return "F32"
        return super().forced_type(name, tensor)
