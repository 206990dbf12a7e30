"""ERNIE 4.5, with experts too. GGUF architectures `ernie4_5`, `ernie4_5-moe`."""

from __future__ import annotations

from collections.abc import Iterable

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.metadata import Metadata
from olm.convert.parts import split_gate_up, split_heads
from olm.convert.registry import register

__all__ = ["Ernie45", "Ernie45Moe"]


@register("Ernie4_5_ForCausalLM", "Ernie4_5ForCausalLM")
class Ernie45(Architecture):
    """The first checkpoints have fused projections and names of their own."""

    gguf_name = "ernie4_5"

    def keep(self, name: str) -> str | None:
        return super().keep(name.replace("ernie.", "model."))

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name.endswith("qkv_proj.weight"):
            stem = name.removesuffix("qkv_proj.weight")
            parts = split_heads(tensor, self.n_heads, self.n_kv_heads, self.head_dim)
            for kind, part in zip("qkv", parts, strict=True):
                yield f"{stem}{kind}_proj.weight", part
        elif name.endswith("up_gate_proj.weight"):
            stem = name.removesuffix("up_gate_proj.weight")
            gate, up = split_gate_up(tensor)
            yield f"{stem}gate_proj.weight", gate
            yield f"{stem}up_proj.weight", up
        else:
            yield name, tensor


@register("Ernie4_5_MoeForCausalLM")
class Ernie45Moe(Ernie45):
    """Layers that predict further tokens are left out."""

    gguf_name = "ernie4_5-moe"
    skipped = r"^model\.mtp_(block|emb_norm|hidden_norm|linear_proj)\."

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        hparams = self.hparams
        meta.u32(".expert_count", hparams.integer("moe_num_experts"))
        meta.u32(".expert_used_count", hparams.integer("moe_k"))
        meta.u32(".interleave_moe_layer_step", hparams.integer("moe_layer_interval"))
        meta.u32(".leading_dense_block_count", hparams.integer("moe_layer_start_index"))
        n_ff = hparams.find_integer("moe_intermediate_size")
        if n_ff is not None:
            meta.u32(".expert_feed_forward_length", n_ff)
        n_shared = hparams.find_integer("moe_num_shared_experts")
        if n_shared is None:
            return
        meta.u32(".expert_shared_count", n_shared)
        if n_shared:
            # As llama.cpp's converter reckons; the loader works it out from the shapes.
            n_ff = hparams.integer("intermediate_size") // self.n_kv_heads
            meta.u32(".expert_shared_feed_forward_length", n_ff)
