"""Tiny checkpoints of more towers: those of Gemma, Idefics, InternVL, Kimi, DeepSeek OCR, Phi 4 and Pixtral."""

from __future__ import annotations

from collections.abc import Sequence

from oracle import Tiny
from oracle_shapes import SIZES

__all__ = ["CASES"]

_PICTURES = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7]}
_PREPARED = {"preprocessor_config.json": _PICTURES}
_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 4,
}
_GEMMA = {**SIZES, "head_dim": 16, "vocab_size": 544}
_GEMMA4_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "patch_size": 4,
    "position_embedding_size": 16,
}
_GEMMA4_TEXT = {
    **_GEMMA,
    "global_head_dim": 32,
    "hidden_size_per_layer_input": 16,
    "vocab_size_per_layer_input": 544,
    "num_kv_shared_layers": 0,
    "layer_types": ["sliding_attention", "full_attention"],
}


def _linear(name: str, n_out: int, n_in: int) -> dict[str, Sequence[int]]:
    return {f"{name}.weight": [n_out, n_in], f"{name}.bias": [n_out]}


def _norm(name: str, n: int = 32) -> dict[str, Sequence[int]]:
    return {f"{name}.weight": [n], f"{name}.bias": [n]}


def _siglip(stem: str, n_layers: int, patch: Sequence[int]) -> dict[str, Sequence[int]]:
    """SigLIP with 16 positions."""
    tensors: dict[str, Sequence[int]] = {
        f"{stem}.embeddings.patch_embedding.weight": patch,
        f"{stem}.embeddings.patch_embedding.bias": [32],
        f"{stem}.embeddings.position_embedding.weight": [16, 32],
        **_norm(f"{stem}.post_layernorm"),
    }
    for i in range(n_layers):
        layer = f"{stem}.encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            tensors |= _linear(f"{layer}.self_attn.{name}", 32, 32)
        tensors |= _linear(f"{layer}.mlp.fc1", 48, 32) | _linear(f"{layer}.mlp.fc2", 32, 48)
        tensors |= _norm(f"{layer}.layer_norm1") | _norm(f"{layer}.layer_norm2")
    return tensors


def _intern() -> dict[str, Sequence[int]]:
    tensors: dict[str, Sequence[int]] = {
        "vision_model.embeddings.class_embedding": [1, 1, 32],
        "vision_model.embeddings.position_embedding": [1, 17, 32],
        "vision_model.embeddings.patch_embedding.weight": [32, 3, 4, 4],
        "vision_model.embeddings.patch_embedding.bias": [32],
        **_norm("mlp1.0", 128),
        **_linear("mlp1.1", 32, 128),
        **_linear("mlp1.3", 32, 32),
    }
    for i in range(2):
        layer = f"vision_model.encoder.layers.{i}"
        tensors |= {f"{layer}.ls1": [32], f"{layer}.ls2": [32]}
        tensors |= _linear(f"{layer}.attn.qkv", 96, 32) | _linear(f"{layer}.attn.proj", 32, 32)
        tensors |= _linear(f"{layer}.mlp.fc1", 48, 32) | _linear(f"{layer}.mlp.fc2", 32, 48)
        tensors |= _norm(f"{layer}.norm1") | _norm(f"{layer}.norm2")
    return tensors


def _moon_vit() -> dict[str, Sequence[int]]:
    tensors: dict[str, Sequence[int]] = {
        "vision_tower.patch_embed.proj.weight": [32, 3, 4, 4],
        "vision_tower.patch_embed.proj.bias": [32],
        "vision_tower.patch_embed.pos_emb.weight": [4, 4, 32],
        **_norm("vision_tower.encoder.final_layernorm"),
        **_norm("multi_modal_projector.pre_norm"),
        **_linear("multi_modal_projector.linear_1", 128, 128),
        **_linear("multi_modal_projector.linear_2", 32, 128),
    }
    for i in range(3):
        layer = f"vision_tower.encoder.blocks.{i}"
        tensors |= _linear(f"{layer}.wqkv", 96, 32) | _linear(f"{layer}.wo", 32, 32)
        tensors |= _linear(f"{layer}.mlp.fc0", 48, 32) | _linear(f"{layer}.mlp.fc1", 32, 48)
        tensors |= _norm(f"{layer}.norm0") | _norm(f"{layer}.norm1")
    return tensors


