"""Tiny checkpoints of towers that hear: Whisper's encoder, Qwen 2.5 Omni, Gemma 3n, Nemotron Nano."""

from __future__ import annotations

from collections.abc import Sequence

from oracle import Tiny
from oracle_shapes import SIZES

__all__ = ["CASES"]

_PICTURES = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7]}
_PREPARED = {"preprocessor_config.json": _PICTURES}
_WHISPER = {
    "d_model": 32,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "num_mel_bins": 16,
    "max_source_positions": 20,
}
_ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_mel_bins": 16,
    "max_source_positions": 20,
}
_RADIO = "vision_model.radio_model.model"
_SOUND = "sound_encoder.encoder"


def _linear(name: str, n_out: int, n_in: int) -> dict[str, Sequence[int]]:
    return {f"{name}.weight": [n_out, n_in], f"{name}.bias": [n_out]}


def _norm(name: str, n: int = 32) -> dict[str, Sequence[int]]:
    return {f"{name}.weight": [n], f"{name}.bias": [n]}


def _radio() -> dict[str, Sequence[int]]:
    tensors: dict[str, Sequence[int]] = {
        "vision_model.radio_model.input_conditioner.norm_mean": [3, 1, 1],
        f"{_RADIO}.patch_generator.cls_token.token": [2, 1280],
        f"{_RADIO}.patch_generator.embedder.weight": [1280, 48],
        f"{_RADIO}.patch_generator.pos_embed": [1, 16, 1280],
        f"{_RADIO}.patch_generator.video_embedder.weight": [1280, 96],
        "mlp1.0.weight": [64],
        "mlp1.1.weight": [32, 64],
        "mlp1.3.weight": [32, 32],
    }
    for i in range(2):
        layer = f"{_RADIO}.blocks.{i}"
        tensors |= _linear(f"{layer}.attn.qkv", 96, 32) | _linear(f"{layer}.attn.proj", 32, 32)
        tensors |= _linear(f"{layer}.mlp.fc1", 48, 32) | _linear(f"{layer}.mlp.fc2", 32, 48)
        tensors |= _norm(f"{layer}.norm1") | _norm(f"{layer}.norm2")
    return tensors


def _parakeet() -> dict[str, Sequence[int]]:
    tensors: dict[str, Sequence[int]] = {
        f"{_SOUND}.subsampling.layers.0.weight": [8, 1, 3, 3],
        f"{_SOUND}.subsampling.layers.0.bias": [8],
        f"{_SOUND}.subsampling.layers.2.weight": [8, 1, 3, 3],
        f"{_SOUND}.subsampling.layers.2.bias": [8],
        **_linear(f"{_SOUND}.subsampling.linear", 32, 16),
        f"{_SOUND}.feature_extractor.featurizer.fb": [1, 16, 33],
        f"{_SOUND}.feature_extractor.featurizer.window": [64],
        "sound_projection.norm.weight": [32],
        **_linear("sound_projection.linear1", 48, 32),
        **_linear("sound_projection.linear2", 32, 48),
    }
    for i in range(2):
        layer = f"{_SOUND}.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            tensors |= _linear(f"{layer}.self_attn.{name}", 32, 32)
        for number in (1, 2):
            tensors |= _linear(f"{layer}.feed_forward{number}.linear1", 48, 32)
            tensors |= _linear(f"{layer}.feed_forward{number}.linear2", 32, 48)
            tensors |= _norm(f"{layer}.norm_feed_forward{number}")
        for name in ("norm_self_att", "norm_conv", "norm_out", "conv.norm"):
            tensors |= _norm(f"{layer}.{name}")
        tensors |= {
            f"{layer}.self_attn.bias_u": [4, 8],
            f"{layer}.self_attn.bias_v": [4, 8],
            f"{layer}.self_attn.relative_k_proj.weight": [32, 32],
            f"{layer}.conv.norm.running_mean": [32],
            f"{layer}.conv.norm.running_var": [32],
            f"{layer}.conv.norm.num_batches_tracked": ["I64"],
            f"{layer}.conv.depthwise_conv.weight": [32, 1, 9],
            f"{layer}.conv.depthwise_conv.bias": [32],
            f"{layer}.conv.pointwise_conv1.weight": [64, 32, 1],
            f"{layer}.conv.pointwise_conv1.bias": [64],
            f"{layer}.conv.pointwise_conv2.weight": [32, 32, 1],
            f"{layer}.conv.pointwise_conv2.bias": [32],
        }
    return tensors


