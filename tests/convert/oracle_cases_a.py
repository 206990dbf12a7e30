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
_PIECES = {"tokenizer.json": {"model": {"type": "WordPiece", "vocab": {}}}}
_BERT = {name: size for name, size in _SIZES.items() if name != "num_key_value_heads"}
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
_T5 = {
    "d_model": 32,
    "d_ff": 48,
    "d_kv": 8,
    "num_heads": 4,
    "num_layers": 2,
    "vocab_size": 96,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
_NOMIC = {
    "activation_function": "swiglu",
    "causal": False,
    "layer_norm_epsilon": 1e-12,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "model_type": "nomic",
    "n_embd": 32,
    "n_head": 4,
    "n_inner": 48,
    "n_layer": 2,
    "n_positions": 8192,
    "prenorm": False,
    "qkv_proj_bias": False,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "type_vocab_size": 2,
    "vocab_size": 96,
}


def _nomic_tensors(*, has_experts: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (96, 32),
        "embeddings.token_type_embeddings.weight": (2, 32),
        "emb_ln.weight": (32,),
        "emb_ln.bias": (32,),
    }
    for layer in range(2):
        at = f"encoder.layers.{layer}"
        shapes |= {
            f"{at}.attn.Wqkv.weight": (96, 32),
            f"{at}.attn.out_proj.weight": (32, 32),
            **{f"{at}.norm{i}.{what}": (32,) for i in (1, 2) for what in ("weight", "bias")},
        }
        if has_experts:
            shapes |= {f"{at}.attn.Wqkv.bias": (96,), f"{at}.attn.out_proj.bias": (32,)}
        if has_experts and layer % 2:
            shapes |= {
                f"{at}.mlp.experts.mlp.w1": (4 * 48, 32),
                f"{at}.mlp.experts.mlp.w2": (4 * 48, 32),
                f"{at}.mlp.experts.bias": (32,),
                f"{at}.mlp.router.layer.weight": (4, 32),
            }
        elif has_experts:
            shapes |= {
                f"{at}.mlp.fc1.weight": (48, 32),
                f"{at}.mlp.fc1.bias": (48,),
                f"{at}.mlp.fc2.weight": (32, 48),
                f"{at}.mlp.fc2.bias": (32,),
            }
        else:
            shapes |= {
                f"{at}.mlp.fc11.weight": (48, 32),
                f"{at}.mlp.fc12.weight": (48, 32),
                f"{at}.mlp.fc2.weight": (32, 48),
            }
    return shapes


def _pair(name: str, n_out: int, n_in: int = 0) -> dict[str, tuple[int, ...]]:
    """A matrix, or a norm, with its bias."""
    return {f"{name}.weight": (n_out, n_in) if n_in else (n_out,), f"{name}.bias": (n_out,)}


def _jina_v2_tensors() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (96, 32),
        "bert.embeddings.token_type_embeddings.weight": (2, 32),
        **_pair("bert.embeddings.LayerNorm", 32),
        **_pair("bert.pooler.dense", 32, 32),
        **_pair("cls.predictions.decoder", 96, 32),
    }
    for layer in range(2):
        at = f"bert.encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            shapes |= _pair(f"{at}.attention.self.{part}", 32, 32)
        shapes |= _pair(f"{at}.attention.output.dense", 32, 32)
        shapes |= _pair(f"{at}.attention.output.LayerNorm", 32)
        shapes[f"{at}.mlp.gated_layers.weight"] = (96, 32)
        shapes |= _pair(f"{at}.mlp.wo", 32, 48)
        shapes |= _pair(f"{at}.mlp.layernorm", 32)
    return shapes


