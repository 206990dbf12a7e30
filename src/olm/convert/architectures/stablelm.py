"""StableLM and StableLM 2. GGUF architecture `stablelm`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.lazy import stack
from olm.convert.metadata import Metadata
from olm.convert.registry import register
from olm.errors import CheckpointError

__all__ = ["StableLm"]


@register("StableLmForCausalLM", "StableLMEpochForCausalLM", "LlavaStableLMEpochForCausalLM")
class StableLm(Architecture):
    """Rope rotates a part of each head; the 12B model has a norm for each head, which become one tensor."""

    gguf_name = "stablelm"

    def write_keys(self, meta: Metadata) -> None:
        hparams = self.hparams
        n_embd = hparams.integer("hidden_size")
        factor = self.rope.full.number("partial_rotary_factor", default=0.25)
        meta.u32(".context_length", hparams.integer("max_position_embeddings"))
        meta.u32(".embedding_length", n_embd)
        meta.u32(".block_count", self.n_blocks)
        meta.u32(".feed_forward_length", hparams.integer("intermediate_size"))
        meta.u32(".rope.dimension_count", int(factor * (n_embd // self.n_heads)))
        meta.u32(".attention.head_count", self.n_heads)
        meta.u32(".attention.head_count_kv", self.n_kv_heads)
        meta.flag(".use_parallel_residual", hparams.flag("use_parallel_residual", default=True))
        meta.f32(".attention.layer_norm_epsilon", hparams.number("layer_norm_eps", "norm_eps"))
        meta.u32("general.file_type", 0)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        found = re.match(r"(.*\.([qk])_layernorm)\.norms\.(\d+)\.weight$", name)
        if found is None:
            yield name, tensor
        elif found[3] == "0":
            n_norms = self.n_heads if found[2] == "q" else self.n_kv_heads
            yield f"{found[1]}.weight", stack([self._norm(found[1], i) for i in range(n_norms)])

    def _norm(self, stem: str, head: int) -> RowReader:
        found = self.checkpoint.tensors.get(f"{stem}.norms.{head}.weight")
        if found is None:
            raise CheckpointError(f"the norm of head {head} is missing")
        return found
