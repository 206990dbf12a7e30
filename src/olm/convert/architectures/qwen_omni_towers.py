"""The towers of Qwen 2.5 Omni that see and hear, in one file: a projector `qwen2.5o`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import numpy as np

from olm.checkpoint.types import RowReader
from olm.convert.architecture import NamedTensor
from olm.convert.architectures.qwen_vl_vision import Qwen2VlVision
from olm.convert.hparams import Hparams
from olm.convert.lazy import constant
from olm.convert.metadata import Metadata
from olm.convert.registry import register
from olm.convert.tower_parts import unsqueeze
from olm.errors import CheckpointError

__all__ = ["QwenOmniTowers"]

_N_POSITIONS: Final = 1500
_LONGEST: Final = 10000


@register("Qwen2_5OmniModel", "Qwen2_5OmniForConditionalGeneration", projector=True)
class QwenOmniTowers(Qwen2VlVision):
    """Qwen 2.5 VL's tower and Whisper's encoder, whose positions are sines that no file holds."""

    projector_type = "qwen2.5o"
    has_audio = True
    prefixes = ("visual.", "audio_tower.")
    skipped = r"audio_bos_eos_token"

    @property
    def is_newer(self) -> bool:
        return True

    @property
    def towers(self) -> Hparams:
        return self.hparams.table("thinker_config")

    def projector_name(self) -> str:
        return self.projector_type

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.u32(".audio.num_mel_bins", self.audio.integer("num_mel_bins"))
        eps = self.audio.number("layer_norm_eps", default=1e-5)
        meta.f32(".audio.attention.layer_norm_epsilon", eps)

    def keep(self, name: str) -> str | None:
        return super().keep(name.removeprefix("thinker."))

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name.startswith("visual."):
            yield from super().modify(name, tensor)
        else:
            is_column = name.endswith(("conv1.bias", "conv2.bias"))
            yield name, unsqueeze(tensor, 1) if is_column else tensor

    def extra(self) -> Iterable[NamedTensor]:
        half = self.audio.integer("d_model") // 2
        if half < 2:
            raise CheckpointError(f"{self.audio.where}: 'd_model' is too small")
        yield "a.position_embd.weight", constant(_sines(half))

    def forced_type(self, name: str, tensor: RowReader) -> str | None:
        is_kernel = name.startswith("a.conv1d.") and name.endswith(".weight")
        return "F16" if is_kernel else super().forced_type(name, tensor)


def _sines(half: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Positions by `half` sines, then as many cosines, their wavelengths geometric up to 10000 (Whisper)."""
    step = math.log(_LONGEST) / (half - 1)
    # Frequencies and angles are f32 as in training; what is made of them is rounded once.
    powers = np.float32(-step) * np.arange(half, dtype=np.float32)
    frequencies = np.exp(powers.astype(np.float64)).astype(np.float32)
    angles = np.arange(_N_POSITIONS, dtype=np.float32)[:, None] * frequencies
    exact = angles.astype(np.float64)
    return np.concatenate([np.sin(exact), np.cos(exact)], axis=1).astype(np.float32)
