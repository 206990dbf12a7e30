"""Nemotron-H and Nemotron 3 Nano: Mamba 2, attention and feed-forward layers mixed. GGUF architectures `nemotron_h`, `nemotron_h_moe`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.hparams import Hparams
from olm.convert.lazy import reshape
from olm.convert.metadata import Metadata
from olm.convert.names import NEXTN_NAMES
from olm.convert.parts import interleave_rope, negative_exp, squeeze
from olm.convert.registry import register
from olm.convert.vocab import Vocab
from olm.errors import CheckpointError

__all__ = ["NemotronH"]

_VOCAB_MULTIPLE: Final = 8
_CONTEXT_LENGTH: Final = 1 << 20  # no rope, so no length: what llama.cpp's converter writes
# Letters of `hybrid_override_pattern`, and names of `layers_block_type`.
_KINDS: Final = {
    "M": "mamba",
    "*": "attention",
    "-": "mlp",
    "E": "moe",
    "linear_attention": "mamba",
    "full_attention": "attention",
}
_NAMES: Final = {
    **NEXTN_NAMES,
    "model.layers.{bid}.post_attention_layernorm": "blk.{bid}.post_attention_norm",
}
_MTP: Final = {
    "mtp.layers.0.enorm.weight": "enorm.weight",
    "mtp.layers.0.hnorm.weight": "hnorm.weight",
    "mtp.layers.0.eh_proj.weight": "eh_proj.weight",
    "mtp.layers.1.norm.weight": "post_attention_layernorm.weight",
    "mtp.layers.1.final_layernorm.weight": "shared_head.norm.weight",
}


@register("NemotronHForCausalLM", "NemotronH_Nano_VL_V2", "NemotronH_Nano_Omni_Reasoning_V3")
class NemotronH(Architecture):
    """One mixer in each layer. The head that predicts a further token becomes one layer behind the others."""

    gguf_name = "nemotron_h"
    names = _NAMES

    @property
    def is_moe(self) -> bool:
        """With experts."""
        return "num_experts_per_tok" in self.hparams

    @property
    def kinds(self) -> Sequence[str]:
        """mamba, attention, mlp or moe, of each layer."""
        pattern = self.hparams.get("hybrid_override_pattern", "layers_block_type")
        letters = pattern if isinstance(pattern, str) else self.hparams.texts("layers_block_type")
        if not letters:
            raise CheckpointError("config.json: 'hybrid_override_pattern' is missing")
        return [_KINDS.get(letter, letter) for letter in letters]

    @property
    def n_next(self) -> int:
        """Layers that predict further tokens: one or none."""
        count = self.hparams.integer("num_nextn_predict_layers", default=0) if self.is_moe else 0
        if count > 1:
            raise CheckpointError(f"config.json: {count} layers that predict tokens, known is one")
        return count

    @property
    def n_blocks(self) -> int:
        """Layers, with the one that predicts a further token."""
        return len(self.kinds) + self.n_next

    @property
    def n_groups(self) -> int:
        """Groups that share B and C."""
        return self.hparams.integer("n_groups", "num_groups", "mamba_n_groups", "mamba_num_groups")

    def architecture(self) -> str:
        return "nemotron_h_moe" if self.is_moe else "nemotron_h"

    def read_hparams(self, config: Mapping[str, object]) -> Hparams:
        """`head_dim` is that of attention, and not said to the common keys."""
        hparams = super().read_hparams(config)
        head_dim = hparams.integer("head_dim", "attention_head_dim")
        return hparams.with_values(head_dim=None, attention_head_dim=head_dim)

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        hparams = self.hparams
        head_dim = hparams.integer("attention_head_dim")
        is_attention = [kind == "attention" for kind in self.kinds] + [True] * self.n_next
        meta.u32(".vocab_size", hparams.integer("vocab_size"))
        meta.u32(".rope.dimension_count", self.head_dim)
        if (
            ".attention.layer_norm_rms_epsilon" not in meta
        ):  # the first ones call it after another norm
            eps = hparams.number("layer_norm_epsilon", default=1e-5)
            meta.f32(".attention.layer_norm_rms_epsilon", eps)
        self._write_ssm(meta)
        meta.i32s(
            ".attention.head_count_kv", [self.n_kv_heads if here else 0 for here in is_attention]
        )
        has_mamba = "mamba" in self.kinds
        meta.flag(".rope.scaling.finetuned", value=not has_mamba)
        if has_mamba:
            meta.u32(".context_length", _CONTEXT_LENGTH)
        meta.u32(".attention.key_length", head_dim)
        meta.u32(".attention.value_length", head_dim)
        if self.is_moe:
            self._write_experts(meta)
        else:
            n_ff = hparams.integer("intermediate_size", "n_inner", "hidden_dim")
            lengths = [n_ff if kind == "mlp" else 0 for kind in self.kinds]
            meta.i32s(".feed_forward_length", lengths)

    def _write_ssm(self, meta: Metadata) -> None:
        hparams = self.hparams
        n_heads = hparams.integer("n_heads", "num_heads", "mamba_n_heads", "mamba_num_heads")
        d_model = hparams.integer("mamba_head_dim", "hidden_size", "d_model")
        states = ("state_size", "d_state", "state_dim", "ssm_state_size", "mamba_d_state")
        meta.u32(
            ".ssm.conv_kernel",
            hparams.integer("conv_kernel", "d_conv", "mamba_conv_kernel", "mamba_d_conv"),
        )
        meta.u32(".ssm.state_size", hparams.integer(*states))
        meta.u32(".ssm.group_count", self.n_groups)
        meta.u32(".ssm.inner_size", n_heads * d_model)
        meta.u32(".ssm.time_step_rank", n_heads)

    def _write_experts(self, meta: Metadata) -> None:
        hparams = self.hparams
        n_ff = hparams.integer("moe_intermediate_size")
        lengths = [n_ff if kind == "moe" else 0 for kind in self.kinds] + [n_ff] * self.n_next
        meta.i32s(".feed_forward_length", lengths)
        meta.u32(".expert_feed_forward_length", n_ff)
        counts = {
            ".expert_used_count": "num_experts_per_tok",
            ".expert_shared_feed_forward_length": "moe_shared_expert_intermediate_size",
            ".expert_count": "n_routed_experts",
            ".expert_shared_count": "n_shared_experts",
            ".expert_group_count": "n_group",
        }
        for key, setting in counts.items():
            meta.u32(key, hparams.integer(setting))
        meta.flag(".expert_weights_norm", hparams.flag("norm_topk_prob"))
        meta.f32(".expert_weights_scale", hparams.number("routed_scaling_factor"))
        latent = hparams.find_integer("moe_latent_size")
        if latent is not None:
            meta.u32(".moe_latent_size", latent)
        if self.n_next:
            meta.u32(".nextn_predict_layers", self.n_next)

    def keep(self, name: str) -> str | None:
        if name.startswith("mtp."):
            if not self.n_next:
                return None
            layer = len(self.kinds)
            rest = name.split(".", 3)[-1]
            name = (
                f"model.layers.{layer}.{_MTP[name]}"
                if name in _MTP
                else f"backbone.layers.{layer}.{rest}"
            )
        elif name.startswith("model.layers.") and ".mixer." in name:
            name = name.replace("model.", "backbone.", 1)
        return super().keep(name.replace(".dt_bias", ".dt_proj.bias"))

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name.endswith("q_proj.weight"):
            tensor = interleave_rope(tensor, self.n_heads)
        elif name.endswith("k_proj.weight"):
            tensor = interleave_rope(tensor, self.n_kv_heads)
        elif name.endswith(".A_log"):
            tensor = reshape(negative_exp(tensor), (-1, 1))
        elif name.endswith(".mixer.D"):
            tensor = reshape(tensor, (-1, 1))
        elif name.endswith(".conv1d.weight"):
            tensor = squeeze(tensor)
        elif name.endswith(".mixer.norm.weight"):
            tensor = reshape(tensor, (self.n_groups, -1))
        elif ".mixer.experts." in name:
            name = name.replace("backbone.", "model.", 1).replace(".mixer.", ".mlp.")
        yield name, tensor

    def vocab(self) -> Vocab | None:
        from olm.convert.tokenizers import read_vocab

        n_vocab = -(self.hparams.integer("vocab_size") // -_VOCAB_MULTIPLE) * _VOCAB_MULTIPLE
        return read_vocab(self.checkpoint, vocab_size=n_vocab)
