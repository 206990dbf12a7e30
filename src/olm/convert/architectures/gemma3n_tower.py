"""The towers of Gemma 3n that see (MobileNet 5) and hear, in one file: projectors `gemma3nv` and `gemma3na`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Final

from olm.checkpoint.types import RowReader
from olm.convert.architecture import NamedTensor
from olm.convert.hparams import Hparams
from olm.convert.metadata import Metadata
from olm.convert.projector import Projector
from olm.convert.registry import register
from olm.convert.tower_parts import unsqueeze

__all__ = ["Gemma3nTowers"]

_IMAGE_SIZE: Final = 768
_N_IMAGE_TOKENS: Final = 256
_N_LAYERS: Final = 128  # nobody reads it: MobileNet's blocks are told by their tensors
_WIDENING: Final = 4
_BLOCKS: Final = "model.vision_tower.timm_model.blocks.{bid}.{sid}."
_BLOCK_PARTS: Final = (
    "conv_exp",
    "bn1",
    "conv_pwl",
    "bn2",
    "dw_start.conv",
    "dw_start.bn",
    "dw_mid.conv",
    "dw_mid.bn",
    "pw_exp.conv",
    "pw_exp.bn",
    "pw_proj.conv",
    "pw_proj.bn",
    "layer_scale.gamma",
    "attn.query.proj",
    "attn.key.proj",
    "attn.key.down_conv",
    "attn.key.norm",
    "attn.value.proj",
    "attn.value.down_conv",
    "attn.value.norm",
    "attn.output.proj",
    "norm",
)
_F16: Final = "a.pre_encode.out."
_CONVOLUTIONS: Final = ("a.conv1d.", "v.conv_stem.")


@register("Gemma3nForConditionalGeneration", projector=True)
class Gemma3nTowers(Projector):
    """Pictures are not normalized: the network does that."""

    has_audio = True
    vision_defaults: ClassVar[Mapping[str, object]] = {"hidden_size": 2048}
    audio_defaults: ClassVar[Mapping[str, object]] = {
        "hidden_size": 1536,
        "conf_num_hidden_layers": 12,
        "conf_num_attention_heads": 8,
        "input_feat_size": 128,
    }
    prefixes = (
        "model.vision_tower.",
        "model.embed_vision.",
        "model.audio_tower.",
        "model.embed_audio.",
    )
    names: ClassVar[Mapping[str, str]] = {
        **{_BLOCKS + part: f"v.blk.{{bid}}.{{sid}}.{part}" for part in _BLOCK_PARTS},
        # llama.cpp's converter has names for these norms that no checkpoint uses.
        "model.audio_tower.subsample_conv_projection.conv_0.norm": "a.conv1d.0.norm",
        "model.audio_tower.subsample_conv_projection.conv_1.norm": "a.conv1d.1.norm",
    }

    def read_processor(self, found: Hparams) -> Hparams:
        return found.with_values(image_mean=[0.0, 0.0, 0.0], image_std=[1.0, 1.0, 1.0])

    def read_vision(self, found: Hparams) -> Hparams:
        size = self.processor.table("size").integer("height", default=_IMAGE_SIZE)
        n_tokens = self.processor.integer("image_seq_length", default=_N_IMAGE_TOKENS)
        return found.with_values(
            n_layers=_N_LAYERS,
            intermediate_size=found.integer("intermediate_size", default=2048) * _WIDENING,
            num_attention_heads=found.integer("num_attention_heads", default=8),
            image_size=size,
            patch_size=size // max(n_tokens, 1),
        )

    def read_audio(self, found: Hparams) -> Hparams:
        return found.with_values(
            n_layers=found.get("conf_num_hidden_layers"),
            num_attention_heads=found.get("conf_num_attention_heads"),
            intermediate_size=found.integer("intermediate_size", default=6144),
        )

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.text(".vision.projector_type", "gemma3nv")
        eps = self.vision.number("layer_norm_eps", default=1e-6)
        meta.f32(".vision.attention.layer_norm_epsilon", eps)
        meta.text(".audio.projector_type", "gemma3na")
        meta.u32(".audio.num_mel_bins", self.audio.integer("input_feat_size"))
        meta.f32(".audio.attention.layer_norm_epsilon", 1e-5)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name.endswith("conv_stem.conv.bias"):
            tensor = unsqueeze(tensor, 2, 1)
        yield name.replace("model.audio_tower.conformer.", "conformer.layers."), tensor

    def forced_type(self, name: str, tensor: RowReader) -> str | None:
        if len(tensor.shape) > 1 and name.startswith(_F16):
            return "F16"
        if name.startswith(_CONVOLUTIONS) or ".conv_dw." in name:
            return "F32"
        return super().forced_type(name, tensor)
