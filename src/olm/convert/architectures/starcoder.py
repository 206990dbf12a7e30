"""StarCoder 1 (GPT BigCode) and 2. GGUF architectures `starcoder` and `starcoder2`."""

from __future__ import annotations

from olm.convert.architecture import Architecture
from olm.convert.metadata import Metadata
from olm.convert.registry import register

__all__ = ["Starcoder", "Starcoder2"]


@register("GPTBigCodeForCausalLM")
class Starcoder(Architecture):
    """Multi-query attention: one head of keys and values. The fused projection stays as it is."""

    gguf_name = "starcoder"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.u32(".feed_forward_length", 4 * self.hparams.integer("n_embd"))
        meta.u32(".attention.head_count_kv", 1)


@register("Starcoder2ForCausalLM")
class Starcoder2(Architecture):
    """Everything is as in the tables."""

    gguf_name = "starcoder2"
