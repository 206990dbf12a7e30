"""Tiny checkpoints of the families that neither Ollama nor the issue names, and of multi-modal ones whose text model is what counts."""

from __future__ import annotations

from oracle import Tiny
from oracle_shapes import (
    ATTENTION_LAYER,
    DENSE_LAYER,
    LLAMA_LAYER,
    SIZES,
    ends,
    expert_layers,
    layers,
)

__all__ = ["CASES"]

_RAW = {**SIZES, "rms_norm_eps": 1e-5, "rope_theta": 10000.0}
_NORMED = {"self_attn.q_norm.weight": [8], "self_attn.k_norm.weight": [8]}
_NESTED_ENDS = ends(
    norm="model.language_model.norm.weight", embedding="model.language_model.embed_tokens.weight"
)
_CHATGLM_LAYER = {
    "input_layernorm.weight": [32],
    "post_attention_layernorm.weight": [32],
    "self_attention.query_key_value.weight": [64, 32],
    "self_attention.query_key_value.bias": [64],
    "self_attention.dense.weight": [32, 32],
    "mlp.dense_h_to_4h.weight": [96, 32],
    "mlp.dense_4h_to_h.weight": [32, 48],
}
_GLM4_LAYER = {
    **ATTENTION_LAYER,
    "self_attn.q_proj.bias": [32],
    "self_attn.k_proj.bias": [16],
    "self_attn.v_proj.bias": [16],
    "post_self_attn_layernorm.weight": [32],
    "post_mlp_layernorm.weight": [32],
    "mlp.gate_up_proj.weight": [96, 32],
    "mlp.down_proj.weight": [32, 48],
}
_GLM_OCR_LAYER = {n: s for n, s in _GLM4_LAYER.items() if not n.endswith(".bias")}
_EXAONE_MOE_ATTENTION = {**ATTENTION_LAYER, **_NORMED}
_ERNIE_LAYER = {
    "input_layernorm.weight": [32],
    "post_attention_layernorm.weight": [32],
    "self_attn.qkv_proj.weight": [64, 32],
    "self_attn.o_proj.weight": [32, 32],
    "mlp.up_gate_proj.weight": [96, 32],
    "mlp.down_proj.weight": [32, 48],
}
_BAILING_LAYER = {
    "input_layernorm.weight": [32],
    "post_attention_layernorm.weight": [32],
    "attention.query_key_value.weight": [64, 32],
    "attention.dense.weight": [32, 32],
}
_BAILING = {
    **_RAW,
    "first_k_dense_replace": 0,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "num_shared_experts": 1,
    "norm_topk_prob": True,
}
_PLAMO_NORMS = {
    f"{kind}.weight": [32]
    for kind in ("pre_mixer_norm", "post_mixer_norm", "pre_mlp_norm", "post_mlp_norm")
}
_PLAMO_MIXER = {
    "mixer.in_proj.weight": [64, 32],
    "mixer.conv1d.weight": [32, 1, 4],
    "mixer.bcdt_proj.weight": [96, 32],
    "mixer.dt_proj.weight": [4, 64],
    "mixer.dt_bias": [4],
    "mixer.A_log": [4],
    "mixer.D": [4],
    "mixer.dt_norm_weight": [64],
    "mixer.B_norm_weight": [16],
    "mixer.C_norm_weight": [16],
    "mixer.out_proj.weight": [32, 32],
}
_PLAMO_ATTENTION = {
    "mixer.qkv_proj.weight": [64, 32],
    "mixer.o_proj.weight": [32, 32],
    "mixer.q_weight": [4, 8],
    "mixer.k_weight": [2, 8],
}
_CONVOLUTION = {
    "conv.conv.weight": [32, 1, 3],
    "conv.in_proj.weight": [96, 32],
    "conv.out_proj.weight": [32, 32],
}
_LFM2_ATTENTION = {
    "self_attn.q_proj.weight": [32, 32],
    "self_attn.k_proj.weight": [16, 32],
    "self_attn.v_proj.weight": [16, 32],
    "self_attn.out_proj.weight": [32, 32],
    "self_attn.q_layernorm.weight": [8],
    "self_attn.k_layernorm.weight": [8],
}
_FALCON_H1 = {
    **SIZES,
    "head_dim": 8,
    "mamba_d_ssm": 64,
    "mamba_d_head": 8,
    "mamba_n_heads": 8,
    "mamba_n_groups": 2,
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "attention_in_multiplier": 0.9,
    "attention_out_multiplier": 0.8,
    "embedding_multiplier": 1.7,
    "key_multiplier": 0.7,
    "lm_head_multiplier": 0.6,
    "mlp_multipliers": [0.5, 0.4],
    "ssm_in_multiplier": 1.1,
    "ssm_out_multiplier": 0.3,
    "ssm_multipliers": [0.35, 0.25, 0.15, 0.5, 0.45],
}

