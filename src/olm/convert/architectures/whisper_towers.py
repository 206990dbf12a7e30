"""Towers that hear, made of Whisper's encoder: Qwen 2 Audio, Voxtral, Audio Flamingo 3. Projectors `qwen2a`, `voxtral`, `musicflamingo`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Final

from olm.checkpoint.types import RowReader
from olm.convert.architecture import NamedTensor
from olm.convert.architectures.qwen2 import Qwen2
from olm.convert.metadata import Metadata
from olm.convert.projector import Projector
from olm.convert.registry import register
from olm.convert.tower_parts import unsqueeze

__all__ = ["AudioFlamingo", "Qwen2Audio", "Qwen2AudioText", "Voxtral"]

_ENCODER: Final[Mapping[str, object]] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "num_mel_bins": 128,
}
_QWEN: Final = "Qwen2AudioForConditionalGeneration"
_FLAMINGO: Final = "AudioFlamingo3ForConditionalGeneration"


@register(_QWEN, _FLAMINGO)
class Qwen2AudioText(Qwen2):
    """The language model beside the tower."""


@register(_QWEN, projector=True)
class Qwen2Audio(Projector):
    """Biases of convolutions are columns; the kernels stay F16 in every file."""

    projector_type = "qwen2a"
    audio_defaults: ClassVar[Mapping[str, object]] = {
        "d_model": 1280,
        "encoder_layers": 32,
        "encoder_attention_heads": 20,
        "encoder_ffn_dim": 5120,
        "num_mel_bins": 128,
    }
    has_vision = False
    has_audio = True
    prefixes = ("audio_tower.", "audio.multi_modal_projector.")
    kernel_type: ClassVar[str] = "F16"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.u32(".audio.num_mel_bins", self.audio.integer("num_mel_bins"))
        eps = self.audio.number("layer_norm_eps", default=1e-5)
        meta.f32(".audio.attention.layer_norm_epsilon", eps)

    def keep(self, name: str) -> str | None:
        name = name.removeprefix("model.")
        # Else a picture's projector has the same name in the tables.
        return super().keep(f"audio.{name}" if name.startswith("multi_modal_projector.") else name)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        is_column = name.endswith(("conv1.bias", "conv2.bias"))
        yield name, unsqueeze(tensor, 1) if is_column else tensor

    def forced_type(self, name: str, tensor: RowReader) -> str | None:
        is_kernel = name.startswith("a.conv1d.") and name.endswith(".weight")
        return self.kernel_type if is_kernel else super().forced_type(name, tensor)


@register("VoxtralForConditionalGeneration", projector=True)
class Voxtral(Qwen2Audio):
    """Four steps become one. The language model is in `llava`."""

    projector_type = "voxtral"
    audio_defaults: ClassVar[Mapping[str, object]] = _ENCODER

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.u32(".audio.projector.stack_factor", 4)


@register(_FLAMINGO, projector=True)
class AudioFlamingo(Qwen2Audio):
    """Trained as BF16, so the kernels stay F32."""

    projector_type = "musicflamingo"
    audio_defaults: ClassVar[Mapping[str, object]] = _ENCODER
    kernel_type = "F32"
