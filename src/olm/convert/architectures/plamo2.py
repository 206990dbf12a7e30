"""PLaMo 2: Mamba and attention in turns. GGUF architecture `plamo2`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.lazy import map_values
from olm.convert.metadata import Metadata
from olm.convert.parts import negative_exp, squeeze
from olm.convert.registry import register

__all__ = ["Plamo2"]

_RENAMED: Final = {
    ".dt_bias": ".dt_proj.bias",
    ".dt_norm_weight": ".dt_norm.weight",
    ".B_norm_weight": ".B_norm.weight",
    ".C_norm_weight": ".C_norm.weight",
    ".k_weight": ".k.weight",
    ".q_weight": ".q.weight",
}
# Norms are stored less what they start from.
_NORMS: Final = {
    ".pre_mixer_norm.weight": 1.0,
    ".post_mixer_norm.weight": 1.0 / 5,
    ".pre_mlp_norm.weight": 1.0,
    ".post_mlp_norm.weight": 1.0 / 5**1.5,
    ".norm.weight": 1.0,
}


@register("Plamo2ForCausalLM", "PLaMo2ForCausalLM")
class Plamo2(Architecture):
    """Which layers have attention is said by `mamba_step`."""

    gguf_name = "plamo2"

    def write_keys(self, meta: Metadata) -> None:
        hparams = self.hparams
        head_dim = hparams.integer("hidden_size_per_head", default=128)
        n_mamba = hparams.integer("mamba_num_heads", default=64)
        n_kv = hparams.integer("num_key_value_heads", default=4)
        n_heads = hparams.integer("num_attention_heads", default=32)
        meta.u32(".vocab_size", hparams.integer("vocab_size"))
        if hparams.flag("mamba_enabled", default=True):
            here = [self._has_attention(layer) for layer in range(self.n_blocks)]
            meta.i32s(".attention.head_count_kv", [n_kv if attends else 0 for attends in here])
            meta.i32s(".attention.head_count", [n_heads if attends else 0 for attends in here])
        length = hparams.integer("max_position_embeddings", default=2048)
        meta.u32(".context_length", length)
        meta.u32(".embedding_length", hparams.integer("hidden_size", default=4096))
        meta.u32(".attention.key_length", head_dim)
        meta.u32(".attention.value_length", head_dim)
        meta.u32(".block_count", self.n_blocks)
        eps = hparams.number("rms_norm_eps", default=1e-6)
        meta.f32(".attention.layer_norm_rms_epsilon", eps)
        meta.f32(".rope.freq_base", self.rope.full.number("rope_theta", default=10000))
        meta.u32(".ssm.state_size", hparams.integer("mamba_d_state", default=64))
        meta.u32(".ssm.conv_kernel", hparams.integer("mamba_d_conv", default=4))
        meta.u32(".ssm.time_step_rank", n_mamba)
        meta.u32(".ssm.inner_size", n_mamba * head_dim)
        meta.u32(".ssm.group_count", 0)
        meta.u32(".feed_forward_length", hparams.integer("intermediate_size", default=13312))
        meta.u32("general.file_type", 0)

    def _has_attention(self, layer: int) -> bool:
        step = max(self.hparams.integer("mamba_step", default=2), 1)
        if self.n_blocks <= step // 2:
            return layer == self.n_blocks - 1
        return layer % step == step // 2

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        added = next((n for suffix, n in _NORMS.items() if name.endswith(suffix)), None)
        renamed = next((old for old in _RENAMED if name.endswith(old)), None)
        if renamed is not None:
            name = name.removesuffix(renamed) + _RENAMED[renamed]
        elif name.endswith(".A_log"):
            tensor = negative_exp(tensor)
        elif name.endswith(".conv1d.weight"):
            tensor = squeeze(tensor)
        elif added is not None:
            tensor = _plus(tensor, np.float32(added))
        yield name, tensor


def _plus(norm: RowReader, number: np.float32) -> RowReader:
    return map_values(norm, lambda values: values + number)
