"""Tiny checkpoints of the other families: Falcon, EXAONE, GLM, StableLM, InternLM, MiniCPM, state spaces, GPT-2 and what came after."""

from __future__ import annotations

from oracle import Tiny
from oracle_shapes import LLAMA_LAYER, SIZES, ends, layers

__all__ = ["CASES"]

_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


_EXAONE_LAYER = {
    "ln_1.weight": [32],
    "ln_2.weight": [32],
    "attn.attention.q_proj.weight": [32, 32],
    "attn.attention.k_proj.weight": [16, 32],
    "attn.attention.v_proj.weight": [16, 32],
    "attn.attention.out_proj.weight": [32, 32],
    "mlp.c_fc_0.weight": [48, 32],
    "mlp.c_fc_1.weight": [48, 32],
    "mlp.c_proj.weight": [32, 48],
}
_EXAONE4_LAYER = {
    **{
        name: shape for name, shape in LLAMA_LAYER.items() if not name.startswith("input_layernorm")
    },
    "post_feedforward_layernorm.weight": [32],
    "self_attn.q_norm.weight": [8],
    "self_attn.k_norm.weight": [8],
}
_INTERNLM2_LAYER = {
    "attention_norm.weight": [32],
    "ffn_norm.weight": [32],
    "attention.wqkv.weight": [64, 32],
    "attention.wo.weight": [32, 32],
    "feed_forward.w1.weight": [48, 32],
    "feed_forward.w2.weight": [32, 48],
    "feed_forward.w3.weight": [48, 32],
}
_MINICPM3_LAYER = {
    "input_layernorm.weight": [32],
    "post_attention_layernorm.weight": [32],
    "self_attn.q_a_proj.weight": [16, 32],
    "self_attn.q_a_layernorm.weight": [16],
    "self_attn.q_b_proj.weight": [48, 16],
    "self_attn.kv_a_proj_with_mqa.weight": [20, 32],
    "self_attn.kv_a_layernorm.weight": [16],
    "self_attn.kv_b_proj.weight": [64, 16],
    "self_attn.o_proj.weight": [32, 32],
    "mlp.gate_proj.weight": [48, 32],
    "mlp.up_proj.weight": [48, 32],
    "mlp.down_proj.weight": [32, 48],
}
_NEOX_LAYER = {
    **{f"{n}_layernorm.{p}": [32] for n in ("input", "post_attention") for p in ("weight", "bias")},
    "attention.query_key_value.weight": [96, 32],
    "attention.query_key_value.bias": [96],
    "attention.dense.weight": [32, 32],
    "attention.dense.bias": [32],
    "mlp.dense_h_to_4h.weight": [128, 32],
    "mlp.dense_h_to_4h.bias": [128],
    "mlp.dense_4h_to_h.weight": [32, 128],
    "mlp.dense_4h_to_h.bias": [32],
}
_LONGROPE = {"type": "longrope", "original_max_position_embeddings": 64}

CASES = [
    Tiny(
        name="falcon-multi-query",
        hf_name="FalconForCausalLM",
        config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_kv_heads": 1,
            "vocab_size": 96,
        },
    ),
    Tiny(
        name="falcon-groups",
        hf_name="FalconForCausalLM",
        config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_kv_heads": 2,
            "vocab_size": 96,
            "new_decoder_architecture": True,
        },
    ),
    Tiny(
        name="exaone",
        hf_name="ExaoneForCausalLM",
        config={
            **SIZES,
            "num_layers": 2,
            "activation_function": "silu",
            "layer_norm_epsilon": 1e-5,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "rope_scaling": _LLAMA3_ROPE,
        },
        tensors=layers(_EXAONE_LAYER, stem="transformer.h")
        | ends(norm="transformer.ln_f.weight", embedding="transformer.wte.weight"),
    ),
    Tiny(
        name="exaone4",
        hf_name="Exaone4ForCausalLM",
        config={
            **SIZES,
            "num_hidden_layers": 4,
            "rms_norm_eps": 1e-5,
            "sliding_window": 32,
            "sliding_window_pattern": "LLLG",
            "rope_theta": 10000.0,
            "rope_scaling": _LLAMA3_ROPE,
        },
        tensors=layers(_EXAONE4_LAYER, 4) | ends(),
    ),
    Tiny(
        name="glm4", hf_name="Glm4ForCausalLM", config={**SIZES, "head_dim": 8, "pad_token_id": 0}
    ),
    Tiny(name="stablelm", hf_name="StableLmForCausalLM", config={**SIZES, "use_qkv_bias": True}),
    Tiny(
        name="internlm2",
        hf_name="InternLM2ForCausalLM",
        config={
            **SIZES,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1000000,
            "rope_scaling": {"type": "dynamic", "factor": 2.0},
        },
        tensors=layers(_INTERNLM2_LAYER)
        | ends(embedding="model.tok_embeddings.weight", head="output.weight"),
    ),
    Tiny(
        name="internlm3",
        hf_name="InternLM3ForCausalLM",
        config={**SIZES, "head_dim": 8, "rms_norm_eps": 1e-5, "rope_theta": 50000000},
        tensors=layers(LLAMA_LAYER) | ends(),
    ),
    Tiny(
        name="minicpm",
        hf_name="MiniCPMForCausalLM",
        config={
            **SIZES,
            "rms_norm_eps": 1e-5,
            "scale_emb": 12,
            "scale_depth": 1.4,
            "dim_model_base": 256,
            "rope_scaling": {
                **_LONGROPE,
                "long_factor": [1.0, 1.1, 1.2, 1.4],
                "short_factor": [1.0, 1.0, 1.1, 1.2],
            },
        },
        tensors=layers(LLAMA_LAYER) | ends(),
    ),
    Tiny(
        name="minicpm3",
        hf_name="MiniCPM3ForCausalLM",
        config={
            **SIZES,
            "num_key_value_heads": 4,
            "rms_norm_eps": 1e-5,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "rope_scaling": {**_LONGROPE, "long_factor": [1.0, 1.3], "short_factor": [1.0, 1.1]},
        },
        tensors=layers(_MINICPM3_LAYER) | ends(head=""),
    ),
    Tiny(
        name="gpt2",
        hf_name="GPT2LMHeadModel",
        config={
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_ctx": 128,
            "n_positions": 128,
            "vocab_size": 96,
        },
    ),
    Tiny(
        name="gptneox",
        hf_name="GPTNeoXForCausalLM",
        config={
            **SIZES,
            "intermediate_size": 128,
            "rotary_pct": 0.25,
            "layer_norm_eps": 1e-5,
            "use_parallel_residual": True,
        },
        tensors=layers(_NEOX_LAYER, stem="gpt_neox.layers")
        | ends(
            norm="gpt_neox.final_layer_norm.weight",
            embedding="gpt_neox.embed_in.weight",
            head="embed_out.weight",
        )
        | {"gpt_neox.final_layer_norm.bias": [32]},
    ),
    Tiny(
        name="mamba",
        hf_name="MambaForCausalLM",
        config={"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "vocab_size": 96},
    ),
    Tiny(
        name="falcon-mamba",
        hf_name="FalconMambaForCausalLM",
        config={"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "vocab_size": 96},
    ),
    Tiny(
        name="mamba2",
        hf_name="Mamba2ForCausalLM",
        config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "state_size": 16,
            "n_groups": 2,
            "head_dim": 8,
            "num_heads": 8,
            "expand": 2,
            "vocab_size": 96,
        },
    ),
]