def _gemma3n() -> dict[str, Sequence[int]]:
    """Some blocks of MobileNet, and the layers that hear; without two norms that llama.cpp's converter has no names for."""
    timm, audio = "model.vision_tower.timm_model", "model.audio_tower"
    tensors: dict[str, Sequence[int]] = {
        f"{timm}.conv_stem.conv.weight": [8, 3, 3, 3],
        f"{timm}.conv_stem.conv.bias": [8],
        f"{timm}.conv_stem.bn.weight": [8],
        f"{timm}.blocks.0.0.conv_exp.weight": [16, 8, 3, 3],
        f"{timm}.blocks.0.0.bn1.weight": [16],
        f"{timm}.blocks.0.0.conv_pwl.weight": [8, 16, 1, 1],
        f"{timm}.blocks.0.0.bn2.weight": [8],
        f"{timm}.blocks.1.10.dw_start.conv.weight": [8, 1, 3, 3],
        f"{timm}.blocks.1.10.dw_start.bn.weight": [8],
        f"{timm}.blocks.1.10.layer_scale.gamma": [8],
        f"{timm}.blocks.2.1.attn.query.proj.weight": [16, 8, 1, 1],
        f"{timm}.blocks.2.1.attn.key.down_conv.weight": [8, 1, 3, 3],
        f"{timm}.blocks.2.1.attn.key.norm.weight": [8],
        f"{timm}.blocks.2.1.attn.output.proj.weight": [8, 16, 1, 1],
        f"{timm}.blocks.2.1.norm.weight": [8],
        f"{timm}.msfa.ffn.pw_exp.conv.weight": [32, 16, 1, 1],
        f"{timm}.msfa.ffn.pw_exp.bn.weight": [32],
        f"{timm}.msfa.ffn.pw_proj.conv.weight": [32, 32, 1, 1],
        f"{timm}.msfa.ffn.pw_proj.bn.weight": [32],
        f"{timm}.msfa.norm.weight": [32],
        f"{audio}.subsample_conv_projection.conv_0.conv.weight": [8, 1, 3, 3],
        f"{audio}.subsample_conv_projection.conv_1.conv.weight": [4, 8, 3, 3],
        f"{audio}.subsample_conv_projection.input_proj_linear.weight": [32, 16],
    }
    for i in range(3):
        stem = "model.language_model.altup"
        tensors[f"{stem}_projections.{i}.weight"] = [32, 32]
        tensors[f"{stem}_unembed_projections.{i}.weight"] = [32, 32]
    for kind in ("vision", "audio"):
        stem = f"model.embed_{kind}"
        tensors |= {
            f"{stem}.embedding.weight": [16, 32],
            f"{stem}.hard_embedding_norm.weight": [32],
            f"{stem}.soft_embedding_norm.weight": [32],
            f"{stem}.embedding_projection.weight": [32, 32],
        }
    for i in range(2):
        layer = f"{audio}.conformer.{i}"
        tensors |= {f"{layer}.{name}.weight": shape for name, shape in _CONFORMER.items()}
        tensors |= {f"{layer}.attention.attn.per_dim_scale": [8]}
    return tensors


def _omni() -> dict[str, Sequence[int]]:
    tensors: dict[str, Sequence[int]] = {
        "thinker.visual.patch_embed.proj.weight": [32, 3, 2, 4, 4],
        "thinker.visual.merger.ln_q.weight": [32],
        **_linear("thinker.visual.merger.mlp.0", 128, 128),
        **_linear("thinker.visual.merger.mlp.2", 32, 128),
        "thinker.audio_tower.conv1.weight": [32, 16, 3],
        "thinker.audio_tower.conv1.bias": [32],
        "thinker.audio_tower.conv2.weight": [32, 32, 3],
        "thinker.audio_tower.conv2.bias": [32],
        "thinker.audio_tower.audio_bos_eos_token.weight": [2, 32],
        **_norm("thinker.audio_tower.ln_post"),
        **_linear("thinker.audio_tower.proj", 32, 32),
    }
    for i in range(2):
        layer = f"thinker.visual.blocks.{i}"
        tensors |= {f"{layer}.norm1.weight": [32], f"{layer}.norm2.weight": [32]}
        for letter in "qkv":
            tensors |= _linear(f"{layer}.attn.{letter}", 32, 32)
        tensors |= _linear(f"{layer}.attn.proj", 32, 32)
        tensors |= _linear(f"{layer}.mlp.gate_proj", 48, 32)
        tensors |= _linear(f"{layer}.mlp.up_proj", 48, 32)
        tensors |= _linear(f"{layer}.mlp.down_proj", 32, 48)
        layer = f"thinker.audio_tower.layers.{i}"
        for name in ("q_proj", "v_proj", "out_proj"):
            tensors |= _linear(f"{layer}.self_attn.{name}", 32, 32)
        tensors |= {f"{layer}.self_attn.k_proj.weight": [32, 32]}
        tensors |= _linear(f"{layer}.fc1", 48, 32) | _linear(f"{layer}.fc2", 32, 48)
        tensors |= _norm(f"{layer}.self_attn_layer_norm") | _norm(f"{layer}.final_layer_norm")
    return tensors


