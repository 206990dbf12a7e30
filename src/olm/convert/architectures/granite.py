"""Granite 3 and 4: dense, with experts, and with Mamba-2 layers; Bamba. GGUF `granite`, `granitemoe`, `granitehybrid`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs
import numpy as np

from olm.checkpoint.types import RowReader
from olm.convert.architecture import NamedTensor
from olm.convert.architectures.llama import Llama
from olm.convert.hparams import Hparams
from olm.convert.lazy import map_values, reshape
from olm.convert.metadata import Metadata
from olm.convert.parts import split_gate_up
from olm.convert.registry import register
from olm.convert.vocab import Vocab
from olm.errors import CheckpointError

__all__ = ["Granite", "GraniteHybrid", "GraniteMoe"]

_SCALES = {
    ".attention.scale": "attention_multiplier",
    ".embedding_scale": "embedding_multiplier",
    ".residual_scale": "residual_multiplier",
    ".logit_scale": "logits_scaling",
}
_ATTENTION = ("attention", "full_attention")  # published, and as Transformers 5 writes it
_SMALL_VOCAB = 49152
_NO_ROPE_CONTEXT = 1 << 20  # nothing limits the context without positions


@register("GraniteForCausalLM")
class Granite(Llama):
    """A Llama with four multipliers. A `head_dim` in its config means nothing."""

    gguf_name = "granite"
    skipped = r"^encoder\.|image_|layerwise_projectors|spatial_projectors"

    def read_hparams(self, config: Mapping[str, object]) -> Hparams:
        return super().read_hparams(config).with_values(head_dim=None)

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        for key, name in _SCALES.items():
            scale = self.hparams.find_number(name)
            if scale:
                meta.f32(key, scale)

    def vocab(self) -> Vocab | None:
        """Its pre-tokenizer is StarCoder's, which llama.cpp calls Refact's for Granite; small ones add no beginning."""
        vocab = super().vocab()
        if vocab is None:
            return None
        if vocab.pre == "starcoder":
            vocab = attrs.evolve(vocab, pre="refact")
        is_small = self.hparams.get("vocab_size") == _SMALL_VOCAB
        return attrs.evolve(vocab, add_bos=False) if is_small else vocab


@register("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM")
class GraniteMoe(Granite):
    """Gate and up come in one tensor, of all experts, and of the shared one; models without experts have only that."""

    gguf_name = "granitemoe"

    @property
    def has_experts(self) -> bool:
        """Whether there are experts beside the shared one."""
        return bool(self.hparams.find_integer("num_local_experts"))

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        n_ff = self.hparams.find_integer("shared_intermediate_size")
        if n_ff:
            meta.u32(".expert_shared_feed_forward_length", n_ff)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        layer, _, part = name.partition(".block_sparse_moe.")
        if part == "input_linear.weight":
            gate, up = split_gate_up(tensor)
            yield f"{layer}.mlp.experts.gate_proj.weight", gate
            yield f"{layer}.mlp.experts.up_proj.weight", up
            return
        layer, _, part = name.partition(".shared_mlp.")
        to = f"{layer}.mlp.shared_expert" if self.has_experts else f"{layer}.mlp"
        if part == "input_linear.weight":
            gate, up = split_gate_up(tensor)
            yield f"{to}.gate_proj.weight", gate
            yield f"{to}.up_proj.weight", up
        elif part == "output_linear.weight" and not self.has_experts:
            yield f"{to}.down_proj.weight", tensor
        else:
            yield from super().modify(name, tensor)


@register("GraniteMoeHybridForCausalLM", "BambaForCausalLM")
class GraniteHybrid(GraniteMoe):
    """Some layers are Mamba-2. One where all are attention is a plain Granite in other clothes."""

    gguf_name = "granitehybrid"

    def architecture(self) -> str:
        if not all(self.attention_layers):
            return self.gguf_name
        is_routed = self.hparams.get("num_experts_per_tok", "num_experts_per_token")
        return "granitemoe" if is_routed else "granite"

    @property
    def attention_layers(self) -> list[bool]:
        """For each layer whether it is attention."""
        layers = range(self.n_blocks)
        kinds = self.hparams.texts("layer_types")
        if kinds:
            return [kind in _ATTENTION for kind in kinds]
        listed = self.hparams.integers("attn_layer_indices")
        if listed:
            return [layer in listed for layer in layers]
        period = self.hparams.integer("attn_layer_period")
        if not period:
            raise CheckpointError("config.json: 'attn_layer_period' is 0")
        return [layer % period == self.hparams.integer("attn_layer_offset") for layer in layers]

    @property
    def inner_size(self) -> int:
        """Width of a Mamba layer inside."""
        expand = self.hparams.integer("mamba_expand", "expand")
        return expand * self.hparams.integer("hidden_size", "d_model")

    @property
    def n_groups(self) -> int:
        """Groups of a Mamba layer's heads."""
        return self.hparams.integer("mamba_n_groups", "n_groups")

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.u32(".ssm.conv_kernel", self.hparams.integer("mamba_d_conv", "conv_kernel"))
        meta.u32(".ssm.state_size", self.hparams.integer("mamba_d_state", "state_size"))
        meta.u32(".ssm.group_count", self.n_groups)
        meta.u32(".ssm.inner_size", self.inner_size)
        meta.u32(".ssm.time_step_rank", self.hparams.integer("mamba_n_heads", "n_heads"))
        n_rotated = self.hparams.find_integer("attn_rotary_emb")
        if n_rotated:
            meta.u32(".rope.dimension_count", n_rotated)
        is_attention = self.attention_layers
        heads = [self.n_kv_heads if is_it else 0 for is_it in is_attention]
        meta.i32s(".attention.head_count_kv", heads)
        has_rope = self.hf_name == "BambaForCausalLM" or all(is_attention)
        meta.flag(".rope.scaling.finetuned", has_rope)
        if not has_rope:
            meta.u32(".context_length", _NO_ROPE_CONTEXT)

    def keep(self, name: str) -> str | None:
        if name.endswith(".dt_bias"):
            name = f"{name.removesuffix('_bias')}_proj.bias"
        return super().keep(name)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if ".mamba." not in name:
            yield from super().modify(name, tensor)
            return
        if name.endswith("conv1d.weight"):
            tensor = reshape(tensor, (tensor.shape[0], tensor.shape[-1]))
        elif name.endswith(".A_log"):
            tensor = map_values(reshape(tensor, (-1, 1)), lambda values: -np.exp(values))
        elif name.endswith(".D"):
            tensor = reshape(tensor, (-1, 1))
        elif name.endswith(".norm.weight"):
            tensor = reshape(tensor, (self.n_groups, self.inner_size // self.n_groups))
        yield name, tensor