def _deepseek_ocr() -> dict[str, Sequence[int]]:
    tensors: dict[str, Sequence[int]] = {
        "lm_head.weight": [96, 32],
        "model.embed_tokens.weight": [96, 32],
        "model.image_newline": [32],
        "model.view_seperator": [32],
        **_linear("model.projector.layers", 32, 64),
        "model.sam_model.pos_embed": [1, 4, 4, 32],
        **_linear("model.sam_model.patch_embed.proj", 32, 48),
        "model.sam_model.patch_embed.proj.weight": [32, 3, 4, 4],
        "model.sam_model.neck.0.weight": [16, 32, 1, 1],
        **_norm("model.sam_model.neck.1", 16),
        "model.sam_model.neck.2.weight": [16, 16, 3, 3],
        **_norm("model.sam_model.neck.3", 16),
        "model.sam_model.net_2.weight": [24, 16, 3, 3],
        "model.sam_model.net_3.weight": [32, 24, 3, 3],
        "model.vision_model.embeddings.class_embedding": [32],
        "model.vision_model.embeddings.patch_embedding.weight": [32, 3, 4, 4],
        "model.vision_model.embeddings.position_embedding.weight": [17, 32],
        **_norm("model.vision_model.pre_layrnorm"),
    }
    for i in range(4):
        layer = f"model.sam_model.blocks.{i}"
        tensors |= _linear(f"{layer}.attn.qkv", 96, 32) | _linear(f"{layer}.attn.proj", 32, 32)
        tensors |= _linear(f"{layer}.mlp.lin1", 48, 32) | _linear(f"{layer}.mlp.lin2", 32, 48)
        tensors |= _norm(f"{layer}.norm1") | _norm(f"{layer}.norm2")
        tensors |= {f"{layer}.attn.rel_pos_h": [27, 8], f"{layer}.attn.rel_pos_w": [27, 8]}
        layer = f"model.vision_model.transformer.layers.{i}"
        tensors |= _linear(f"{layer}.self_attn.qkv_proj", 96, 32)
        tensors |= _linear(f"{layer}.self_attn.out_proj", 32, 32)
        tensors |= _linear(f"{layer}.mlp.fc1", 48, 32) | _linear(f"{layer}.mlp.fc2", 32, 48)
        tensors |= _norm(f"{layer}.layer_norm1") | _norm(f"{layer}.layer_norm2")
    return tensors


