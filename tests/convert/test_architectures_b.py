"""What is particular to families, where llama.cpp's own converter has no answer: other layouts, broken files, vocabularies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from oracle import build, run_once, without_words
from oracle_shapes import ATTENTION_LAYER, DENSE_LAYER, LLAMA_LAYER, SIZES, ends, layers
from oracle_weights import weights, write_folder

from olm.checkpoint.folder import open_checkpoint
from olm.convert.architecture import Architecture, Options
from olm.convert.hparams import Hparams
from olm.convert.lazy import read_all
from olm.convert.model_file import ModelFile
from olm.convert.registry import architecture_of, known_architectures
from olm.convert.vocab import TokenType, Vocab
from olm.convert.writer import write_gguf
from olm.errors import CheckpointError

pytestmark = pytest.mark.native

Shapes = Mapping[str, Sequence[int | str]]
Config = Mapping[str, object]

_RAW = {**SIZES, "rms_norm_eps": 1e-5, "rope_theta": 10000.0}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_SECTIONS = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}

# Every string of Ollama's converter but one: llama.cpp cannot run `mllama` (Llama 3.2 Vision).
_OLLAMAS = """
    LlamaForCausalLM MixtralForCausalLM Llama4ForConditionalGeneration Mistral3ForConditionalGeneration
    Ministral3ForCausalLM GemmaForCausalLM Gemma2ForCausalLM Gemma3ForCausalLM Gemma3ForConditionalGeneration
    Gemma3TextModel Gemma3nForConditionalGeneration Gemma4ForCausalLM Gemma4ForConditionalGeneration Phi3ForCausalLM
    Qwen2ForCausalLM Qwen2_5_VLForConditionalGeneration Qwen3VLForConditionalGeneration Qwen3VLMoeForConditionalGeneration
    Qwen3NextForCausalLM Qwen3_5ForConditionalGeneration Qwen3_5MoeForConditionalGeneration Olmo3ForCausalLM BertModel
    NomicBertModel NomicBertMoEModel CohereForCausalLM GptOssForCausalLM DeepseekOCRForCausalLM DeepseekV3ForCausalLM
    Glm4MoeLiteForCausalLM GlmOcrForConditionalGeneration LagunaForCausalLM Lfm2ForCausalLM Lfm2MoeForCausalLM
    Lfm2VlForConditionalGeneration NemotronH_Nano_VL_V2 NemotronH_Nano_Omni_Reasoning_V3 NemotronHForCausalLM