def _jina_v3_tensors() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        **_pair("roberta.emb_ln", 32),
        "roberta.embeddings.token_type_embeddings.parametrizations.weight.original": (1, 32),
        "roberta.embeddings.word_embeddings.parametrizations.weight.original": (96, 32),
        **_pair("roberta.pooler.dense", 32, 32),
    }
    for layer in range(2):
        at = f"roberta.encoder.layers.{layer}"
        for part, n_out, n_in in (
            ("mixer.Wqkv", 96, 32),
            ("mixer.out_proj", 32, 32),
            ("mlp.fc1", 48, 32),
            ("mlp.fc2", 32, 48),
        ):
            shapes[f"{at}.{part}.parametrizations.weight.original"] = (n_out, n_in)
            shapes[f"{at}.{part}.bias"] = (n_out,)
            shapes[f"{at}.{part}.parametrizations.weight.0.lora_A"] = (1, 4, n_in)
            shapes[f"{at}.{part}.parametrizations.weight.0.lora_B"] = (1, n_out, 4)
        shapes |= {**_pair(f"{at}.norm1", 32), **_pair(f"{at}.norm2", 32)}
    return shapes


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
    Tiny(name="bert", hf_name="BertModel", config=_BERT),
    Tiny(
        name="bert-reranker",
        hf_name="BertForSequenceClassification",
        config={**_BERT, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}},
    ),
    Tiny(
        name="camembert",
        hf_name="CamembertModel",
        config=_BERT,
    ),
    Tiny(
        name="distilbert",
        hf_name="DistilBertModel",
        config={
            "dim": 32,
            "hidden_dim": 48,
            "n_heads": 4,
            "n_layers": 2,
            "vocab_size": 96,
            "max_position_embeddings": 64,
        },
    ),
    Tiny(
        name="distilbert-classifier",
        hf_name="DistilBertForSequenceClassification",
        config={
            "dim": 32,
            "hidden_dim": 48,
            "n_heads": 4,
            "n_layers": 2,
            "vocab_size": 96,
            "id2label": {"0": "bad", "1": "middling", "2": "good"},
            "label2id": {"bad": 0, "middling": 1, "good": 2},
        },
    ),
    Tiny(name="roberta", hf_name="RobertaModel", config={**_BERT, "pad_token_id": 1}),
    Tiny(
        name="roberta-reranker",
        hf_name="RobertaForSequenceClassification",
        config={
            **_BERT,
            "pad_token_id": 1,
            "id2label": {"0": "LABEL_0"},
            "label2id": {"LABEL_0": 0},
        },
    ),
    Tiny(
        name="xlm-roberta-reranker",
        hf_name="XLMRobertaForSequenceClassification",
        config={
            **_BERT,
            "pad_token_id": 1,
            "id2label": {"0": "LABEL_0"},
            "label2id": {"LABEL_0": 0},
        },
    ),
    Tiny(name="xlm-roberta", hf_name="XLMRobertaModel", config={**_BERT, "pad_token_id": 1}),
    Tiny(
        name="modern-bert",
        hf_name="ModernBertModel",
        config={**_BERT, "num_hidden_layers": 4, "local_attention": 16, "layer_norm_eps": 1e-5},
    ),
    Tiny(
        name="modern-bert-reranker",
        hf_name="ModernBertForSequenceClassification",
        config={
            **_BERT,
            "local_attention": 16,
            "layer_norm_eps": 1e-5,
            "classifier_pooling": "mean",
            "id2label": {"0": "LABEL_0"},
            "label2id": {"LABEL_0": 0},
        },
    ),
    Tiny(name="t5encoder", hf_name="T5EncoderModel", config=_T5),
    Tiny(
        name="t5",
        hf_name="T5ForConditionalGeneration",
        config={**_T5, "decoder_start_token_id": 0},
        not_run="an encoder with a decoder",
    ),
    Tiny(
        name="umt5",
        hf_name="UMT5ForConditionalGeneration",
        config={**_T5, "decoder_start_token_id": 0},
        not_run="an encoder with a decoder",
    ),
    Tiny(
        name="nomic-bert",
        hf_name="NomicBertModel",
        config=_NOMIC,
        tensors=_nomic_tensors(has_experts=False),
        files=_PIECES,
    ),
    Tiny(
        name="nomic-bert-moe",
        hf_name="NomicBertModel",
        config={
            **_NOMIC,
            "activation_function": "gelu",
            "qkv_proj_bias": True,
            "mlp_fc1_bias": True,
            "mlp_fc2_bias": True,
            "n_positions": 2048,
            "moe_every_n_layers": 2,
            "moe_top_k": 2,
            "num_experts": 4,
        },
        tensors=_nomic_tensors(has_experts=True),
        files=_PIECES,
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
        name="eurobert",
        hf_name="EuroBertModel",
        config=_SIZES,
        config_json={"classifier_pooling": None},
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
    Tiny(
        name="jina-bert-v2",
        hf_name="JinaBertForMaskedLM",
        config={**_BERT, "model_type": "jina_bert", "layer_norm_eps": 1e-12, "type_vocab_size": 2},
        tensors=_jina_v2_tensors(),
    ),
    Tiny(
        name="jina-bert-v3",
        hf_name="XLMRobertaModel",
        config={
            **_BERT,
            "model_type": "jina_v3",
            "pad_token_id": 1,
            "layer_norm_eps": 1e-5,
            "type_vocab_size": 1,
            "rotary_emb_base": 20000.0,
            "lora_adaptations": ["passage"],
            "lora_alpha": 1,
        },
        tensors=_jina_v3_tensors(),
    ),
]
