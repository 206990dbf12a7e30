"""Llama 1 to 3, and what shares its shape: Mistral, Mixtral, their derivatives. GGUF architecture `llama`."""

from __future__ import annotations

from collections.abc import Iterable

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.metadata import Metadata
from olm.convert.parts import interleave_rope, llama3_rope_factors
from olm.convert.registry import register

__all__ = ["Llama"]


@register(
    "LlamaForCausalLM",
    "LLaMAForCausalLM",
    "LlamaModel",
    "MistralForCausalLM",
    "MistralModel",
    "MixtralForCausalLM",
    "IQuestCoderForCausalLM",
)
class Llama(Architecture):
    """Rope rotates neighbours here, so query and key rows are reordered; Llama 3.1's rope scaling is a tensor."""

    gguf_name = "llama"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.u32(".vocab_size", self.hparams.integer("vocab_size"))
        meta.u32(".rope.dimension_count", self.head_dim)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if self.hf_name in ("LlamaModel", "MistralModel"):
            name = f"model.{name}"
        if name.endswith(("q_proj.weight", "q_proj.bias")):
            tensor = interleave_rope(tensor, self.n_heads)
        elif name.endswith(("k_proj.weight", "k_proj.bias")):
            tensor = interleave_rope(tensor, self.n_kv_heads)
        yield name, tensor

    def extra(self) -> Iterable[NamedTensor]:
        factors = llama3_rope_factors(self.rope.full, self.head_dim)
        if factors is not None:
            yield "rope_freqs.weight", factors
