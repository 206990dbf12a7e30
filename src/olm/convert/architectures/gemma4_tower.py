"""The towers of Gemma 4 that see and hear, in one file: projectors `gemma4v` and `gemma4a`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from olm.checkpoint.types import RowReader
from olm.convert.architecture import NamedTensor
from olm.convert.hparams import Hparams
from olm.convert.lazy import map_values, reshape
from olm.convert.metadata import Metadata
from olm.convert.parts import squeeze
from olm.convert.projector import Projector
from olm.convert.registry import register
from olm.convert.tower_parts import patch_kernel

__all__ = ["Gemma4Towers"]

_IMAGE_SIZE: Final = 224  # pictures may have any size; llama.cpp wants one
_N_MEL: Final = 128
_WIDENING: Final = 4  # of the feed-forward that hears
_CONVOLUTIONS: Final = ("a.conv1d.", "a.input_projection.")


@register("Gemma4ForConditionalGeneration", projector=True)
class Gemma4Towers(Projector):
    """Many layers hold limits of what goes in and comes out. Larger models cannot hear."""

    prefixes = (
        "model.vision_tower.",
        "model.embed_vision.",
        "model.audio_tower.",
        "model.embed_audio.",
    )
    vision_defaults: ClassVar[Mapping[str, object]] = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 16,
        "num_attention_heads": 12,
        "patch_size": 16,
    }
    audio_defaults: ClassVar[Mapping[str, object]] = {
        "hidden_size": 1024,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
    }

    def read_vision(self, found: Hparams) -> Hparams:
        return found.with_values(image_size=_IMAGE_SIZE)

    def read_audio(self, found: Hparams) -> Hparams:
        self.has_audio = bool(found.values)
        if "hidden_size" not in found:
            return found
        return found.with_values(intermediate_size=found.integer("hidden_size") * _WIDENING)

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.text(".vision.projector_type", "gemma4v")
        eps = self.vision.number("layer_norm_eps", default=1e-6)
        meta.f32(".vision.attention.layer_norm_epsilon", eps)
        if self.has_audio:
            meta.text(".audio.projector_type", "gemma4a")
            n_mel = self.audio.integer("input_feat_size", default=_N_MEL)
            meta.u32(".audio.num_mel_bins", n_mel)
            eps = self.audio.number("layer_norm_eps", default=1e-6)
            meta.f32(".audio.attention.layer_norm_epsilon", eps)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if not tensor.shape:
            tensor = reshape(tensor, (1,))
        hears = name.startswith(("model.audio_tower.", "model.embed_audio."))
        yield _heard(name, tensor) if hears else _seen(name, tensor)

    def forced_type(self, name: str, tensor: RowReader) -> str | None:
        if name.startswith(_CONVOLUTIONS) or ".conv_dw." in name:
            return "F32"
        return super().forced_type(name, tensor)


def _heard(name: str, tensor: RowReader) -> NamedTensor:
    name = name.replace("model.audio_tower.", "conformer.").replace(".linear.", ".")
    if name.endswith(("per_dim_key_scale", "per_dim_scale")):
        return f"{name}.weight", map_values(tensor, _softplus)
    if name.endswith("lconv1d.depthwise_conv1d.weight"):
        tensor = squeeze(tensor)
    return name, tensor


def _softplus(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """log(1 + e^x), rounded once."""
    return np.logaddexp(0, values.astype(np.float64)).astype(np.float32)


def _seen(name: str, tensor: RowReader) -> NamedTensor:
    name = name.replace("model.vision_tower.encoder.", "vision_model.model.")
    name = name.replace(".linear.", ".")
    if name.endswith(("layer_scalar", "position_embedding_table")):
        name = f"{name}.weight"
    if name.endswith("patch_embedder.input_proj.weight"):
        tensor = patch_kernel(tensor)
    return name, tensor
