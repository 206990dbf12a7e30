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
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
# A tokenizer of whole words, two of them known.
_WORDS = {
    "tokenizer.json": {
        "version": "1.0",
        "added_tokens": [],
        "model": {
            "type": "BPE",
            "vocab": {**{f"word{i}": i for i in range(93)}, "yes": 93, "no": 94, "|": 95},
            "merges": [],
        },
    },
    "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
}

CASES = [
    Tiny(name="qwen2", hf_name="Qwen2ForCausalLM", config=_SIZES),
    Tiny(
        name="qwen2-embedding",
        hf_name="Qwen2Model",
        config={**_SIZES, "tie_word_embeddings": True},
        files={
            "modules.json": [
                {"path": "", "type": "sentence_transformers.models.Transformer"},
                {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            ],
            "1_Pooling/config.json": {
                "pooling_mode_cls_token": False,
                "pooling_mode_lasttoken": True,
            },
        },
    ),
    Tiny(name="qwen3", hf_name="Qwen3ForCausalLM", config={**_SIZES, "head_dim": 16}),
    Tiny(
        name="qwen3-reranker",
        hf_name="Qwen3ForCausalLM",
        config={
            **_SIZES,
            "tie_word_embeddings": True,
        },
        files={"README.md": "# Qwen3-Reranker", **_WORDS},
        not_run="it pools as a reranker does",
    ),
    Tiny(
        name="qwen2moe",
        hf_name="Qwen2MoeForCausalLM",
        config={**_SIZES, **_EXPERTS, "shared_expert_intermediate_size": 24},
    ),
    Tiny(name="qwen3moe", hf_name="Qwen3MoeForCausalLM", config={**_SIZES, **_EXPERTS}),
    Tiny(name="gemma", hf_name="GemmaForCausalLM", config={**_SIZES, "head_dim": 16}),
    Tiny(name="gemma2", hf_name="Gemma2ForCausalLM", config={**_SIZES, "head_dim": 16}),
    Tiny(
        name="starcoder",
        hf_name="GPTBigCodeForCausalLM",
        config={
            "n_embd": 32,
            "n_head": 4,
            "n_layer": 2,
            "n_positions": 128,
            "vocab_size": 96,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    Tiny(name="starcoder2", hf_name="Starcoder2ForCausalLM", config=_SIZES),
    Tiny(name="olmo", hf_name="OlmoForCausalLM", config={**_SIZES, "clip_qkv": 8.0}),
    Tiny(name="olmo2", hf_name="Olmo2ForCausalLM", config=_SIZES),
    Tiny(
        name="olmo3",
        hf_name="Olmo3ForCausalLM",
        config={**_SIZES, "num_hidden_layers": 5, "sliding_window": 16},
    ),
    Tiny(
        name="olmoe",
        hf_name="OlmoeForCausalLM",
        config={**_SIZES, "num_key_value_heads": 4, "num_experts": 4, "num_experts_per_tok": 2},
    ),
    Tiny(
        name="phi2",
        hf_name="PhiForCausalLM",
        config={**_SIZES, "num_key_value_heads": 4, "intermediate_size": 128},
    ),
    Tiny(
        name="phi3",
        hf_name="Phi3ForCausalLM",
        config={**_SIZES, "original_max_position_embeddings": 128, "sliding_window": 64},
    ),
    Tiny(
        name="phi3-long",
        hf_name="Phi3ForCausalLM",
        config={
            **_SIZES,
            "original_max_position_embeddings": 32,
            "partial_rotary_factor": 0.5,
            "rope_scaling": {
                "type": "longrope",
                "long_factor": [1.5, 2.5],
                "short_factor": [1.0, 1.25],
            },
        },
    ),
    Tiny(
        name="phimoe",
        hf_name="PhiMoEForCausalLM",
        model_class="PhimoeForCausalLM",
        config={
            **_SIZES,
            "num_local_experts": 4,
            "original_max_position_embeddings": 128,
            "attention_bias": True,
            "lm_head_bias": True,
        },
    ),
]
