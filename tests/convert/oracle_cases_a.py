"""Tiny checkpoints of Qwen, Phi, Granite, Olmo, StarCoder and Mistral 3 and 4."""

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
_MAMBA = {
    "mamba_d_conv": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 8,
    "mamba_expand": 2,
    "mamba_n_groups": 2,
    "mamba_n_heads": 4,
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
    Tiny(
        name="granite",
        hf_name="GraniteForCausalLM",
        config={
            **_SIZES,
            "embedding_multiplier": 12.0,
            "attention_multiplier": 0.25,
            "residual_multiplier": 0.22,
            "logits_scaling": 8.0,
        },
    ),
    Tiny(
        name="granitemoe",
        hf_name="GraniteMoeForCausalLM",
        config={**_SIZES, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    Tiny(
        name="granitemoe-shared",
        hf_name="GraniteMoeSharedForCausalLM",
        config={
            **_SIZES,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 40,
        },
    ),
    Tiny(
        name="granitehybrid",
        hf_name="GraniteMoeHybridForCausalLM",
        config={
            **_SIZES,
            **_MAMBA,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 40,
            "layer_types": ["mamba", "attention"],
            "position_embedding_type": None,
        },
        config_json={"layer_types": ["mamba", "attention"]},
    ),
    Tiny(
        name="granitehybrid-dense",
        hf_name="GraniteMoeHybridForCausalLM",
        config={
            **_SIZES,
            **_MAMBA,
            "num_local_experts": 0,
            "num_experts_per_tok": 0,
            "shared_intermediate_size": 48,
            "layer_types": ["attention", "attention"],
            "position_embedding_type": "rope",
        },
        config_json={"layer_types": ["attention", "attention"]},
    ),
    Tiny(
        name="bamba",
        hf_name="BambaForCausalLM",
        config={**_SIZES, **_MAMBA, "attn_layer_indices": [1], "attn_rotary_emb": 4},
    ),
    Tiny(
        name="ministral3",
        hf_name="Ministral3ForCausalLM",
        config={
            **_SIZES,
            "head_dim": 16,
            "rope_parameters": {
                "type": "yarn",
                "rope_type": "yarn",
                "rope_theta": 1e6,
                "factor": 4.0,
                "original_max_position_embeddings": 32,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "llama_4_scaling_beta": 0.1,
            },
        },
    ),
    Tiny(
        name="mistral3-vision",
        hf_name="Mistral3ForConditionalGeneration",
        config={
            "text_config": {**_SIZES, "model_type": "mistral", "head_dim": 8},
            "vision_config": {
                **_VISION,
                "num_hidden_layers": 3,
                "model_type": "pixtral",
                "head_dim": 8,
            },
            "spatial_merge_size": 2,
            "image_token_index": 10,
        },
        # With the prefix llama.cpp's converter forgets the row of [IMG_BREAK], without which its own reader refuses the file.
        renames={"language_model.": ""},
        files={
            "preprocessor_config.json": _PICTURES,
            "tokenizer.json": {
                **_WORDS["tokenizer.json"],
                "added_tokens": [{"id": 12, "content": "[IMG_BREAK]"}],
            },
            "tokenizer_config.json": {"added_tokens_decoder": {}},
        },
        has_projector=True,
    ),
    Tiny(
        name="qwen2vl",
        hf_name="Qwen2VLForConditionalGeneration",
        config={
            "text_config": {
                **_SIZES,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 1e6,
                    "mrope_section": [1, 1, 2],
                },
            },
            "vision_config": {
                "depth": 3,
                "embed_dim": 32,
                "hidden_size": 32,
                "mlp_ratio": 2,
                "num_heads": 4,
                "patch_size": 14,
            },
        },
        renames={"model.visual.": "visual."},
        files={"preprocessor_config.json": _PICTURES},
        has_projector=True,
    ),
    Tiny(
        name="qwen25vl",
        hf_name="Qwen2_5_VLForConditionalGeneration",
        config={
            "text_config": {
                **_SIZES,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 1e6,
                    "mrope_section": [1, 1, 2],
                },
            },
            "vision_config": {
                "depth": 4,
                "hidden_size": 32,
                "out_hidden_size": 32,
                "intermediate_size": 48,
                "num_heads": 4,
                "patch_size": 14,
                "fullatt_block_indexes": [1, 3],
            },
        },
        renames={"model.visual.": "visual."},
        files={"preprocessor_config.json": _PICTURES},
        has_projector=True,
    ),
    Tiny(
        name="mistral4",
        hf_name="Ministral3ForCausalLM",
        model_class="Mistral4ForCausalLM",
        config={
            **_SIZES,
            "num_key_value_heads": 4,
            "kv_lora_rank": 16,
            "q_lora_rank": 24,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 8,
            "head_dim": 16,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
        },
    ),
]
