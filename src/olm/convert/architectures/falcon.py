"""Falcon 7B, 40B and 180B. GGUF architecture `falcon`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.lazy import concat
from olm.convert.metadata import Metadata
from olm.convert.parts import ungroup_qkv
from olm.convert.registry import register

__all__ = ["Falcon"]

_CONTEXT_LENGTH: Final = 2048  # of all of them; config.json does not say it


@register("FalconForCausalLM", "RWForCausalLM")
class Falcon(Architecture):
    """The fused projection is grouped by keys; llama.cpp wants all queries, all keys, all values."""

    gguf_name = "falcon"

    @property
    def n_kv_heads(self) -> int:
        """One for the models with multi-query attention, which may say something else besides."""
        is_old = not self.hparams.flag("new_decoder_architecture")
        if is_old and self.hparams.flag("multi_query"):
            return 1
        return self.hparams.integer("num_kv_heads", "n_head_kv", default=1)

    def write_keys(self, meta: Metadata) -> None:
        n_embd = self.hparams.integer("hidden_size")
        meta.u32(".context_length", _CONTEXT_LENGTH)
        meta.text(".tensor_data_layout", "jploski")
        meta.u32(".embedding_length", n_embd)
        meta.u32(".feed_forward_length", 4 * n_embd)
        meta.u32(".block_count", self.n_blocks)
        meta.u32(".attention.head_count", self.n_heads)
        meta.u32(".attention.head_count_kv", self.n_kv_heads)
        meta.f32(".attention.layer_norm_epsilon", self.hparams.number("layer_norm_epsilon"))
        meta.u32("general.file_type", 0)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if "query_key_value" in name:
            tensor = concat(ungroup_qkv(tensor, self.n_heads, self.n_kv_heads, self.head_dim))
        yield name, tensor