CASES = [
    Tiny(
        name="chatglm3",
        hf_name="ChatGLMModel",
        config={
            "hidden_size": 32,
            "ffn_hidden_size": 48,
            "num_layers": 2,
            "num_attention_heads": 4,
            "multi_query_group_num": 2,
            "seq_length": 128,
            "padded_vocab_size": 96,
            "layernorm_epsilon": 1e-5,
            "rope_ratio": 500,
        },
        tensors=layers(_CHATGLM_LAYER, stem="transformer.encoder.layers")
        | ends(
            norm="transformer.encoder.final_layernorm.weight",
            embedding="transformer.embedding.word_embeddings.weight",
            head="transformer.output_layer.weight",
        )
        | {"transformer.rotary_pos_emb.inv_freq": [2]},
    ),
    Tiny(
        name="glm",
        hf_name="GlmForCausalLM",
        config={**SIZES, "head_dim": 8, "pad_token_id": 0, "attention_bias": True},
    ),
    Tiny(
        name="glm4v",
        hf_name="Glm4vForConditionalGeneration",
        config={
            "text_config": {
                **_RAW,
                "partial_rotary_factor": 0.5,
                "rope_scaling": {"rope_type": "default", "mrope_section": [1, 1]},
            },
            "vision_config": {"depth": 1},
        },
        tensors=layers(_GLM4_LAYER, stem="model.language_model.layers")
        | _NESTED_ENDS
        | {"model.visual.blocks.0.norm1.weight": [16]},
    ),
    Tiny(
        name="glm-ocr",
        hf_name="GlmOcrForConditionalGeneration",
        config={
            "text_config": {
                **_RAW,
                "head_dim": 8,
                "num_nextn_predict_layers": 1,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10000.0,
                    "partial_rotary_factor": 1.0,
                    "mrope_section": [1, 1, 2],
                },
            },
            "vision_config": {"depth": 1},
        },
        tensors=layers(_GLM_OCR_LAYER, 3, stem="model.language_model.layers")
        | _NESTED_ENDS
        | {
            "model.language_model.layers.2.eh_proj.weight": [32, 64],
            "model.language_model.layers.2.enorm.weight": [32],
            "model.language_model.layers.2.hnorm.weight": [32],
            "model.language_model.layers.2.shared_head.norm.weight": [32],
        },
    ),
    Tiny(
        name="exaone-moe",
        hf_name="ExaoneMoEForCausalLM",
        config={
            **_RAW,
            "num_hidden_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": 32,
            "head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "num_shared_experts": 1,
            "moe_intermediate_size": 16,
            "first_k_dense_replace": 1,
            "routed_scaling_factor": 2.5,
            "norm_topk_prob": True,
            "scoring_func": "sigmoid",
            "num_nextn_predict_layers": 1,
        },
        tensors=layers(_EXAONE_MOE_ATTENTION)
        | layers(DENSE_LAYER, 1)
        | expert_layers()
        | {"model.layers.1.mlp.e_score_correction_bias": [4]}
        | layers(_EXAONE_MOE_ATTENTION | DENSE_LAYER, 1, stem="mtp.layers")
        | {
            "mtp.fc.weight": [32, 64],
            "mtp.pre_fc_norm_embedding.weight": [32],
            "mtp.pre_fc_norm_hidden.weight": [32],
            "mtp.norm.weight": [32],
        }
        | ends(),
    ),
    Tiny(name="falcon-h1", hf_name="FalconH1ForCausalLM", config=_FALCON_H1),
    Tiny(
        name="jamba",
        hf_name="JambaForCausalLM",
        config={
            **SIZES,
            "num_hidden_layers": 4,
            "attn_layer_offset": 1,
            "attn_layer_period": 2,
            "expert_layer_offset": 1,
            "expert_layer_period": 2,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
            "use_mamba_kernels": False,
        },
    ),
    Tiny(
        name="bloom",
        hf_name="BloomForCausalLM",
        config={"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 96, "seq_length": 128},
    ),
    Tiny(
        name="mpt",
        hf_name="MPTForCausalLM",
        model_class="MptForCausalLM",
        config={"d_model": 32, "n_layers": 2, "n_heads": 4, "vocab_size": 96, "max_seq_len": 128},
    ),
    Tiny(
        name="dbrx",
        hf_name="DbrxForCausalLM",
        config={
            "d_model": 32,
            "n_layers": 2,
            "n_heads": 4,
            "max_seq_len": 128,
            "vocab_size": 96,
            "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 500000},
        },
    ),
    Tiny(
        name="smollm3",
        hf_name="SmolLM3ForCausalLM",
        config={**SIZES, "num_hidden_layers": 4, "pad_token_id": 0},
    ),
    Tiny(name="arcee", hf_name="ArceeForCausalLM", config=SIZES),
    Tiny(name="apertus", hf_name="ApertusForCausalLM", config={**SIZES, "pad_token_id": 0}),
    Tiny(
        name="orion",
        hf_name="OrionForCausalLM",
        config=_RAW,
        tensors=layers(LLAMA_LAYER)
        | layers({"input_layernorm.bias": [32], "post_attention_layernorm.bias": [32]})
        | ends()
        | {"model.norm.bias": [32]},
    ),
    Tiny(
        name="seed-oss",
        hf_name="SeedOssForCausalLM",
        config={**SIZES, "head_dim": 8, "pad_token_id": 0},
    ),
    Tiny(
        name="xverse",
        hf_name="XverseForCausalLM",
        config={**_RAW, "num_key_value_heads": 4},
        tensors=layers(
            {
                **LLAMA_LAYER,
                "self_attn.k_proj.weight": [32, 32],
                "self_attn.v_proj.weight": [32, 32],
            }
        )
        | ends(),
    ),
    Tiny(
        name="ernie4.5",
        hf_name="Ernie4_5ForCausalLM",
        config={**SIZES, "head_dim": 8, "pad_token_id": 0},
    ),
    Tiny(
        name="ernie4.5-fused",
        hf_name="Ernie4_5_ForCausalLM",
        config=_RAW,
        tensors=layers(_ERNIE_LAYER, stem="ernie.layers")
        | ends(norm="ernie.norm.weight", embedding="ernie.embed_tokens.weight"),
    ),
    Tiny(
        name="ernie4.5-moe",
        hf_name="Ernie4_5_MoeForCausalLM",
        config={
            **SIZES,
            "intermediate_size": 32,
            "pad_token_id": 0,
            "moe_num_experts": 4,
            "moe_k": 2,
            "moe_intermediate_size": 16,
            "moe_num_shared_experts": 1,
            "moe_layer_interval": 1,
            "moe_layer_start_index": 1,
        },
    ),
    Tiny(
        name="hunyuan-dense",
        hf_name="HunYuanDenseV1ForCausalLM",
        config={
            **_RAW,
            "head_dim": 8,
            "max_position_embeddings": 32768,
            "num_experts": 1,
            "tie_word_embeddings": True,
            "rope_scaling": {"type": "dynamic", "alpha": 1000.0, "factor": 1.0},
        },
        tensors=layers(LLAMA_LAYER)
        | layers({"self_attn.query_layernorm.weight": [8], "self_attn.key_layernorm.weight": [8]})
        | ends(),
    ),
    Tiny(
        name="hunyuan-moe",
        hf_name="HunYuanMoEV1ForCausalLM",
        config={
            **_RAW,
            "num_experts": 4,
            "moe_topk": [2, 2],
            "moe_intermediate_size": [48, 48],
            "num_shared_expert": [1, 1],
        },
        tensors=layers(ATTENTION_LAYER)
        | layers({"self_attn.query_layernorm.weight": [8], "self_attn.key_layernorm.weight": [8]})
        | {
            name: [48 if size == 16 else size for size in shape]
            for name, shape in expert_layers(0, 2, shared="shared_mlp", gate="gate.wg").items()
        }
        | ends(),
    ),
    Tiny(
        name="bailing-moe",
        hf_name="BailingMoeForCausalLM",
        config=_BAILING,
        tensors=layers(_BAILING_LAYER)
        | expert_layers(0, 2)
        | ends(embedding="model.word_embeddings.weight"),
    ),
    Tiny(
        name="bailing-moe2",
        hf_name="BailingMoeV2ForCausalLM",
        config={
            **_BAILING,
            "first_k_dense_replace": 1,
            "partial_rotary_factor": 0.5,
            "routed_scaling_factor": 2.5,
            "score_function": "sigmoid",
            "n_group": 1,
            "topk_group": 1,
            "num_nextn_predict_layers": 0,
        },
        tensors=layers(
            {
                **_BAILING_LAYER,
                "attention.query_layernorm.weight": [8],
                "attention.key_layernorm.weight": [8],
            }
        )
        | layers(DENSE_LAYER, 1)
        | expert_layers()
        | {"model.layers.1.mlp.gate.expert_bias": [4]}
        | ends(embedding="model.word_embeddings.weight"),
    ),
    Tiny(
        name="dots1",
        hf_name="Dots1ForCausalLM",
        config={
            **SIZES,
            "num_key_value_heads": 4,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_shared_experts": 1,
            "moe_intermediate_size": 16,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
        },
        config_json={"scoring_func": "sigmoid"},
    ),
    Tiny(
        name="deci",
        hf_name="DeciLMForCausalLM",
        config={
            **_RAW,
            "num_hidden_layers": 3,
            "num_key_value_heads": None,
            "block_configs": [
                {
                    "attention": {"n_heads_in_group": 2, "replace_with_linear": False},
                    "ffn": {"ffn_mult": 1.0},
                },
                {
                    "attention": {"n_heads_in_group": None, "replace_with_linear": True},
                    "ffn": {"ffn_mult": 0.5},
                },
                {
                    "attention": {"n_heads_in_group": None, "replace_with_linear": False},
                    "ffn": {"ffn_mult": 1.0},
                },
            ],
        },
        tensors=layers(
            {
                "post_attention_layernorm.weight": [32],
                "mlp.gate_proj.weight": [256, 32],
                "mlp.up_proj.weight": [256, 32],
                "mlp.down_proj.weight": [32, 256],
            },
            3,
        )
        | layers({"input_layernorm.weight": [32]}, 2)
        | {
            f"model.layers.0.{n}": s
            for n, s in ATTENTION_LAYER.items()
            if n.startswith("self_attn")
        }
        | {"model.layers.1.self_attn.linear_attn.weight": [32, 32]}
        | ends(),
    ),
    Tiny(
        name="plamo2",
        hf_name="Plamo2ForCausalLM",
        config={
            **_RAW,
            "hidden_size_per_head": 8,
            "mamba_num_heads": 4,
            "mamba_d_state": 16,
            "mamba_d_conv": 4,
            "mamba_step": 2,
            "mamba_enabled": True,
        },
        tensors=layers(
            {**_PLAMO_NORMS, "mlp.gate_up_proj.weight": [96, 32], "mlp.down_proj.weight": [32, 48]},
            stem="model.layers.layers",
        )
        | {f"model.layers.layers.0.{n}": s for n, s in _PLAMO_MIXER.items()}
        | {f"model.layers.layers.1.{n}": s for n, s in _PLAMO_ATTENTION.items()}
        | ends(head=""),
        not_run="llama.cpp never comes back from layers as small as these",
    ),
    Tiny(
        name="lfm2-vl",
        hf_name="Lfm2VlForConditionalGeneration",
        config={
            "text_config": {
                **SIZES,
                "architectures": ["Lfm2ForCausalLM"],
                "layer_types": ["conv", "full_attention"],
                "conv_L_cache": 3,
                "norm_eps": 1e-5,
                "block_auto_adjust_ff_dim": False,
                "block_ffn_dim_multiplier": 1.0,
                "block_multiple_of": 256,
                "rope_theta": 1000000.0,
            },
        },
        tensors=layers(
            {
                "operator_norm.weight": [32],
                "ffn_norm.weight": [32],
                "feed_forward.w1.weight": [48, 32],
                "feed_forward.w2.weight": [32, 48],
                "feed_forward.w3.weight": [48, 32],
            },
            stem="model.language_model.layers",
        )
        | {f"model.language_model.layers.0.{n}": s for n, s in _CONVOLUTION.items()}
        | {f"model.language_model.layers.1.{n}": s for n, s in _LFM2_ATTENTION.items()}
        | {
            "model.language_model.embed_tokens.weight": [96, 32],
            "model.language_model.embedding_norm.weight": [32],
            "model.vision_tower.vision_model.post_layernorm.weight": [16],
            "model.multi_modal_projector.linear_1.weight": [32, 64],
        },
    ),
]
