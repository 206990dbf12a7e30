"""Tiny checkpoints of Qwen, Gemma, Phi, Granite, Olmo, StarCoder, Mistral 3, BERT and its kin, T5."""

from __future__ import annotations

from oracle import Tiny

__all__ = ["CASES"]

_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "max_position_embeddings": 128,
}

CASES = [
    Tiny(name="qwen2", hf_name="Qwen2ForCausalLM", config=_SIZES),
]
