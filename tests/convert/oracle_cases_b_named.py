"""Tiny checkpoints of the architectures that Ollama converts and that are not in the other files: DeepSeek, GLM, gpt-oss, LFM2, Nemotron, Qwen."""

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

_MLA = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
_LATENT_LAYER = {
    "input_layernorm.weight": [32],
    "post_attention_layernorm.weight": [32],
    "self_attn.q_a_proj.weight": [16, 32],
    "self_attn.q_a_layernorm.weight": [16],
    "self_attn.q_b_proj.weight": [48, 16],
    "self_attn.kv_a_proj_with_mqa.weight": [20, 32],
    "self_attn.kv_a_layernorm.weight": [16],
    "self_attn.kv_b_proj.weight": [64, 16],
    "self_attn.o_proj.weight": [32, 32],
    "mlp.gate.e_score_correction_bias": [4],
}
_EXPERTS = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "routed_scaling_factor": 1.5,
    "norm_topk_prob": True,
}
_YARN = {
    "type": "yarn",
    "factor": 4,
    "mscale": 0.7,
    "mscale_all_dim": 0.7,
    "beta_fast": 32,
    "beta_slow": 1,
    "original_max_position_embeddings": 64,
}
_SECTIONS = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
_LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 4,
    "head_dim": 8,
    "num_hidden_layers": 4,
    "full_attention_interval": 4,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "mrope_section": [1, 1, 0],
    },
}
_FEW_EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
_QK_NORMED = {
    **ATTENTION_LAYER,
    "self_attn.q_norm.weight": [8],
    "self_attn.k_norm.weight": [8],
}
_STACKED = {
    "mlp.gate.weight": [4, 32],
    "mlp.experts.gate_up_proj": [4, 32, 32],
    "mlp.experts.down_proj": [4, 16, 32],
}
_NEXT_LAYER = {**_QK_NORMED, "self_attn.q_proj.weight": [64, 32]}
_NEXT_ENDS = {
    "mtp.fc.weight": [32, 64],
    "mtp.pre_fc_norm_embedding.weight": [32],
    "mtp.pre_fc_norm_hidden.weight": [32],
    "mtp.norm.weight": [32],
}
_NEXT_MOE = {
    "mlp.shared_expert_gate.weight": [1, 32],
    **{
        name.removeprefix("model.layers.0."): shape
        for name, shape in expert_layers(0, 1, shared="shared_expert").items()
    },
}
_PACKED = {
    **{
        f"self_attn.{part}_proj.bias": [n]
        for part, n in (("q", 32), ("k", 16), ("v", 16), ("o", 32))
    },
    "self_attn.sinks": [4],
    "mlp.router.weight": [2, 32],
    "mlp.router.bias": [2],
    "mlp.experts.gate_up_proj_blocks": ["U8", 2, 128, 1, 16],
    "mlp.experts.gate_up_proj_scales": ["U8", 2, 128, 1],
    "mlp.experts.gate_up_proj_bias": [2, 128],
    "mlp.experts.down_proj_blocks": ["U8", 2, 32, 2, 16],
    "mlp.experts.down_proj_scales": ["U8", 2, 32, 2],
    "mlp.experts.down_proj_bias": [2, 32],
}
_VISION = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_heads": 2,
    "out_hidden_size": 32,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "in_channels": 3,
}
_DEEP_VISION = {**_VISION, "deepstack_visual_indexes": [0]}
_CONVOLUTIONS = {**SIZES, "layer_types": ["conv", "full_attention"], "pad_token_id": 0}
_MIXER = {
    "mixer.A_log": [8],
    "mixer.D": [8],
    "mixer.dt_bias": [8],
    "mixer.conv1d.weight": [128, 1, 4],
    "mixer.conv1d.bias": [128],
    "mixer.in_proj.weight": [200, 32],
    "mixer.norm.weight": [64],
    "mixer.out_proj.weight": [32, 64],
}
_MIXER_ATTENTION = {
    "mixer.q_proj.weight": [32, 32],
    "mixer.k_proj.weight": [16, 32],
    "mixer.v_proj.weight": [16, 32],
    "mixer.o_proj.weight": [32, 32],
}
_MIXER_EXPERTS = {
    "mixer.gate.weight": [4, 32],
    "mixer.gate.e_score_correction_bias": [4],
    "mixer.shared_experts.up_proj.weight": [16, 32],
    "mixer.shared_experts.down_proj.weight": [32, 16],
    **{f"mixer.experts.{i}.up_proj.weight": [16, 32] for i in range(4)},
    **{f"mixer.experts.{i}.down_proj.weight": [32, 16] for i in range(4)},
}

