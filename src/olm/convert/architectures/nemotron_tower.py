"""The towers of Nemotron Nano VL and Omni: RADIO, a projector `nemotron_v2_vl`; and Parakeet, which hears, `parakeet`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import ClassVar, Final

import numpy as np

from olm.checkpoint.types import RowReader
from olm.convert.architecture import NamedTensor
from olm.convert.hparams import Hparams
from olm.convert.lazy import constant, read_all, reshape, widen
from olm.convert.metadata import Metadata
from olm.convert.projector import Projector
from olm.convert.registry import register
from olm.convert.tower_parts import unsqueeze
from olm.errors import CheckpointError

__all__ = ["NemotronTowers"]

# RADIO v2.5-h is ViT-Huge, which its config does not say.
_VIT: Final = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
}
_IMAGE_SIZE: Final = 512
_PICTURES: Final = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_LAYER: Final = "sound_encoder.encoder.layers.{bid}."
_SOUND: Final = {
    "norm_feed_forward1": "ffn_norm",
    "feed_forward1.linear1": "ffn_up",
    "feed_forward1.linear2": "ffn_down",
    "norm_feed_forward2": "ffn_norm_1",
    "feed_forward2.linear1": "ffn_up_1",
    "feed_forward2.linear2": "ffn_down_1",
    "norm_self_att": "ln1",
    "norm_out": "ln2",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_out",
    "self_attn.relative_k_proj": "linear_pos",
    "self_attn.bias_u": "pos_bias_u",
    "self_attn.bias_v": "pos_bias_v",
    "norm_conv": "norm_conv",
    "conv.norm": "conv_norm",
    "conv.norm.running_mean": "conv_norm_mean",
    "conv.norm.running_var": "conv_norm_var",
    "conv.depthwise_conv": "conv_dw",
    "conv.pointwise_conv1": "conv_pw1",
    "conv.pointwise_conv2": "conv_pw2",
}


@register("NemotronH_Nano_VL_V2", "NemotronH_Nano_Omni_Reasoning_V3", projector=True)
class NemotronTowers(Projector):
    """Positions are those of a larger grid, scaled down to one size of pictures. Videos are left out."""

    prefixes = ("vision_model.radio_model.model.", "mlp1.", "sound_encoder.", "sound_projection.")
    skipped = r"input_conditioner|patch_generator\.video_embedder|conv\.norm\.num_batches"
    names: ClassVar[Mapping[str, str]] = {
        **{_LAYER + old: f"a.blk.{{bid}}.{new}" for old, new in _SOUND.items()},
        "sound_encoder.encoder.subsampling.layers.{bid}": "a.conv1d.{bid}",
        "sound_encoder.encoder.subsampling.linear": "a.pre_encode.out",
        "sound_encoder.encoder.feature_extractor.featurizer.fb": "a.mel_filters",
        "sound_encoder.encoder.feature_extractor.featurizer.window": "a.window",
        "sound_projection.norm": "mm.a.norm_pre",
        "sound_projection.linear1": "mm.a.mlp.1",
        "sound_projection.linear2": "mm.a.mlp.2",
    }

    def read_processor(self, found: Hparams) -> Hparams:
        return found.with_values(**{k: v for k, v in _PICTURES.items() if k not in found})

    def read_vision(self, found: Hparams) -> Hparams:
        size = self.hparams.integer("force_image_size", default=_IMAGE_SIZE)
        return found.with_values(image_size=size, **_VIT)

    def read_audio(self, found: Hparams) -> Hparams:
        sound = self.hparams.table("sound_config")
        self.has_audio = bool(sound.values)
        return sound

    def projector_name(self) -> str:
        return "" if self.has_audio else "nemotron_v2_vl"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        if self.has_audio:
            meta.text(".vision.projector_type", "nemotron_v2_vl")
            meta.text(".audio.projector_type", "parakeet")
            for key in ("num_mel_bins", "subsampling_factor", "conv_kernel_size"):
                meta.u32(f".audio.{key}", self.audio.integer(key))
            meta.f32(".audio.attention.layer_norm_epsilon", 1e-5)
        meta.f32(".vision.attention.layer_norm_epsilon", 1e-6)
        meta.flag(".use_gelu", value=True)
        ratio = self.hparams.number("downsample_ratio", default=0.5)
        if not 0 < ratio <= 1:
            raise CheckpointError(f"{self.hparams.where}: 'downsample_ratio' is {ratio}")
        meta.u32(".vision.projector.scale_factor", int(1 / ratio))

    def keep(self, name: str) -> str | None:
        kept = super().keep(name)
        is_bare = kept is not None and kept.endswith("patch_generator.pos_embed")
        return f"{kept}.weight" if is_bare else kept

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name.startswith("sound_encoder."):
            tensor = _heard(name, tensor)
        elif "patch_generator.pos_embed" in name:
            tensor = self._positions(tensor)
        elif "patch_generator.embedder" in name:
            side = self.vision.integer("patch_size")
            tensor = reshape(tensor, (tensor.shape[0], 3, side, side))
        yield name, tensor

    def _positions(self, table: RowReader) -> RowReader:
        """[1, n * n, width] -> as many positions as pictures have patches."""
        wanted = self.vision.integer("image_size") // max(self.vision.integer("patch_size"), 1)
        side = math.isqrt(table.shape[1]) if len(table.shape) == 3 else 0
        if not wanted or side * side != math.prod(table.shape[:-1]):
            raise CheckpointError(f"{table.shape} is no square of positions")
        if wanted == side:
            return table
        grid = np.asarray(read_all(widen(table)), np.float32).reshape(side, side, -1)
        scaled = _resized(_resized(grid, wanted).swapaxes(0, 1), wanted).swapaxes(0, 1)
        return constant(scaled.reshape(1, wanted * wanted, -1))

    def forced_type(self, name: str, tensor: RowReader) -> str | None:
        hears = name.startswith(("a.", "mm.a."))
        if hears and any(part in name for part in ("bias", "norm", "conv")):
            return "F32"
        return super().forced_type(name, tensor)


def _heard(name: str, tensor: RowReader) -> RowReader:
    """Kernels and biases of convolutions as ggml multiplies and adds them."""
    if name.endswith("depthwise_conv.weight"):
        return reshape(tensor, (1, tensor.shape[1], tensor.shape[0], tensor.shape[2]))
    is_pointwise = "pointwise_conv" in name
    if is_pointwise and name.endswith(".weight") and tensor.shape[2:] == (1,):
        return reshape(tensor, tensor.shape[:2])
    if name.endswith(".bias") and (is_pointwise or "subsampling.layers" in name):
        return unsqueeze(tensor, 2, 1)
    return tensor


def _resized(
    rows: np.ndarray[tuple[int, ...], np.dtype[np.float32]], n: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Interpolate linearly along the first dimension, the ends staying where they are."""
    at = np.linspace(0, len(rows) - 1, n)
    low = at.astype(np.int64)
    high = np.minimum(low + 1, len(rows) - 1)
    part = (at - low)[:, None, None]
    return (rows[low] * (1 - part) + rows[high] * part).astype(np.float32)
