"""GPT-NeoX and Pythia. GGUF architecture `gptneox`."""

from __future__ import annotations

from collections.abc import Iterable

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.lazy import concat
from olm.convert.metadata import Metadata
from olm.convert.parts import ungroup_qkv
from olm.convert.registry import register

__all__ = ["GptNeoX"]


@register("GPTNeoXForCausalLM")
class GptNeoX(Architecture):
    """The fused projection holds q, k and v of each head side by side; llama.cpp wants all queries first."""

    gguf_name = "gptneox"
    skipped = r"\.attention\.rotary_emb\."

    def write_keys(self, meta: Metadata) -> None:
        hparams = self.hparams
        rotated = hparams.find_number("rotary_pct")
        if rotated is None:
            rotated = self.rope.full.number("partial_rotary_factor", default=0.25)
        meta.u32(".context_length", hparams.integer("max_position_embeddings"))
        meta.u32(".embedding_length", hparams.integer("hidden_size"))
        meta.u32(".block_count", self.n_blocks)
        meta.u32(".feed_forward_length", hparams.integer("intermediate_size"))
        meta.u32(".rope.dimension_count", int(rotated * self.head_dim))
        meta.u32(".attention.head_count", self.n_heads)
        meta.flag(".use_parallel_residual", hparams.flag("use_parallel_residual", default=True))
        meta.f32(".attention.layer_norm_epsilon", hparams.number("layer_norm_eps"))
        meta.u32("general.file_type", 0)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if ".attention.query_key_value." in name:
            tensor = concat(ungroup_qkv(tensor, self.n_heads, self.n_heads, self.head_dim))
        yield name, tensor