CASES = [
    Tiny(
        name="deepseek",
        hf_name="DeepseekForCausalLM",
        config={**SIZES, **_EXPERTS, "rms_norm_eps": 1e-6, "rope_theta": 10000.0},
        tensors=layers(ATTENTION_LAYER) | layers(DENSE_LAYER, 1) | expert_layers() | ends(),
    ),
    Tiny(
        name="deepseek2",
        hf_name="DeepseekV2ForCausalLM",
        config={**SIZES, **_EXPERTS, **_MLA, "rope_scaling": _YARN},
    ),
    Tiny(
        name="deepseek3",
        hf_name="DeepseekV3ForCausalLM",
        config={**SIZES, **_EXPERTS, **_MLA, "num_nextn_predict_layers": 1},
        more_tensors={"model.layers.2.eh_proj.weight": [32, 64]},
    ),
    Tiny(
        name="glm4-moe-lite",
        hf_name="Glm4MoeLiteForCausalLM",
        config={**SIZES, **_EXPERTS, **_MLA, "num_nextn_predict_layers": 1, "pad_token_id": 0},
        more_tensors={
            "model.layers.2.eh_proj.weight": [32, 64],
            "model.layers.2.enorm.weight": [32],
            "model.layers.2.hnorm.weight": [32],
            "model.layers.2.shared_head.norm.weight": [32],
            **{f"model.layers.2.{name}": shape for name, shape in _LATENT_LAYER.items()},
            **expert_layers(2, 3),
        },
    ),
    Tiny(
        name="deepseek-ocr",
        hf_name="DeepseekOCRForCausalLM",
        config={
            "language_config": {
                **SIZES,
                **_EXPERTS,
                "num_key_value_heads": 4,
                "kv_lora_rank": None,
                "q_lora_rank": None,
                "qk_nope_head_dim": 0,
                "qk_rope_head_dim": 0,
                "v_head_dim": 0,
                "scoring_func": "softmax",
            },
        },
        tensors=layers(
            {
                **ATTENTION_LAYER,
                "self_attn.k_proj.weight": [32, 32],
                "self_attn.v_proj.weight": [32, 32],
            }
        )
        | layers(DENSE_LAYER, 1)
        | expert_layers()
        | ends()
        | {"model.sam_model.pos_embed": [1, 4, 4, 8], "model.view_seperator": [32]},
    ),
    Tiny(
        name="glm4-moe",
        hf_name="Glm4MoeForCausalLM",
        config={**SIZES, **_EXPERTS, "head_dim": 8, "pad_token_id": 0, "use_qk_norm": True},
    ),
    Tiny(
        name="gpt-oss",
        hf_name="GptOssForCausalLM",
        config={
            **SIZES,
            "head_dim": 8,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 32,
            "pad_token_id": 0,
        },
    ),
    Tiny(
        name="gpt-oss-packed",
        hf_name="GptOssForCausalLM",
        config={
            **SIZES,
            "head_dim": 8,
            "intermediate_size": 64,
            "rms_norm_eps": 1e-5,
            "rope_theta": 150000,
            "num_local_experts": 2,
            "num_experts_per_tok": 2,
            "sliding_window": 32,
            "quantization_config": {"quant_method": "mxfp4"},
        },
        tensors=layers(ATTENTION_LAYER | _PACKED) | ends(),
    ),
    Tiny(
        name="command-r",
        hf_name="CohereForCausalLM",
        config={**SIZES, "pad_token_id": 0},
    ),
    Tiny(
        name="cohere2",
        hf_name="Cohere2ForCausalLM",
        config={
            **SIZES,
            "num_hidden_layers": 4,
            "layer_norm_eps": 1e-5,
            "logit_scale": 0.25,
            "sliding_window": 32,
            "rotary_pct": 1.0,
            "rope_theta": 50000,
        },
        tensors=layers({n: s for n, s in LLAMA_LAYER.items() if "post_attention" not in n}, 4)
        | ends(head=""),
    ),
    Tiny(
        name="lfm2",
        hf_name="Lfm2ForCausalLM",
        config={
            **_CONVOLUTIONS,
            "block_auto_adjust_ff_dim": True,
            "block_multiple_of": 16,
            "block_ffn_dim_multiplier": 1.0,
        },
    ),
    Tiny(
        name="lfm2-moe",
        hf_name="Lfm2MoeForCausalLM",
        config={
            **_CONVOLUTIONS,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "num_dense_layers": 1,
        },
    ),
    Tiny(name="nemotron", hf_name="NemotronForCausalLM", config={**SIZES, "head_dim": 8}),
    Tiny(
        name="nemotron-h",
        hf_name="NemotronHForCausalLM",
        config={
            **SIZES,
            "num_hidden_layers": 3,
            "hybrid_override_pattern": "M*-",
            "head_dim": 8,
            "mamba_head_dim": 8,
            "mamba_num_heads": 8,
            "n_groups": 2,
            "ssm_state_size": 16,
            "conv_kernel": 4,
            "layer_norm_epsilon": 1e-5,
            "rms_norm_eps": 1e-5,
        },
        tensors=layers({"norm.weight": [32]}, 3, "backbone.layers")
        | layers(_MIXER, 1, "backbone.layers")
        | ends(norm="backbone.norm_f.weight", embedding="backbone.embeddings.weight")
        | {
            "backbone.layers.1.mixer.q_proj.weight": [32, 32],
            "backbone.layers.1.mixer.k_proj.weight": [16, 32],
            "backbone.layers.1.mixer.v_proj.weight": [16, 32],
            "backbone.layers.1.mixer.o_proj.weight": [32, 32],
            "backbone.layers.2.mixer.up_proj.weight": [48, 32],
            "backbone.layers.2.mixer.down_proj.weight": [32, 48],
        },
    ),
    Tiny(
        name="nemotron-h-moe",
        hf_name="NemotronHForCausalLM",
        config={
            **SIZES,
            **_EXPERTS,
            "num_hidden_layers": 3,
            "hybrid_override_pattern": "M*E",
            "head_dim": 8,
            "mamba_head_dim": 8,
            "mamba_num_heads": 8,
            "n_groups": 2,
            "ssm_state_size": 16,
            "conv_kernel": 4,
            "layer_norm_epsilon": 1e-5,
            "rms_norm_eps": 1e-5,
            "moe_shared_expert_intermediate_size": 16,
        },
        tensors=layers({"norm.weight": [32]}, 3, "backbone.layers")
        | layers(_MIXER, 1, "backbone.layers")
        | ends(norm="backbone.norm_f.weight", embedding="backbone.embeddings.weight")
        | {f"backbone.layers.1.{n}": s for n, s in _MIXER_ATTENTION.items()}
        | {f"backbone.layers.2.{n}": s for n, s in _MIXER_EXPERTS.items()},
    ),
    Tiny(
        name="nemotron-h-next",
        hf_name="NemotronHForCausalLM",
        config={
            **SIZES,
            **_EXPERTS,
            "num_hidden_layers": 1,
            "hybrid_override_pattern": "E",
            "head_dim": 8,
            "mamba_head_dim": 8,
            "mamba_num_heads": 8,
            "n_groups": 2,
            "ssm_state_size": 16,
            "conv_kernel": 4,
            "layer_norm_epsilon": 1e-5,
            "rms_norm_eps": 1e-5,
            "moe_shared_expert_intermediate_size": 16,
            "num_nextn_predict_layers": 1,
        },
        tensors=layers({"norm.weight": [32]}, 1, "backbone.layers")
        | ends(norm="backbone.norm_f.weight", embedding="backbone.embeddings.weight")
        | {f"backbone.layers.0.{n}": s for n, s in _MIXER_EXPERTS.items()}
        | layers(_MIXER_ATTENTION, 1, "mtp.layers")
        | {f"mtp.layers.1.{n}": s for n, s in _MIXER_EXPERTS.items()}
        | {
            "mtp.layers.0.norm.weight": [32],
            "mtp.layers.0.enorm.weight": [32],
            "mtp.layers.0.hnorm.weight": [32],
            "mtp.layers.0.eh_proj.weight": [32, 64],
            "mtp.layers.1.norm.weight": [32],
            "mtp.layers.1.final_layernorm.weight": [32],
        },
        not_run="it has neither mixer",
    ),
    Tiny(
        name="qwen2.5-vl",
        hf_name="Qwen2_5_VLForConditionalGeneration",
        config={"text_config": {**SIZES, "rope_parameters": _SECTIONS}, "vision_config": _VISION},
    ),
    Tiny(
        name="qwen3-vl",
        hf_name="Qwen3VLForConditionalGeneration",
        config={
            "text_config": {**SIZES, "head_dim": 8, "rope_parameters": _SECTIONS},
            "vision_config": _DEEP_VISION,
        },
    ),
    Tiny(
        name="qwen3-vl-moe",
        hf_name="Qwen3VLMoeForConditionalGeneration",
        config={
            "text_config": {
                **SIZES,
                **_FEW_EXPERTS,
                "head_dim": 8,
                "rms_norm_eps": 1e-6,
                "rope_parameters": _SECTIONS,
            },
            "vision_config": _DEEP_VISION,
        },
        tensors=layers(_QK_NORMED | _STACKED, stem="model.language_model.layers")
        | ends(
            norm="model.language_model.norm.weight",
            embedding="model.language_model.embed_tokens.weight",
        ),
    ),
    Tiny(
        name="qwen3-next",
        hf_name="Qwen3NextForCausalLM",
        config={**SIZES, **_LINEAR, **_FEW_EXPERTS},
        more_tensors={**layers(_NEXT_LAYER | _NEXT_MOE, 1, "mtp.layers"), **_NEXT_ENDS},
    ),
    Tiny(
        name="qwen3.5",
        hf_name="Qwen3_5ForCausalLM",
        config={**SIZES, **_LINEAR, "mtp_num_hidden_layers": 1},
        more_tensors={**layers(_NEXT_LAYER | DENSE_LAYER, 1, "mtp.layers"), **_NEXT_ENDS},
    ),
    Tiny(
        name="qwen3.5-moe",
        hf_name="Qwen3_5MoeForCausalLM",
        config={**SIZES, **_LINEAR, **_FEW_EXPERTS, "mtp_num_hidden_layers": 1},
        more_tensors={**layers(_NEXT_LAYER | _NEXT_MOE, 1, "mtp.layers"), **_NEXT_ENDS},
    ),
    Tiny(
        name="llama4",
        hf_name="Llama4ForCausalLM",
        config={
            **SIZES,
            "num_hidden_layers": 4,
            "intermediate_size_mlp": 64,
            "head_dim": 8,
            "num_local_experts": 4,
            "num_experts_per_tok": 1,
            "interleave_moe_layer_step": 2,
            "pad_token_id": 0,
        },
    ),
    Tiny(
        name="laguna",
        hf_name="LagunaForCausalLM",
        config={
            **SIZES,
            **_FEW_EXPERTS,
            "head_dim": 8,
            "rms_norm_eps": 1e-6,
            "num_attention_heads_per_layer": [4, 8],
            "layer_types": ["full_attention", "sliding_attention"],
            "mlp_layer_types": ["dense", "sparse"],
            "sliding_window": 32,
            "gating": True,
            "moe_routed_scaling_factor": 2.5,
            "rope_parameters": {
                "full_attention": {
                    "rope_type": "default",
                    "rope_theta": 500000.0,
                    "partial_rotary_factor": 0.5,
                },
                "sliding_attention": {
                    "rope_type": "default",
                    "rope_theta": 10000.0,
                    "partial_rotary_factor": 1.0,
                },
            },
        },
        tensors=layers(ATTENTION_LAYER)
        | layers({"self_attn.q_norm.weight": [8], "self_attn.k_norm.weight": [8]})
        | layers(DENSE_LAYER, 1)
        | expert_layers(shared="shared_expert")
        | ends()
        | {
            "model.layers.0.self_attn.g_proj.weight": [4, 32],
            "model.layers.1.self_attn.g_proj.weight": [8, 32],
            "model.layers.1.self_attn.q_proj.weight": [64, 32],
            "model.layers.1.self_attn.o_proj.weight": [32, 64],
            "model.layers.1.mlp.experts.e_score_correction_bias": [4],
        },
    ),
]
