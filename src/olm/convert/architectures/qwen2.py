"""Qwen 2 and 2.5, dense, and what shares their shape. GGUF architecture `qwen2`."""

from __future__ import annotations

from collections.abc import Iterable

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.metadata import Metadata
from olm.convert.pooling import write_pooling
from olm.convert.registry import register

__all__ = ["Qwen2"]


@register("Qwen2ForCausalLM", "Qwen2Model", "KORMoForCausalLM")
class Qwen2(Architecture):
    """Embedding models of this shape say how they pool in sentence-transformers' files."""

    gguf_name = "qwen2"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        write_pooling(meta, self.checkpoint, self.hparams)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        yield (f"model.{name}" if self.hf_name.endswith("Model") else name), tensor
