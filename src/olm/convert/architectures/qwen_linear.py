"""Qwen 3 Next, 3.5 and 3.6: three layers of linear attention to one of full attention. GGUF architectures `qwen3next`, `qwen35`, `qwen35moe`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from olm.checkpoint.types import RowReader
from olm.convert.architecture import NamedTensor
from olm.convert.architectures.qwen_moe import Qwen2Moe
from olm.convert.lazy import columns, take
from olm.convert.metadata import Metadata
from olm.convert.names import NEXTN_NAMES
from olm.convert.parts import negative_exp, plus_one, squeeze
from olm.convert.registry import register
from olm.errors import CheckpointError

__all__ = ["Qwen3Next", "Qwen35", "Qwen35Moe"]

_MTP: Final = {
    "fc": "eh_proj",
    "pre_fc_norm_embedding": "enorm",
    "pre_fc_norm_hidden": "hnorm",
    "norm": "shared_head.norm",
}
_SECTIONS: Final = (11, 11, 10, 0)  # Qwen3_5RotaryEmbedding's default in Transformers


@register("Qwen3NextForCausalLM")
class Qwen3Next(Qwen2Moe):
    """Norms are stored minus one, q, k, v and z fused by key heads. Layers that predict further tokens come last."""

    gguf_name = "qwen3next"
    names = NEXTN_NAMES

    @property
    def n_main(self) -> int:
        """Layers of the model itself."""
        return self.hparams.integer("num_hidden_layers")

    @property
    def n_next(self) -> int:
        """Layers that predict further tokens: said, or found."""
        said = self.hparams.integer("mtp_num_hidden_layers", default=0)
        found = (
            re.match(r"(?:model\.)?mtp\.layers\.(\d+)\.", name) for name in self.checkpoint.tensors
        )
        return said or max((int(match[1]) + 1 for match in found if match), default=0)

    @property
    def n_blocks(self) -> int:
        """Layers, with those that predict further tokens."""
        return self.n_main + self.n_next

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        hparams = self.hparams
        n_values = hparams.integer("linear_num_value_heads")
        meta.u32(".ssm.conv_kernel", hparams.integer("linear_conv_kernel_dim"))
        meta.u32(".ssm.state_size", hparams.integer("linear_key_head_dim"))
        meta.u32(".ssm.group_count", hparams.integer("linear_num_key_heads"))
        meta.u32(".ssm.time_step_rank", n_values)
        meta.u32(".ssm.inner_size", hparams.integer("linear_value_head_dim") * n_values)
        kinds = hparams.texts("layer_types")
        if kinds and len(kinds) != self.n_main:
            raise CheckpointError(f"config.json: {len(kinds)} layer_types for {self.n_main} layers")
        if kinds:
            linear = [kind == "linear_attention" for kind in kinds]
            meta.flags(".attention.recurrent_layers", linear + [False] * self.n_next)
        interval = hparams.integer("full_attention_interval", default=4)
        meta.u32(".full_attention_interval", interval)
        factor = self.rope.full.number("partial_rotary_factor", default=0.25)
        meta.u32(".rope.dimension_count", int(self.head_dim * factor))
        if self.n_next:
            meta.u32(".nextn_predict_layers", self.n_next)

    def keep(self, name: str) -> str | None:
        kept = super().keep(name)
        if kept is None:
            return None
        found = re.match(r"(?:model\.)?mtp\.(?:layers\.(\d+)\.)?(.*)", kept)
        if found is None:
            return kept.replace(".dt_bias", ".dt_proj.bias")
        if found[1] is not None:
            return f"model.layers.{self.n_main + int(found[1])}.{found[2]}"
        stem, _, suffix = found[2].rpartition(".")
        return f"model.layers.{self.n_main}.{_MTP[stem]}.{suffix}" if stem in _MTP else kept

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if "in_proj_qkvz.weight" in name:
            layer = name.split(".layers.")[1].partition(".")[0]
            yield f"blk.{layer}.attn_qkv.weight", take(tensor, self._fused_rows("qkv"))
            yield f"blk.{layer}.attn_gate.weight", take(tensor, self._fused_rows("z"))
            return
        if name.endswith(".A_log"):
            tensor = negative_exp(tensor)
        elif "conv1d" in name:
            tensor = squeeze(tensor)
        elif name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
            tensor = plus_one(tensor)
        yield from super().modify(name, tensor)

    def _fused_rows(self, wanted: str) -> NDArray[np.intp]:
        """Rows of the parts `wanted`, one after another, of a projection that holds q, k, v, z for each key head."""
        n_keys, ratio = self._heads()
        n_key, n_value = self._lengths()
        sizes = {"q": n_key, "k": n_key, "v": ratio * n_value, "z": ratio * n_value}
        ends = dict(zip(sizes, np.cumsum(list(sizes.values())), strict=True))
        rows = np.arange(n_keys * sum(sizes.values())).reshape(n_keys, -1)
        parts = [rows[:, ends[part] - sizes[part] : ends[part]].reshape(-1) for part in wanted]
        return np.concatenate(parts)

    def _heads(self) -> tuple[int, int]:
        """Key heads, and value heads for each of them."""
        n_keys = self.hparams.integer("linear_num_key_heads")
        n_values = self.hparams.integer("linear_num_value_heads")
        if n_keys <= 0 or n_values % n_keys:
            raise CheckpointError(f"{n_values} value heads do not divide into {n_keys} groups")
        return n_keys, n_values // n_keys

    def _lengths(self) -> tuple[int, int]:
        """Elements of a key head, and of a value head."""
        hparams = self.hparams
        return hparams.integer("linear_key_head_dim"), hparams.integer("linear_value_head_dim")


@register("Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM")
class Qwen35(Qwen3Next):
    """Value heads that share a key lie side by side; ggml repeats keys one after another, so value heads are dealt out."""

    gguf_name = "qwen35"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        if not self.rope.sections:
            meta.i32s(".rope.dimension_sections", _SECTIONS)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if ".linear_attn." in name:
            tensor = self._dealt(name, tensor)
        yield from super().modify(name, tensor)

    def _dealt(self, name: str, tensor: RowReader) -> RowReader:
        n_keys, ratio = self._heads()
        n_key, n_value = self._lengths()
        if ratio == 1:
            return tensor
        if any(part in name for part in (".in_proj_b.", ".in_proj_a.", ".A_log", ".dt_proj")):
            return take(tensor, _tiled(n_keys, ratio, 1))
        values = _tiled(n_keys, ratio, n_value)
        if ".in_proj_z." in name:
            return take(tensor, values)
        if ".out_proj." in name:
            return columns(tensor, values)
        if ".in_proj_qkv." in name or ".conv1d" in name:
            n_before = 2 * n_keys * n_key
            return take(tensor, np.concatenate([np.arange(n_before), n_before + values]))
        return tensor


def _tiled(n_keys: int, ratio: int, length: int) -> NDArray[np.intp]:
    """Rows of value heads, [key][value of it] -> [value of it][key]."""
    return (
        np.arange(n_keys * ratio * length).reshape(n_keys, ratio, length).swapaxes(0, 1).reshape(-1)
    )


@register("Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM")
class Qwen35Moe(Qwen35):
    """The same with experts."""

    gguf_name = "qwen35moe"
