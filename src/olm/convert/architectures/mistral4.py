"""Mistral 4, the language model: DeepSeek's attention and experts. GGUF architecture `mistral4`."""

from __future__ import annotations

from collections.abc import Iterable

from olm.checkpoint.types import RowReader
from olm.convert.architecture import NamedTensor
from olm.convert.architectures.deepseek import Deepseek2
from olm.convert.registry import register

__all__ = ["Mistral4"]


@register("Mistral4ForCausalLM")
class Mistral4(Deepseek2):
    """Experts come stacked, gate and up in one, and stay so."""

    gguf_name = "mistral4"

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name.endswith((".down_proj", ".gate_up_proj")):
            name = f"{name}.weight"
        yield from super().modify(name, tensor)
