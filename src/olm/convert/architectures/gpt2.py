"""GPT-2. GGUF architecture `gpt2`."""

from __future__ import annotations

from collections.abc import Iterable

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.lazy import transpose
from olm.convert.metadata import Metadata
from olm.convert.registry import register

__all__ = ["Gpt2"]


@register("GPT2LMHeadModel")
class Gpt2(Architecture):
    """Its linear layers keep their matrices the other way round."""

    gguf_name = "gpt2"
    skipped = r"\.attn\.(masked_)?bias$"  # buffers: the causal mask

    def write_keys(self, meta: Metadata) -> None:
        hparams = self.hparams
        meta.u32(".block_count", self.n_blocks)
        meta.u32(".context_length", hparams.integer("n_ctx", "n_positions"))
        meta.u32(".embedding_length", hparams.integer("n_embd"))
        meta.u32(".feed_forward_length", 4 * hparams.integer("n_embd"))
        meta.u32(".attention.head_count", self.n_heads)
        meta.f32(".attention.layer_norm_epsilon", hparams.number("layer_norm_epsilon"))
        meta.u32("general.file_type", 0)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            tensor = transpose(tensor)
        yield name, tensor