CASES = [
    Tiny(
        name="tower-gemma4",
        hf_name="Gemma4ForConditionalGeneration",
        config={
            "text_config": _GEMMA4_TEXT,
            "vision_config": {**_GEMMA4_TOWER, "standardize": True},
            "audio_config": None,
        },
        files=_PREPARED,
        tokenizer="gemma3",
        has_model=False,
        has_projector=True,
    ),
    Tiny(
        name="tower-gemma4-audio",
        hf_name="Gemma4ForConditionalGeneration",
        config={
            "text_config": _GEMMA4_TEXT,
            "vision_config": {**_GEMMA4_TOWER, "use_clipped_linears": True},
            "audio_config": {
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "output_proj_dims": 32,
                "subsampling_conv_channels": [8, 4],
            },
        },
        files=_PREPARED,
        tokenizer="gemma3",
        has_model=False,
        has_projector=True,
    ),
    Tiny(
        name="tower-idefics3",
        hf_name="Idefics3ForConditionalGeneration",
        config={
            "text_config": {**SIZES, "model_type": "llama", "head_dim": 8},
            "vision_config": _TOWER,
            "scale_factor": 2,
        },
        files={"preprocessor_config.json": {**_PICTURES, "size": {"longest_edge": 64}}},
        has_model=False,
        has_projector=True,
    ),
    Tiny(
        name="tower-smolvlm",
        hf_name="SmolVLMForConditionalGeneration",
        config={
            "text_config": {**SIZES, "model_type": "llama", "head_dim": 8},
            "vision_config": _TOWER,
            "scale_factor": 4,
        },
        files=_PREPARED,
        has_model=False,
        has_projector=True,
    ),
    Tiny(
        name="tower-llava",
        hf_name="LlavaForConditionalGeneration",
        config={
            "text_config": {**SIZES, "model_type": "mistral", "head_dim": 8},
            "vision_config": {**_TOWER, "model_type": "pixtral", "head_dim": 8},
        },
        # As in `oracle_cases_a`: llama.cpp's converter forgets a row where the embedding has a prefix.
        renames={"language_model.": ""},
        files={
            **_PREPARED,
            "tokenizer.json": {"added_tokens": [{"id": 12, "content": "[IMG_BREAK]"}]},
            "tokenizer_config.json": {"added_tokens_decoder": {}},
        },
        has_projector=True,
    ),
    Tiny(
        name="tower-internvl",
        hf_name="InternVLChatModel",
        config={
            "llm_config": {"architectures": ["Qwen2ForCausalLM"], **SIZES},
            "hidden_size": 32,
            "vision_config": {
                **_TOWER,
                "architectures": ["InternVisionModel"],
                "layer_norm_eps": 1e-6,
                "hidden_act": "gelu",
                "num_hidden_layers": 4,
            },
            "downsample_ratio": 0.5,
            "min_dynamic_patch": 1,
            "max_dynamic_patch": 12,
        },
        config_json={"model_type": "internvl_chat"},
        tensors=_intern(),
        files=_PREPARED,
        has_model=False,
        has_projector=True,
    ),
    Tiny(
        name="tower-kimi-vl",
        hf_name="KimiVLForConditionalGeneration",
        config={
            "text_config": {
                **SIZES,
                "q_lora_rank": None,
                "kv_lora_rank": 16,
                "qk_nope_head_dim": 8,
                "qk_rope_head_dim": 4,
                "v_head_dim": 8,
                "n_routed_experts": 4,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 16,
                "first_k_dense_replace": 1,
                "n_shared_experts": 1,
                "routed_scaling_factor": 1.5,
                "norm_topk_prob": True,
            },
            "vision_config": {**_TOWER, "init_pos_emb_height": 4},
        },
        config_json={"model_type": "kimi_vl"},
        tensors=_moon_vit(),
        files=_PREPARED,
        has_model=False,
        has_projector=True,
    ),
    Tiny(
        name="tower-deepseek-ocr",
        hf_name="DeepseekOCRForCausalLM",
        config={
            "hidden_size": 32,
            "language_config": {
                **SIZES,
                "num_key_value_heads": 4,
                "n_routed_experts": 4,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 16,
                "first_k_dense_replace": 1,
                "n_shared_experts": 1,
                "n_group": 1,
                "topk_group": 1,
                "routed_scaling_factor": 1.5,
                "kv_lora_rank": None,
                "q_lora_rank": None,
                "qk_nope_head_dim": 0,
                "qk_rope_head_dim": 0,
                "v_head_dim": 0,
            },
            "vision_config": {
                "image_size": 16,
                "width": {
                    "clip-l-14-224": {
                        "heads": 4,
                        "image_size": 16,
                        "layers": 4,
                        "patch_size": 4,
                        "width": 32,
                    },
                    "sam_vit_b": {"heads": 4, "layers": 4, "width": 32},
                },
            },
        },
        config_json={"model_type": "deepseek_vl_v2"},
        tensors=_deepseek_ocr(),
        files={"preprocessor_config.json": {**_PICTURES, "image_seq_length": 4}},
        has_model=False,
        has_projector=True,
    ),
    Tiny(
        name="tower-phi4",
        hf_name="Phi4ForCausalLMV",
        config={
            **SIZES,
            "original_max_position_embeddings": 128,
            "vision_config": {k: v for k, v in _TOWER.items() if k != "patch_size"},
            "min_num_patches": 4,
        },
        config_json={"model_type": "phi4-siglip"},
        tensors={
            **_siglip("model.vision_tower.vision_tower.vision_model", 3, [32, 48]),
            **_linear("model.mm_projector.0", 32, 32),
            **_linear("model.mm_projector.2", 32, 32),
        },
        files={"preprocessor_config.json": {**_PICTURES, "patch_size": 4, "max_num_patches": 16}},
        has_model=False,
        has_projector=True,
    ),
]