"""


def _planned(
    folder: Path, hf_name: str, config: Config, tensors: Shapes
) -> tuple[ModelFile, Mapping[str, NDArray[np.generic]]]:
    """The model of a tiny checkpoint, and all its tensors by name, before any change of type."""
    typed = {name: s if isinstance(s[0], str) else ["F32", *s] for name, s in tensors.items()}
    write_folder(folder, {**config, "architectures": [hf_name]}, typed, {})
    with open_checkpoint(folder) as checkpoint:
        file = build(checkpoint, has_projector=False)["model"]
        write_gguf(without_words(file), folder / "model.gguf")
        return file, {tensor.name: read_all(tensor.reader) for tensor in file.tensors}


def _runs(folder: Path) -> bool:
    outcome = run_once(folder / "model.gguf")
    return bool(np.isfinite(outcome).all() and np.ptp(outcome) > 0)


@pytest.mark.parametrize("hf_name", _OLLAMAS.split())
def test_what_ollama_converts_is_known(hf_name: str) -> None:
    assert hf_name in known_architectures()


def test_norms_of_each_head_become_one_tensor(backend: object, tmp_path: Path) -> None:
    norms = {
        f"self_attn.{kind}_layernorm.norms.{head}.weight": [8]
        for kind, n_heads in (("q", 4), ("k", 2))
        for head in range(n_heads)
    }
    layer = {n: s for n, s in LLAMA_LAYER.items() if "post_attention" not in n}
    tensors = (
        layers(layer | norms | {"input_layernorm.bias": [32]}) | ends() | {"model.norm.bias": [32]}
    )
    config = {**_RAW, "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.25}

    _, found = _planned(tmp_path, "StableLmForCausalLM", config, tensors)

    third = weights("model.layers.1.self_attn.q_layernorm.norms.2.weight", "F32", [8])
    assert found["blk.1.attn_q_norm.weight"].shape == (4, 8)
    assert np.array_equal(found["blk.1.attn_q_norm.weight"][2], third)
    assert found["blk.1.attn_k_norm.weight"].shape == (2, 8)
    assert _runs(tmp_path)


def test_the_norm_of_a_head_that_is_missing_is_named(tmp_path: Path) -> None:
    tensors = {"model.layers.0.self_attn.q_layernorm.norms.0.weight": [8]} | ends()
    config = {**_RAW, "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.25}

    with pytest.raises(CheckpointError, match="the norm of head 1 is missing"):
        _planned(tmp_path, "StableLmForCausalLM", config, tensors)


@pytest.mark.parametrize("is_tied", [True, False])
def test_an_output_saved_twice_is_dropped(tmp_path: Path, is_tied: bool) -> None:
    config = {"hidden_size": 32, "num_hidden_layers": 1, "vocab_size": 96, "model_type": "mamba"}
    folder = tmp_path / "mamba"
    # Weights follow from names, so the same name in two files of one folder would be the way; here the values are written again.
    tensors = {"backbone.embeddings.weight": ["F32", 96, 32], "lm_head.weight": ["F32", 96, 32]}
    write_folder(folder, {**config, "architectures": ["MambaForCausalLM"]}, tensors, {})
    if is_tied:
        path = folder / "model.safetensors"
        raw, size = path.read_bytes(), 96 * 32 * 4
        path.write_bytes(raw[:-size] + raw[-2 * size : -size])

    with open_checkpoint(folder) as checkpoint:
        names = {tensor.name for tensor in build(checkpoint)["model"].tensors}

    assert ("output.weight" in names) is not is_tied


@pytest.mark.parametrize("is_new", [False, True], ids=["transformers 4", "transformers 5"])
def test_stacked_experts_may_stand_either_way(
    backend: object, tmp_path: Path, is_new: bool
) -> None:
    gate_up, down = ([48, 32], [32, 24]) if is_new else ([32, 48], [24, 32])
    layer = {
        **ATTENTION_LAYER,
        "self_attn.q_norm.weight": [8],
        "self_attn.k_norm.weight": [8],
        "mlp.gate.weight": [4, 32],
        "mlp.experts.gate_up_proj": [4, *gate_up],
        "mlp.experts.down_proj": [4, *down],
    }
    text = {**_RAW, **_EXPERTS, "head_dim": 8, "rope_parameters": _SECTIONS}

    _, found = _planned(
        tmp_path,
        "Qwen3VLMoeForConditionalGeneration",
        {"text_config": text},
        layers(layer) | ends(),
    )

    stacked = weights("model.layers.0.mlp.experts.gate_up_proj", "F32", [4, *gate_up])
    rows = stacked if is_new else stacked.swapaxes(1, 2)
    assert np.array_equal(found["blk.0.ffn_gate_exps.weight"], rows[:, :24])
    assert np.array_equal(found["blk.0.ffn_up_exps.weight"], rows[:, 24:])
    assert _runs(tmp_path)


@pytest.mark.parametrize("n_vocab", [96, 125696], ids=["1", "2"])
def test_baichuans_head_is_normalized_in_its_second_version(
    backend: object, tmp_path: Path, n_vocab: int
) -> None:
    packed = {n: s for n, s in LLAMA_LAYER.items() if not n.startswith("self_attn")} | {
        "self_attn.W_pack.weight": [96, 32],
        "self_attn.o_proj.weight": [32, 32],
    }
    tensors = layers(packed) | ends()
    config = {**_RAW, "num_key_value_heads": None, "vocab_size": n_vocab}

    _, found = _planned(tmp_path, "BaichuanForCausalLM", config, tensors)

    head = weights("lm_head.weight", "F32", [96, 32])
    wanted = head if n_vocab == 96 else head / np.linalg.norm(head, axis=1, keepdims=True)
    pack = weights("model.layers.0.self_attn.W_pack.weight", "F32", [96, 32])
    assert np.allclose(found["output.weight"], wanted, atol=1e-6)
    assert np.array_equal(found["blk.0.attn_v.weight"], pack[64:])
    assert np.array_equal(found["blk.0.attn_q.weight"][:3], pack[[0, 4, 1]])
    assert _runs(tmp_path)


def test_a_head_normalized_by_columns(tmp_path: Path) -> None:
    config = {
        **_RAW,
        **_EXPERTS,
        "num_hidden_layers": 0,
        "first_k_dense_replace": 0,
        "num_shared_experts": 1,
        "norm_head": True,
    }

    _, found = _planned(
        tmp_path, "BailingMoeForCausalLM", config, ends(embedding="model.word_embeddings.weight")
    )

    assert np.allclose(np.linalg.norm(found["output.weight"], axis=0), 1, atol=1e-4)


def test_nemotrons_layer_that_predicts_a_token_comes_last(backend: object, tmp_path: Path) -> None:
    attention = {
        "mixer.q_proj.weight": [32, 32],
        "mixer.k_proj.weight": [16, 32],
        "mixer.v_proj.weight": [16, 32],
        "mixer.o_proj.weight": [32, 32],
    }
    experts = {
        "mixer.gate.weight": [4, 32],
        "mixer.gate.e_score_correction_bias": [4],
        "mixer.shared_experts.up_proj.weight": [16, 32],
        "mixer.shared_experts.down_proj.weight": [32, 16],
        **{f"mixer.experts.{i}.up_proj.weight": [16, 32] for i in range(4)},
        **{f"mixer.experts.{i}.down_proj.weight": [32, 16] for i in range(4)},
    }
    config = {
        **_RAW,
        "hybrid_override_pattern": "*E",
        "head_dim": 8,
        "mamba_head_dim": 8,
        "mamba_num_heads": 8,
        "n_groups": 2,
        "ssm_state_size": 16,
        "conv_kernel": 4,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "moe_intermediate_size": 16,
        "moe_shared_expert_intermediate_size": 16,
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "n_group": 1,
        "topk_group": 1,
        "num_nextn_predict_layers": 1,
    }
    tensors = {
        **{f"backbone.layers.0.{n}": s for n, s in attention.items()},
        **{f"backbone.layers.1.{n}": s for n, s in experts.items()},
        **layers({"norm.weight": [32]}, 2, "backbone.layers"),
        **{f"mtp.layers.0.{n}": s for n, s in attention.items()},
        **{f"mtp.layers.1.{n}": s for n, s in experts.items()},
        "mtp.layers.0.norm.weight": [32],
        "mtp.layers.0.enorm.weight": [32],
        "mtp.layers.0.hnorm.weight": [32],
        "mtp.layers.0.eh_proj.weight": [32, 64],
        "mtp.layers.1.norm.weight": [32],
        "mtp.layers.1.final_layernorm.weight": [32],
        **ends(norm="backbone.norm_f.weight", embedding="backbone.embeddings.weight"),
    }

    file, found = _planned(
        tmp_path, "NemotronH_Nano_Omni_Reasoning_V3", {"llm_config": config}, tensors
    )

    assert file.metadata.architecture == "nemotron_h_moe"
    assert file.metadata.get(".block_count") == 3
    assert file.metadata.get(".nextn_predict_layers") == 1
    assert list(file.metadata.get(".attention.head_count_kv")) == [2, 0, 2]  # type: ignore[call-overload]  # a list
    assert found["blk.2.nextn.eh_proj.weight"].shape == (32, 64)
    assert found["blk.2.ffn_up_exps.weight"].shape == (4, 16, 32)


@pytest.mark.parametrize("has_next", [False, True])
def test_qwens_layers_that_predict_tokens_may_be_missing(
    backend: object, tmp_path: Path, has_next: bool
) -> None:
    linear = {
        "input_layernorm.weight": [32],
        "post_attention_layernorm.weight": [32],
        "linear_attn.in_proj_qkv.weight": [64, 32],
        "linear_attn.in_proj_z.weight": [32, 32],
        "linear_attn.in_proj_a.weight": [4, 32],
        "linear_attn.in_proj_b.weight": [4, 32],
        "linear_attn.conv1d.weight": [64, 1, 4],
        "linear_attn.A_log": [4],
        "linear_attn.dt_bias": [4],
        "linear_attn.norm.weight": [8],
        "linear_attn.out_proj.weight": [32, 32],
    }
    full = {
        **ATTENTION_LAYER,
        "self_attn.q_proj.weight": [64, 32],
        "self_attn.q_norm.weight": [8],
        "self_attn.k_norm.weight": [8],
    }
    text = {
        **_RAW,
        "num_hidden_layers": 4,
        "layer_types": ["linear_attention"] * 3 + ["full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_conv_kernel_dim": 4,
        "head_dim": 8,
        "mtp_num_hidden_layers": int(has_next),
        "rope_parameters": {
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
            "mrope_section": [1, 1, 0],
        },
    }
    stem = "model.language_model.layers"
    tensors = {
        **layers(DENSE_LAYER, 4, stem),
        **layers(linear, 3, stem),
        **{f"{stem}.3.{n}": s for n, s in full.items()},
        **ends(
            norm="model.language_model.norm.weight",
            embedding="model.language_model.embed_tokens.weight",
        ),
        "model.visual.blocks.0.norm1.weight": [16],
    }
    if has_next:
        tensors |= layers(full | DENSE_LAYER, 1, "mtp.layers")
        tensors |= {"mtp.fc.weight": [32, 64], "mtp.norm.weight": [32]}
        tensors |= {f"mtp.pre_fc_norm_{n}.weight": [32] for n in ("embedding", "hidden")}

    file, found = _planned(
        tmp_path, "Qwen3_5ForConditionalGeneration", {"text_config": text}, tensors
    )

    assert file.metadata.get(".block_count") == 4 + has_next
    assert file.metadata.get(".nextn_predict_layers") == (1 if has_next else None)
    # Value heads of one key lie side by side in the checkpoint: (0, 1), (2, 3) become (0, 2), (1, 3).
    gates = weights(f"{stem}.0.linear_attn.in_proj_a.weight", "F32", [4, 32])
    assert np.array_equal(found["blk.0.ssm_alpha.weight"], gates[[0, 2, 1, 3]])
    assert _runs(tmp_path)


def test_a_bias_that_would_be_lost_is_refused(tmp_path: Path) -> None:
    config = {**_RAW, "layer_norm_eps": 1e-5, "logit_scale": 1.0, "sliding_window": 32}
    tensors = {"model.layers.0.self_attn.q_proj.bias": [32]} | ends(head="")

    with pytest.raises(CheckpointError, match=r"q_proj\.bias.*not zero"):
        _planned(tmp_path, "Cohere2ForCausalLM", config, tensors)


def test_a_gate_of_another_width_than_said_is_refused(tmp_path: Path) -> None:
    config = {**_RAW, "head_dim": 8, "gating": "per-element"}
    tensors = {"model.layers.0.self_attn.g_proj.weight": [4, 32]} | ends()

    with pytest.raises(CheckpointError, match="4 rows of a gate that is per-element, wanted 32"):
        _planned(tmp_path, "LagunaForCausalLM", config, tensors)


@pytest.mark.parametrize(
    ("hf_name", "config", "message"),
    [
        (
            "HunYuanMoEV1ForCausalLM",
            {"moe_intermediate_size": [16, 32]},
            "differs from layer to layer",
        ),
        (
            "FalconForCausalLM",
            {"num_kv_heads": 3, "layer_norm_epsilon": 1e-5},
            "4 heads do not divide into 3",
        ),
        (
            "Qwen3NextForCausalLM",
            {"linear_num_key_heads": 3, "linear_num_value_heads": 4},
            "do not divide",
        ),
        ("NemotronHForCausalLM", {"attention_head_dim": 8}, "hybrid_override_pattern"),
        ("Lfm2ForCausalLM", {}, "layer_types"),
        ("MambaForCausalLM", {"intermediate_size": 48}, "inner size is twice 32"),
        ("ApertusForCausalLM", {}, r"act_fn.alpha_n' is missing"),
        ("DeciLMForCausalLM", {"block_configs": [{}]}, "wanted 2 block_configs"),
    ],
)
def test_settings_that_contradict_each_other_are_named(
    tmp_path: Path, hf_name: str, config: Config, message: str
) -> None:
    stem = {"FalconForCausalLM": "transformer.h.0.self_attention.query_key_value"}.get(
        hf_name, "model.layers.0.linear_attn.in_proj_qkvz"
    )
    is_fused = hf_name in ("FalconForCausalLM", "Qwen3NextForCausalLM")
    tensors: Shapes = {f"{stem}.weight": [64, 32]} if is_fused else {"lm_head.weight": [96, 32]}

    with pytest.raises(CheckpointError, match=message):
        _planned(tmp_path, hf_name, {**_RAW, **config}, tensors)


def _vocab_of(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    hf_name: str,
    tokens: Sequence[str],
    **config: object,
) -> Vocab:
    """What a family makes of a vocabulary with these pieces."""
    read = Vocab(
        model="gpt2", tokens=tokens, types=[TokenType.NORMAL] * len(tokens), special={"eos": 0}
    )
    write_folder(
        folder,
        {**_RAW, **config, "architectures": [hf_name]},
        {"lm_head.weight": ["F32", 96, 32]},
        {},
    )
    with open_checkpoint(folder) as checkpoint:
        _, family = architecture_of(Hparams(checkpoint.config))
        monkeypatch.setattr(Architecture, "vocab", lambda _self: read)
        found = family(checkpoint, hf_name, Options()).vocab()
    assert found is not None
    return found


def test_glms_ends_are_found_by_their_pieces(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pieces = ["a", "<|endoftext|>", "[gMASK]", "<|user|>", "<|observation|>"]

    glm4 = _vocab_of(monkeypatch, tmp_path, "Glm4ForCausalLM", pieces)
    newer = _vocab_of(monkeypatch, tmp_path, "Glm4MoeForCausalLM", pieces)
    older = _vocab_of(monkeypatch, tmp_path, "GlmForCausalLM", pieces[:2])

    assert glm4.special == {"eos": 1, "eot": 3, "unk": 1, "bos": 1}
    assert newer.special == {"eos": 0, "bos": 2, "eot": 3, "unk": 1, "eom": 4}
    assert older.special == {"eos": 1, "unk": 1}
    assert older.add_bos is False


def test_a_piece_that_is_a_zero_byte_becomes_a_dragon(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    vocab = _vocab_of(monkeypatch, tmp_path, "InternLM2ForCausalLM", ["<s>", "\0", "<|im_end|>"])

    assert vocab.tokens == ["<s>", "\N{DRAGON}", "<|im_end|>"]
    assert vocab.special == {"eos": 2}


def test_lagunas_turn_ends_generation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pieces = ["a", "b", "<eos>", "</assistant>"]

    vocab = _vocab_of(
        monkeypatch, tmp_path, "LagunaForCausalLM", pieces, eos_token_id=[2, 3], bos_token_id=2
    )

    assert vocab.types[3] == TokenType.CONTROL
    assert vocab.special["eot"] == 3
