"""Tiny checkpoints of what embeds and ranks: BERT and its kin; and of T5."""

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
_PIECES = {"tokenizer.json": {"model": {"type": "WordPiece", "vocab": {}}}}
_BERT = {name: size for name, size in _SIZES.items() if name != "num_key_value_heads"}
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
        name="eurobert",
        hf_name="EuroBertModel",
        config=_SIZES,
        config_json={"classifier_pooling": None},
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
