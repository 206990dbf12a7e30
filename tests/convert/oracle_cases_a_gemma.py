"""Tiny checkpoints of all Gemmas."""

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
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
}
_PICTURES = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7]}
_GEMMA = {**_SIZES, "head_dim": 16, "vocab_size": 544}
_GEMMA4 = {
    **_GEMMA,
    "num_hidden_layers": 4,
    "global_head_dim": 32,
    "hidden_size_per_layer_input": 16,
    "vocab_size_per_layer_input": 544,
    "num_kv_shared_layers": 2,
    "sliding_window": 16,
    "use_double_wide_mlp": True,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}

CASES = [
    Tiny(name="gemma", hf_name="GemmaForCausalLM", config={**_SIZES, "head_dim": 16}),
    Tiny(name="gemma2", hf_name="Gemma2ForCausalLM", config={**_SIZES, "head_dim": 16}),
    Tiny(
        name="gemma3",
        hf_name="Gemma3ForCausalLM",
        config={**_GEMMA, "num_hidden_layers": 6, "sliding_window": 16},
        tokenizer="gemma3",
    ),
    Tiny(
        name="gemma-embedding",
        hf_name="Gemma3TextModel",
        config={
            **_GEMMA,
            "num_hidden_layers": 6,
            "sliding_window": 16,
            "use_bidirectional_attention": True,
        },
        more_tensors={
            "2_Dense/linear.weight": (64, 32),
            "3_Dense/linear.weight": (32, 64),
        },
        files={
            "modules.json": [
                {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
                {"path": "2_Dense", "type": "sentence_transformers.models.Dense"},
                {"path": "3_Dense", "type": "sentence_transformers.models.Dense"},
            ],
            "1_Pooling/config.json": {"pooling_mode_mean_tokens": True},
            "2_Dense/config.json": {"in_features": 32, "out_features": 64},
            "3_Dense/config.json": {"in_features": 64, "out_features": 32},
        },
        tokenizer="gemma3",
    ),
    Tiny(
        name="gemma3-vision",
        hf_name="Gemma3ForConditionalGeneration",
        config={
            "text_config": {**_GEMMA, "sliding_window": 16},
            "vision_config": {**_VISION, "image_size": 28, "vision_use_head": False},
            "mm_tokens_per_image": 1,
        },
        renames={"vision_tower.": "vision_tower.vision_model."},
        tokenizer="gemma3",
        files={"preprocessor_config.json": {**_PICTURES, "image_seq_length": 1}},
        has_projector=True,
    ),
    Tiny(
        name="gemma3n",
        hf_name="Gemma3nForCausalLM",
        config={
            **_GEMMA,
            "num_hidden_layers": 4,
            "intermediate_size": [48] * 4,
            "hidden_size_per_layer_input": 256,
            "vocab_size": 560,
            "vocab_size_per_layer_input": 544,
            "laurel_rank": 64,
            "num_kv_shared_layers": 0,
            "sliding_window": 16,
            "layer_types": ["sliding_attention"] * 2 + ["full_attention"] * 2,
            "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0],
        },
    ),
    Tiny(
        name="gemma4",
        hf_name="Gemma4ForCausalLM",
        config=_GEMMA4,
        tokenizer="gemma3",
    ),
    Tiny(
        name="gemma4-experts",
        hf_name="Gemma4ForCausalLM",
        config={
            **_GEMMA4,
            "enable_moe_block": True,
            "num_experts": 4,
            "top_k_experts": 2,
            "moe_intermediate_size": 16,
            "num_kv_shared_layers": 0,
            "hidden_size_per_layer_input": 0,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
        },
        tokenizer="gemma3",
    ),
]
