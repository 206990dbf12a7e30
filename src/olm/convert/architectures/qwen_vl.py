"""The text models of Qwen 2 VL, 2.5 VL and 2.5 Omni, of Qwen 3 VL, Omni and ASR. GGUF architectures `qwen2vl`, `qwen3vl`, `qwen3vlmoe`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.architectures.qwen_moe import Qwen2Moe
from olm.convert.lazy import transpose
from olm.convert.metadata import Metadata
from olm.convert.registry import register
from olm.convert.vocab import Vocab, with_special

__all__ = ["Qwen2Vl", "Qwen3Vl", "Qwen3VlMoe"]

_OMNI_SPECIAL: Final = {"bos": "<|im_end|>", "eos": "<|im_end|>"}  # its files name none


@register(
    "Qwen2VLModel",
    "Qwen2VLForConditionalGeneration",
    "Qwen2_5_VLForConditionalGeneration",
    "Qwen2_5OmniModel",
    "Qwen2_5OmniForConditionalGeneration",
)
class Qwen2Vl(Architecture):
    """Qwen 2 with three-dimensional rope."""

    gguf_name = "qwen2vl"

    def keep(self, name: str) -> str | None:
        return super().keep(name.replace("thinker.", ""))


class _WithTower(Architecture):
    """Features of the tower are added to the first layers; the models that hear have none, and tokens of their own."""

    def _hears(self) -> bool:
        return self.hf_name.startswith(("Qwen3ASR", "Qwen3Omni"))

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.u32(".n_deepstack_layers", 0 if self._hears() else self._n_deepstack())

    def _n_deepstack(self) -> int:
        hparams = self.hparams
        outer = hparams.table("thinker_config") if "thinker_config" in hparams else hparams
        return len(outer.table("vision_config").integers("deepstack_visual_indexes"))

    def keep(self, name: str) -> str | None:
        return super().keep(name.replace("thinker.", ""))

    def vocab(self) -> Vocab | None:
        vocab = super().vocab()
        return with_special(vocab, _OMNI_SPECIAL) if vocab and self._hears() else vocab


@register("Qwen3VLForConditionalGeneration", "Qwen3ASRForConditionalGeneration")
class Qwen3Vl(_WithTower):
    """Qwen 3 with three-dimensional rope."""

    gguf_name = "qwen3vl"


@register("Qwen3VLMoeForConditionalGeneration", "Qwen3OmniMoeForConditionalGeneration")
class Qwen3VlMoe(_WithTower, Qwen2Moe):
    """With experts, which stand the other way round where they come stacked."""

    gguf_name = "qwen3vlmoe"

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        stem = name.removesuffix(".weight")
        if stem.endswith(("experts.gate_up_proj", "experts.down_proj")) and not self._is_new():
            tensor = transpose(tensor)
        yield from super().modify(name, tensor)

    def _is_new(self) -> bool:
        """Whether the experts have been turned already: what Transformers 5 saves."""
        n_embd = self.hparams.integer("hidden_size")
        n_ff = self.hparams.integer("moe_intermediate_size")
        turned = (2 * n_ff, n_embd)
        stacks = (t for n, t in self.checkpoint.tensors.items() if "experts.gate_up_proj" in n)
        return n_embd != 2 * n_ff and any(tensor.shape[1:] == turned for tensor in stacks)
