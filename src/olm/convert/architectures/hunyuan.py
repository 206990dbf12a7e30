"""Hunyuan, dense and with experts. GGUF architectures `hunyuan-dense`, `hunyuan-moe`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import attrs

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.keys import write_common
from olm.convert.metadata import Metadata
from olm.convert.registry import register
from olm.convert.vocab import Vocab
from olm.errors import CheckpointError

__all__ = ["HunyuanDense", "HunyuanMoe"]

_CONTEXT_LENGTH: Final = 256 * 1024  # what alpha is meant for; the config says less
_MOE_BOS: Final = 127959  # <|bos|>; the config is wrong
_DENSE_BOS: Final = 127958  # that of the 7B model


class _Hunyuan(Architecture):
    """Rope's base is raised for long contexts (NTK-aware, by alpha)."""

    default_alpha: int

    def write_rope(self, meta: Metadata, head_dim: int) -> None:
        """Write rope's keys where they are not the common ones."""
        rope = self.rope.full
        if rope.text("rope_type", default="") != "dynamic":
            return
        alpha = rope.number("alpha", default=self.default_alpha)
        base = rope.number("rope_theta", default=10000.0)
        meta.f32(".rope.freq_base", base * alpha ** (head_dim / (head_dim - 2)))
        meta.text(".rope.scaling.type", "none")
        meta.f32(".rope.scaling.factor", 1.0)
        meta.u32(".rope.scaling.original_context_length", _CONTEXT_LENGTH)
        meta.u32(".context_length", _CONTEXT_LENGTH)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name != "lm_head.weight" or not self.hparams.flag("tie_word_embeddings"):
            yield name, tensor


@register("HunYuanMoEV1ForCausalLM")
class HunyuanMoe(_Hunyuan):
    """What is said for each layer must be the same for all."""

    gguf_name = "hunyuan-moe"
    default_alpha = 1000

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        n_ff = self.hparams.integer("intermediate_size")
        meta.u32(".expert_shared_feed_forward_length", n_ff)
        meta.u32(".expert_feed_forward_length", self._same("moe_intermediate_size"))
        meta.u32(".expert_used_count", self._same("moe_topk"))
        meta.u32(".expert_shared_count", self._same("num_shared_expert"))
        self.write_rope(meta, self.hparams.integer("hidden_size") // self.n_heads)

    def _same(self, setting: str) -> int:
        said = self.hparams.per_layer(setting)
        if isinstance(said, int):
            return said
        if len(set(said)) != 1:
            raise CheckpointError(f"config.json: {setting!r} differs from layer to layer")
        return said[0]

    def vocab(self) -> Vocab | None:
        vocab = super().vocab()
        if vocab is None or len(vocab.tokens) <= _MOE_BOS:
            return vocab
        return attrs.evolve(vocab, special={**vocab.special, "bos": _MOE_BOS})


@register("HunYuanDenseV1ForCausalLM")
class HunyuanDense(_Hunyuan):
    """Some say they have one expert, and mean none."""

    gguf_name = "hunyuan-dense"
    default_alpha = 50

    def write_keys(self, meta: Metadata) -> None:
        write_common(meta, self.hparams.with_values(num_experts=None), self.n_blocks)
        self.write_rope(meta, self.head_dim)

    def vocab(self) -> Vocab | None:
        """Ends that the tokenizer's files get wrong: by config.json and generation_config.json."""
        vocab = super().vocab()
        if vocab is None:
            return None
        special = dict(vocab.special)
        if self.checkpoint.json("tokenizer.json") is None and self._is_7b():
            special["bos"] = _DENSE_BOS
        end = self.hparams.find_integer("eod_token_id")
        if end is not None:
            special["eos"] = end
        generation = self.checkpoint.json("generation_config.json")
        ends = generation.get("eos_token_id") if isinstance(generation, dict) else None
        if isinstance(ends, list) and len(ends) > 1 and isinstance(ends[0], int):
            special["eot"] = ends[0]
        return attrs.evolve(vocab, special=special)

    def _is_7b(self) -> bool:
        return self.hparams.integer("hidden_size") == 4096