_SECTIONS = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
_CONFORMER = {
    "ffw_layer_start.pre_layer_norm": [32],
    "ffw_layer_start.ffw_layer_1": [128, 32],
    "ffw_layer_start.ffw_layer_2": [32, 128],
    "ffw_layer_start.post_layer_norm": [32],
    "attention.pre_attn_norm": [32],
    "attention.attn.relative_position_embedding.pos_proj": [32, 32],
    "attention.attn.q_proj": [32, 32],
    "attention.attn.k_proj": [32, 32],
    "attention.attn.v_proj": [32, 32],
    "attention.post": [32, 32],
    "attention.post_norm": [32],
    "lconv1d.pre_layer_norm": [32],
    "lconv1d.linear_start": [64, 32],
    "lconv1d.depthwise_conv1d": [32, 1, 5],
    "lconv1d.conv_norm": [32],
    "lconv1d.linear_end": [32, 32],
    "ffw_layer_end.pre_layer_norm": [32],
    "ffw_layer_end.ffw_layer_1": [128, 32],
    "ffw_layer_end.ffw_layer_2": [32, 128],
    "ffw_layer_end.post_layer_norm": [32],
    "norm": [32],
}
_MAMBA = {
    "hybrid_override_pattern": "M-",
    "mamba_num_heads": 8,
    "mamba_head_dim": 8,
    "n_groups": 2,
    "ssm_state_size": 8,
    "conv_kernel": 4,
    "expand": 2,
    "head_dim": 8,
}
_NEMOTRON = {
    "llm_config": {**SIZES, **_MAMBA},
    "vision_config": {"patch_size": 4},
    "force_image_size": 16,
    "downsample_ratio": 0.5,
}

CASES = [
    Tiny(
        name="tower-qwen2-audio",
        hf_name="Qwen2AudioForConditionalGeneration",
        config={"text_config": {**SIZES, "model_type": "qwen2"}, "audio_config": _WHISPER},
        has_projector=True,
    ),
    Tiny(
        name="tower-voxtral",
        hf_name="VoxtralForConditionalGeneration",
        config={
            "text_config": {**SIZES, "model_type": "llama", "head_dim": 8},
            "audio_config": _ENCODER,
        },
        has_projector=True,
    ),
    Tiny(
        name="tower-audio-flamingo",
        hf_name="AudioFlamingo3ForConditionalGeneration",
        config={"text_config": {**SIZES, "model_type": "qwen2"}, "audio_config": _ENCODER},
        has_model=False,
        has_projector=True,
    ),
    Tiny(
        name="tower-gemma3n",
        hf_name="Gemma3nForConditionalGeneration",
        config={
            "text_config": {
                **SIZES,
                "head_dim": 8,
                "intermediate_size": [48, 48],
                "rms_norm_eps": 1e-6,
                "altup_num_inputs": 4,
                "altup_active_idx": 0,
                "num_kv_shared_layers": 0,
                "sliding_window": 16,
                "hidden_size_per_layer_input": 16,
                "vocab_size_per_layer_input": 96,
                "layer_types": ["sliding_attention", "full_attention"],
                "activation_sparsity_pattern": [0.95, 0.0],
            },
            "vision_config": {"hidden_size": 32},
            "audio_config": {
                "hidden_size": 32,
                "conf_num_hidden_layers": 2,
                "conf_num_attention_heads": 4,
                "input_feat_size": 16,
            },
        },
        config_json={"model_type": "gemma3n"},
        tensors=_gemma3n(),
        files={"preprocessor_config.json": {**_PICTURES, "size": {"height": 768, "width": 768}}},
        has_model=False,
        has_projector=True,
    ),
    Tiny(
        name="tower-nemotron",
        hf_name="NemotronH_Nano_VL_V2",
        config=_NEMOTRON,
        tensors=_radio(),
        files={"preprocessor_config.json": {"image_mean": [0.5, 0.4, 0.3]}},
        has_model=False,
        has_projector=True,
    ),
    Tiny(
        name="tower-nemotron-omni",
        hf_name="NemotronH_Nano_Omni_Reasoning_V3",
        config={
            **_NEMOTRON,
            "vision_config": {"patch_size": 4, "architectures": ["RADIOModel"]},
            "sound_config": {
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_mel_bins": 16,
                "subsampling_factor": 8,
                "conv_kernel_size": 9,
            },
        },
        tensors={**_radio(), **_parakeet()},
        files=_PREPARED,
        has_model=False,
        has_projector=True,
    ),
    Tiny(
        name="tower-qwen2.5-omni",
        hf_name="Qwen2_5OmniModel",
        config={
            "thinker_config": {
                "text_config": {**SIZES, "rope_parameters": _SECTIONS},
                "vision_config": {
                    "depth": 4,
                    "hidden_size": 32,
                    "intermediate_size": 48,
                    "num_heads": 4,
                    "patch_size": 4,
                    "fullatt_block_indexes": [1, 3],
                },
                "audio_config": _WHISPER,
            },
        },
        config_json={
            "model_type": "qwen2_5_omni",
            "text_config": {**SIZES, "rope_parameters": _SECTIONS},
        },
        tensors=_omni(),
        files=_PREPARED,
        has_model=False,
        has_projector=True,
    ),
]
