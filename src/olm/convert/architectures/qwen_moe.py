"""Qwen 2 and Qwen 3 with experts. GGUF architectures `qwen2moe` and `qwen3moe`."""

from __future__ import annotations

from collections.abc import Iterable

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.metadata import Metadata
from olm.convert.parts import split_gate_up
from olm.convert.registry import register

__all__ = ["Qwen2Moe", "Qwen3Moe"]


@register("Qwen2MoeForCausalLM")
class Qwen2Moe(Architecture):
    """Experts come numbered, or stacked already with gate and up in one tensor."""

    gguf_name = "qwen2moe"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        n_ff = self.hparams.find_integer("moe_intermediate_size")
        if n_ff is not None:
            meta.u32(".expert_feed_forward_length", n_ff)
        n_ff = self.hparams.find_integer("shared_expert_intermediate_size")
        if n_ff is not None:
            meta.u32(".expert_shared_feed_forward_length", n_ff)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        stem = name.removesuffix(".weight")
        if stem.endswith("experts.gate_up_proj"):
            gate, up = split_gate_up(tensor)
            yield f"{stem.removesuffix('gate_up_proj')}gate_proj.weight", gate
            yield f"{stem.removesuffix('gate_up_proj')}up_proj.weight", up
        elif stem.endswith("experts.down_proj"):
            yield f"{stem}.weight", tensor
        else:
            yield name, tensor


@register("Qwen3MoeForCausalLM")
class Qwen3Moe(Qwen2Moe):
    """The same, with norms on queries and keys."""

    gguf_name = "qwen3moe"
