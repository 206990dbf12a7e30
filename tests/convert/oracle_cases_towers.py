"""Tiny checkpoints of towers that see or hear. The language models beside them are in the other files."""

from __future__ import annotations

from oracle import Tiny
from oracle_shapes import SIZES

__all__ = ["CASES"]

_PICTURES = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7]}
_PREPARED = {"preprocessor_config.json": _PICTURES}
_SECTIONS = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
_TEXT = {**SIZES, "head_dim": 8, "rope_parameters": _SECTIONS, "rms_norm_eps": 1e-6}
_QWEN_TOWER = {
    "depth": 3,
    "hidden_size": 32,
    "intermediate_size": 48,
    "out_hidden_size": 32,
    "num_heads": 4,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "num_position_embeddings": 16,
}
_GLM_TOWER = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "out_hidden_size": 32,
    "num_heads": 4,
    "patch_size": 4,
    "image_size": 16,
    "spatial_merge_size": 2,
}
_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
_LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "num_hidden_layers": 4,
}
_FEW_EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}

CASES = [
    Tiny(
        name="tower-qwen3vl",
        hf_name="Qwen3VLForConditionalGeneration",
        config={
            "text_config": _TEXT,
            "vision_config": {**_QWEN_TOWER, "deepstack_visual_indexes": [0, 2]},
        },
        files=_PREPARED,
        has_model=False,
        has_projector=True,
    ),
    Tiny(
        name="tower-qwen3vl-moe",
        hf_name="Qwen3VLMoeForConditionalGeneration",
        config={
            "text_config": {**_TEXT, **_FEW_EXPERTS, "rms_norm_eps": 1e-5},
            "vision_config": {**_QWEN_TOWER, "deepstack_visual_indexes": [1]},
        },
        files=_PREPARED,
        has_model=False,
        has_projector=True,
    ),
    Tiny(
        name="tower-qwen3.5",
        hf_name="Qwen3_5ForConditionalGeneration",
        config={
            "text_config": {**SIZES, **_LINEAR, "head_dim": 8},
            "vision_config": {**_QWEN_TOWER, "deepstack_visual_indexes": []},
        },
        files=_PREPARED,
        has_model=False,
        has_projector=True,
    ),
    Tiny(
        name="tower-qwen3.5-moe",
        hf_name="Qwen3_5MoeForConditionalGeneration",
        config={
            "text_config": {**SIZES, **_LINEAR, **_FEW_EXPERTS, "head_dim": 8},
            "vision_config": _QWEN_TOWER,
        },
        files=_PREPARED,
        has_model=False,
        has_projector=True,
    ),
    Tiny(
        name="tower-glm4v",
        hf_name="Glm4vForConditionalGeneration",
        config={"text_config": _TEXT, "vision_config": _GLM_TOWER},
        files=_PREPARED,
        has_model=False,
        has_projector=True,
    ),
    Tiny(
        name="tower-glm4v-moe",
        hf_name="Glm4vMoeForConditionalGeneration",
        config={
            "text_config": {
                **_TEXT,
                "n_routed_experts": 4,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 16,
                "first_k_dense_replace": 1,
                "n_shared_experts": 1,
                "n_group": 1,
                "topk_group": 1,
            },
            "vision_config": {**_GLM_TOWER, "hidden_act": "gelu"},
        },
        files=_PREPARED,
        has_model=False,
        has_projector=True,
    ),
    Tiny(
        name="tower-glm-ocr",
        hf_name="GlmOcrForConditionalGeneration",
        config={"text_config": _TEXT, "vision_config": _GLM_TOWER},
        files=_PREPARED,
        has_model=False,
        has_projector=True,
    ),
    Tiny(
        name="tower-lfm2",
        hf_name="Lfm2VlForConditionalGeneration",
        config={
            "text_config": {
                **SIZES,
                "layer_types": ["conv", "full_attention"],
                "block_auto_adjust_ff_dim": False,
            },
            "vision_config": {
                **_TOWER,
                "patch_size": 16,
                "num_patches": 16,
                "vision_use_head": False,
            },
            "vision_feature_layer": -2,
            "downsample_factor": 2,
            "projector_hidden_size": 48,
        },
        renames={"vision_tower.": "vision_tower.vision_model."},
        files=_PREPARED,
        has_model=False,
        has_projector=True,
    ),
    Tiny(
        name="tower-llama4",
        hf_name="Llama4ForConditionalGeneration",
        config={
            "text_config": {
                **SIZES,
                "head_dim": 8,
                "intermediate_size_mlp": 48,
                "num_local_experts": 2,
            },
            "vision_config": {
                **_TOWER,
                "image_size": 16,
                "patch_size": 4,
                "vision_output_dim": 32,
                "projector_input_dim": 32,
                "projector_output_dim": 32,
                "intermediate_size": 128,
            },
        },
        files=_PREPARED,
        has_model=False,
        has_projector=True,
    ),
]
