"""DeepSeek 1, and DeepSeek V2, V3, R1 and what shares their latent attention. GGUF architectures `deepseek`, `deepseek2`, `deepseek2-ocr`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import attrs

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.architectures.glm4moe import GLM_SPECIAL
from olm.convert.keys import write_common
from olm.convert.lazy import reshape, take, transpose
from olm.convert.metadata import Metadata
from olm.convert.names import NEXTN_NAMES
from olm.convert.parts import interleave_rope
from olm.convert.registry import register
from olm.convert.vocab import Vocab, with_special
from olm.errors import CheckpointError

__all__ = ["Deepseek", "Deepseek2", "Glm4MoeLite"]

_OCR: Final = ("DeepseekOCRForCausalLM", "UnlimitedOCRForCausalLM")
_OCR_TEMPLATE: Final = "{% for m in messages %}{{m['content']}}{% endfor %}"


@register("DeepseekForCausalLM")
class Deepseek(Architecture):
    """Rope rotates neighbours; there is a shared expert."""

    gguf_name = "deepseek"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        hparams = self.hparams
        meta.u32(".rope.dimension_count", self.head_dim)
        meta.text(".rope.scaling.type", "none")
        meta.u32(".leading_dense_block_count", hparams.integer("first_k_dense_replace"))
        meta.u32(".vocab_size", hparams.integer("vocab_size"))
        meta.u32(".expert_feed_forward_length", hparams.integer("moe_intermediate_size"))
        meta.f32(".expert_weights_scale", 1.0)
        meta.u32(".expert_count", hparams.integer("n_routed_experts"))
        meta.u32(".expert_shared_count", hparams.integer("n_shared_experts"))

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name.endswith(("q_proj.weight", "q_proj.bias")):
            tensor = interleave_rope(tensor, self.n_heads)
        elif name.endswith(("k_proj.weight", "k_proj.bias")):
            tensor = interleave_rope(tensor, self.n_kv_heads)
        yield name, tensor


@register(
    "DeepseekV2ForCausalLM",
    "DeepseekV3ForCausalLM",
    "DeepseekOCRForCausalLM",
    "UnlimitedOCRForCausalLM",
    "KimiVLForConditionalGeneration",
    "KimiK25ForConditionalGeneration",
    "YoutuForCausalLM",
    "YoutuVLForConditionalGeneration",
)
class Deepseek2(Architecture):
    """Multi-head latent attention, run as attention with one key head: the projection that decompresses is split for it.

    Layers that predict further tokens are left out.
    """

    gguf_name = "deepseek2"
    skipped = r"sam_model|qwen2_model"

    @property
    def is_ocr(self) -> bool:
        """Without latent attention."""
        return self.hf_name in _OCR

    def architecture(self) -> str:
        return "deepseek2-ocr" if self.is_ocr else self.gguf_name

    def write_keys(self, meta: Metadata) -> None:
        said = self.hparams.with_values(
            rms_norm_eps=self.hparams.number("rms_norm_eps", default=1e-6)
        )
        if not self.is_ocr:
            said = said.with_values(num_key_value_heads=1)
        write_common(meta, said, self.n_blocks)
        meta.u32(".vocab_size", said.integer("vocab_size"))
        rank = said.find_integer("q_lora_rank")
        if rank is not None:
            meta.u32(".attention.q_lora_rank", rank)
        if not self.is_ocr:
            self._write_latent(meta)
        self._write_experts(meta)
        meta.u32(".rope.dimension_count", said.integer("qk_rope_head_dim"))
        window = said.integer("sliding_window_size", "sliding_window", default=0)
        if self.is_ocr and window:
            meta.u32(".attention.sliding_window", window)
        mscale = self.rope.full.find_number("mscale_all_dim")
        if mscale is not None:
            # A tenth, for reasons of history: llama.cpp's loader reckons with it (its PR 17945).
            meta.f32(".rope.scaling.yarn_log_multiplier", 0.1 * mscale)

    def _write_latent(self, meta: Metadata) -> None:
        hparams = self.hparams
        rank = hparams.integer("kv_lora_rank", default=512)
        n_rotated = hparams.integer("qk_rope_head_dim")
        meta.u32(".attention.kv_lora_rank", rank)
        meta.u32(".attention.key_length", rank + n_rotated)
        meta.u32(".attention.value_length", rank)
        meta.u32(".attention.key_length_mla", hparams.integer("qk_nope_head_dim") + n_rotated)
        meta.u32(".attention.value_length_mla", hparams.integer("v_head_dim"))

    def _write_experts(self, meta: Metadata) -> None:
        hparams = self.hparams
        n_experts = hparams.find_integer("n_routed_experts")
        # Without experts every layer is dense, and the loader still asks for the other lengths.
        n_layers = hparams.integer("num_hidden_layers")
        n_dense = hparams.integer("first_k_dense_replace", default=0 if n_experts else n_layers)
        n_ff = hparams.integer("moe_intermediate_size", "intermediate_size")
        meta.u32(".leading_dense_block_count", n_dense)
        meta.u32(".expert_feed_forward_length", n_ff)
        if n_experts is not None:
            meta.u32(".expert_count", n_experts)
        meta.u32(".expert_shared_count", hparams.integer("n_shared_experts", default=0))
        scale = hparams.find_number("routed_scaling_factor")
        if scale is not None:
            meta.f32(".expert_weights_scale", scale)
        if hparams.flag("norm_topk_prob"):
            meta.flag(".expert_weights_norm", value=True)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        is_tied = self.hparams.flag("tie_word_embeddings")
        if is_tied and name in ("lm_head.weight", "model.lm_head.weight"):
            return
        layer = re.match(r"model\.layers\.(\d+)\.", name)
        if layer is not None and int(layer[1]) >= self.n_blocks:
            return
        if name.endswith("kv_b_proj.weight"):
            stem = name.removesuffix("kv_b_proj.weight")
            key, value = self._key_and_value(tensor)
            yield f"{stem}k_b_proj.weight", key
            yield f"{stem}v_b_proj.weight", value
        else:
            yield name, tensor

    def _key_and_value(self, fused: RowReader) -> tuple[RowReader, RowReader]:
        """Of each head the part that makes keys, turned, [heads, rank, n_key]; and that for values, [heads, n_value, rank]."""
        n_heads = self.n_kv_heads
        n_key, n_value = (
            self.hparams.integer("qk_nope_head_dim"),
            self.hparams.integer("v_head_dim"),
        )
        n_rows, rank = fused.shape
        size = n_key + n_value
        if n_rows != n_heads * size:
            raise CheckpointError(f"{n_rows} rows, expected {n_heads} heads of {n_key} + {n_value}")
        rows = [row for row in range(n_rows) if row % size < n_key]
        key = reshape(take(fused, rows), (n_heads, n_key, rank))
        rows = [row for row in range(n_rows) if row % size >= n_key]
        return transpose(key), reshape(take(fused, rows), (n_heads, n_value, rank))

    def vocab(self) -> Vocab | None:
        vocab = super().vocab()
        if vocab is None or vocab.chat_template or not self.is_ocr:
            return vocab
        return attrs.evolve(vocab, chat_template=_OCR_TEMPLATE)


@register("Glm4MoeLiteForCausalLM")
class Glm4MoeLite(Deepseek2):
    """GLM-4.7 Flash: DeepSeek's shape, and layers that predict further tokens are kept."""

    names = NEXTN_NAMES

    @property
    def n_blocks(self) -> int:
        """Layers, with those that predict further tokens."""
        return super().n_blocks + self.hparams.integer("num_nextn_predict_layers", default=0)

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        n_next = self.hparams.integer("num_nextn_predict_layers", default=0)
        if n_next:
            meta.u32(".nextn_predict_layers", n_next)

    def vocab(self) -> Vocab | None:
        vocab = super().vocab()
        return vocab and with_special(vocab, GLM_SPECIAL)
