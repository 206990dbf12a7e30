"""Falcon-H1: attention and Mamba 2 side by side in each layer. GGUF architecture `falcon-h1`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.lazy import concat, map_values, reshape, split
from olm.convert.metadata import Metadata
from olm.convert.parts import negative_exp, squeeze
from olm.convert.registry import register
from olm.errors import CheckpointError

__all__ = ["FalconH1"]


@register("FalconH1ForCausalLM")
class FalconH1(Architecture):
    """Its multipliers are worked into the weights, for llama.cpp knows none."""

    gguf_name = "falcon-h1"

    @property
    def d_inner(self) -> int:
        """Elements of all of Mamba's heads."""
        n_embd = self.hparams.integer("hidden_size")
        expand = self.hparams.integer("mamba_expand", default=2)
        return self.hparams.integer("mamba_d_ssm", default=expand * n_embd)

    def write_keys(self, meta: Metadata) -> None:
        hparams = self.hparams
        head_dim = hparams.integer("mamba_d_head", default=64)
        if self.d_inner % max(head_dim, 1):
            raise CheckpointError(
                f"config.json: {self.d_inner} elements do not divide into heads of {head_dim}"
            )
        meta.u32(".context_length", hparams.integer("max_position_embeddings", default=0))
        meta.u32(".embedding_length", hparams.integer("hidden_size"))
        meta.u32(".feed_forward_length", hparams.integer("intermediate_size"))
        meta.u32(".attention.head_count", self.n_heads)
        meta.u32(".block_count", self.n_blocks)
        meta.u32(".ssm.conv_kernel", hparams.integer("mamba_d_conv", default=4))
        meta.u32(".ssm.inner_size", self.d_inner)
        meta.u32(".ssm.state_size", hparams.integer("mamba_d_state", default=128))
        meta.u32(".ssm.time_step_rank", self.d_inner // head_dim)
        meta.u32(".ssm.group_count", hparams.integer("mamba_n_groups"))
        eps = hparams.number("rms_norm_eps", default=1e-5)
        meta.f32(".attention.layer_norm_rms_epsilon", eps)
        meta.u32("general.file_type", 0)
        meta.u32(".vocab_size", hparams.integer("vocab_size"))
        meta.u32(".attention.head_count_kv", self.n_kv_heads)
        meta.u32(".attention.key_length", self.head_dim)
        meta.u32(".attention.value_length", self.head_dim)
        meta.f32(".rope.freq_base", self.rope.full.number("rope_theta"))

    def keep(self, name: str) -> str | None:
        return super().keep(name.replace(".dt_bias", ".dt_proj.bias"))

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name.endswith(".A_log"):
            tensor = reshape(negative_exp(tensor), (-1, 1))
        elif name.endswith(".mamba.D"):
            tensor = reshape(tensor, (-1, 1))
        elif name.endswith(".conv1d.weight"):
            tensor = squeeze(tensor)
        elif name.endswith(".mamba.norm.weight"):
            tensor = reshape(tensor, (self.hparams.integer("mamba_n_groups"), -1))
        elif name.endswith(".mamba.in_proj.weight"):
            tensor = self._scaled_parts(_scaled(tensor, self._factor("ssm_in_multiplier")))
        else:
            tensor = _scaled(tensor, *self._factors(name))
        yield name, tensor

    def _factors(self, name: str) -> Iterable[float]:
        """What a tensor is multiplied by, one factor after the other."""
        factor = self._factor
        kind = name.removesuffix(".weight").rpartition(".")[2]
        if kind in ("gate_proj", "down_proj"):
            found = self.hparams.numbers("mlp_multipliers")
            return found[kind == "down_proj" :][:1]
        if kind == "k_proj":
            return factor("key_multiplier"), factor("attention_in_multiplier")
        settings = {
            "q_proj": "attention_in_multiplier",
            "v_proj": "attention_in_multiplier",
            "o_proj": "attention_out_multiplier",
            "out_proj": "ssm_out_multiplier",
            "lm_head": "lm_head_multiplier",
            "embed_tokens": "embedding_multiplier",
        }
        return [factor(settings[kind])] if kind in settings else []

    def _factor(self, setting: str) -> float:
        return self.hparams.number(setting, default=1.0)

    def _scaled_parts(self, fused: RowReader) -> RowReader:
        """z, x, B, C and the time step of the projection into Mamba, each by its own factor."""
        n_shared = self.hparams.integer("mamba_n_groups") * self.hparams.integer("mamba_d_state")
        sizes = [self.d_inner, self.d_inner, n_shared, n_shared]
        sizes.append(fused.shape[0] - sum(sizes))
        factors = self.hparams.numbers("ssm_multipliers") or [1.0] * len(sizes)
        if len(factors) != len(sizes):
            raise CheckpointError(f"config.json: {len(factors)} ssm_multipliers, wanted 5")
        parts = split(fused, sizes)
        return concat([_scaled(part, f) for part, f in zip(parts, factors, strict=True)])


def _scaled(tensor: RowReader, *factors: float) -> RowReader:
    for factor in factors:
        tensor = _times(tensor, np.float32(factor))
    return tensor


def _times(tensor: RowReader, factor: np.float32) -> RowReader:
    return map_values(tensor, lambda values: values * factor)
