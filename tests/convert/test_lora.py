"""Adapters do in a GGUF what they do in PEFT: whatever an architecture does to its rows, merging gives the same weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from convert_kit import Tensors, read_safetensors, write_safetensors
from lora_kit import (
    Floats,
    convert_folder,
    convert_lora,
    f32_tensors,
    merged_checkpoint,
    random_lora,
    write_lora,
)
from numpy.typing import NDArray

from kit.hf import FIXTURES, compare, logits_after, reference
from olm.errors import CheckpointError, GgufError, OlmError
from olm.gguf import read_header
from olm.native.handles import Model

pytestmark = pytest.mark.native

LORA = "llama-untied-lora"
LINEAR = (
    r"(self_attn|mlp|block_sparse_moe)\..*proj|block_sparse_moe.experts|mlp\.(c_|experts)|_proj"
)
FAMILIES = {
    "llama-untied": LINEAR + "|lm_head|embed_tokens",
    "mistral": LINEAR,
    "mixtral-sharded": LINEAR,
    "qwen2": LINEAR,
    "qwen3": LINEAR,
    "qwen3moe": LINEAR,
    "gemma2": LINEAR,
    "phi3": LINEAR,
    "olmo2": LINEAR,
    "starcoder2": LINEAR,
}


def _after(adapter: Path, base: Path, scale: float = 1.0) -> dict[str, Floats]:
    """The base's weights with the adapter in them, as llama.cpp computes: scale * alpha / rank * B @ A."""
    weights = dict(f32_tensors(base))
    factors = f32_tensors(adapter)
    alpha = cast("float", read_header(adapter).values["adapter.lora.alpha"])
    for name in [n.removesuffix(".lora_a") for n in factors if n.endswith(".lora_a")]:
        a, b = factors[f"{name}.lora_a"], factors[f"{name}.lora_b"]
        if name == "token_embd.weight":
            a, b = b.T, a
        weights[name] = weights[name] + np.float32(scale * alpha / b.shape[-1]) * (b @ a)
    return weights


def _floats(values: NDArray[np.generic]) -> Floats:
    assert values.dtype == np.float32
    return values.astype(np.float32)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("knows", ["the base's GGUF", "its config"])
def test_merging_after_the_conversion_is_merging_before_it(
    tmp_path: Path, name: str, knows: str
) -> None:
    factors = random_lora(name, FAMILIES[name])
    folder = write_lora(tmp_path / "lora", factors)
    base = convert_folder(merged_checkpoint(name, {}, tmp_path / "plain"), tmp_path / "base.gguf")
    merged = merged_checkpoint(
        name, {w: np.float32(2) * (b @ a) for w, (a, b) in factors.items()}, tmp_path / "merged"
    )
    expected = f32_tensors(convert_folder(merged, tmp_path / "merged.gguf"))
    if knows == "its config":
        shutil.copy(FIXTURES / name / "config.json", folder)

    header = None if knows == "its config" else read_header(base)
    found = _after(convert_lora(folder, header, tmp_path / "lora.gguf"), base)

    assert factors
    assert found.keys() == expected.keys()
    for tensor, values in expected.items():
        np.testing.assert_allclose(found[tensor], values, atol=2e-5, err_msg=tensor)
    n_changed = sum((found[t] != v).any() for t, v in f32_tensors(base).items())
    n_experts = 4 if name == "mixtral-sharded" else 8 if name == "qwen3moe" else 1
    assert n_changed >= len(factors) / n_experts


def _fixture(tmp_path: Path) -> tuple[Path, Path]:
    base = convert_folder(FIXTURES / "llama-untied", tmp_path / "base.gguf")
    return base, convert_lora(FIXTURES / LORA, read_header(base), tmp_path / "lora.gguf")


def test_logits_are_those_of_transformers(backend: Path, tmp_path: Path) -> None:
    base, lora = _fixture(tmp_path)

    with Model.load(base, adapters=[(str(lora), 1.0)]) as model:
        assert compare(model, LORA).is_exact
        assert not compare(model, "llama-untied").top1_same


def test_at_scale_0_the_base_speaks(backend: Path, tmp_path: Path) -> None:
    base, lora = _fixture(tmp_path)

    with Model.load(base, adapters=[(str(lora), 0.0)]) as model:
        assert compare(model, "llama-untied").is_exact


def test_half_the_scale_is_half_the_change_of_weights(backend: Path, tmp_path: Path) -> None:
    base, lora = _fixture(tmp_path)
    factors = read_safetensors(FIXTURES / LORA / "adapter_model.safetensors")
    deltas = {}
    for name, (_, a) in factors.items():
        if name.endswith("lora_A.weight"):
            _, b = factors[name.replace("lora_A", "lora_B")]
            weight = name.removeprefix("base_model.model.").replace("lora_A.", "")
            deltas[weight] = _floats(b) @ _floats(a)  # 0.5 * alpha 8 / rank 4 is 1
    merged = merged_checkpoint("llama-untied", deltas, tmp_path / "merged")
    tokens = cast("list[int]", reference(LORA)["tokens"])
    with Model.load(convert_folder(merged, tmp_path / "merged.gguf")) as model:
        expected = logits_after(model, tokens)

    with Model.load(base, adapters=[(str(lora), 0.5)]) as model:
        found = logits_after(model, tokens)

    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_two_adapters_add_up(backend: Path, tmp_path: Path) -> None:
    base, lora = _fixture(tmp_path)

    with Model.load(base, adapters=[(str(lora), 0.25), (str(lora), 0.75)]) as model:
        assert compare(model, LORA).is_exact


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"lora_alpha": 12}, 12 / 3),
        ({"lora_alpha": 12, "use_rslora": True}, 12 / 3**0.5),
        ({"alpha_pattern": {"k_proj": 9}}, None),
        ({"alpha_pattern": {r"layers\.1\.self_attn\.k_proj": 9}, "use_rslora": True}, None),
    ],
)
def test_scales_are_pefts(tmp_path: Path, config: dict[str, object], scale: float | None) -> None:
    """Rank-stabilised, and by module: llama.cpp itself knows one alpha over the rank only."""
    factors = random_lora("llama-untied", r"layers\.1\.self_attn\.[kv]_proj")
    folder = write_lora(tmp_path / "lora", factors, None, **config)
    base = convert_folder(FIXTURES / "llama-untied", tmp_path / "base.gguf")
    plain = f32_tensors(base)

    found = _after(convert_lora(folder, read_header(base), tmp_path / "lora.gguf"), base)

    root = 3**0.5 if config.get("use_rslora") else 3
    wanted = {"v": scale or 6 / root, "k": scale or 9 / root}
    for letter, factor in wanted.items():
        a, b = factors[f"model.layers.1.self_attn.{letter}_proj.weight"]
        change = found[f"blk.1.attn_{letter}.weight"] - plain[f"blk.1.attn_{letter}.weight"]
        assert np.linalg.norm(change) == pytest.approx(np.linalg.norm(factor * (b @ a)), rel=1e-5)


def test_ranks_may_differ(tmp_path: Path) -> None:
    factors = random_lora("llama-untied", r"proj", lambda name: 2 if "q_proj" in name else 5)
    folder = write_lora(tmp_path / "lora", factors, r=5, rank_pattern={"q_proj": 2})
    base = convert_folder(FIXTURES / "llama-untied", tmp_path / "base.gguf")

    lora = convert_lora(folder, read_header(base), tmp_path / "lora.gguf")

    shapes = {name: values.shape for name, values in f32_tensors(lora).items()}
    assert shapes["blk.0.attn_q.weight.lora_a"] == (2, 64)
    assert shapes["blk.0.attn_k.weight.lora_a"] == (5, 64)


def test_mlx_writes_factors_the_other_way_round(tmp_path: Path) -> None:
    factors = random_lora("llama-untied", r"self_attn\.[qv]_proj")
    base = convert_folder(FIXTURES / "llama-untied", tmp_path / "base.gguf")
    peft = write_lora(tmp_path / "peft", factors)
    mlx = write_lora(
        tmp_path / "mlx", {}, lora_alpha=None, lora_parameters={"rank": 3, "scale": 2.0}
    )
    tensors: Tensors = {}
    for weight, (a, b) in factors.items():
        module = weight.removesuffix(".weight")
        tensors[f"{module}.lora_a"] = ("F32", a.T.copy())
        tensors[f"{module}.lora_b"] = ("F32", b.T.copy())
    (mlx / "adapter_model.safetensors").unlink()
    write_safetensors(mlx / "adapters.safetensors", tensors)

    one, other = (
        _after(convert_lora(folder, read_header(base), tmp_path / f"{folder.name}.gguf"), base)
        for folder in (peft, mlx)
    )

    for name, values in one.items():
        np.testing.assert_allclose(other[name], values, rtol=1e-6, err_msg=name)


VECTOR = ("F32", np.ones(64, np.float32))
MATRIX = ("F32", np.ones((512, 64), np.float32))


@pytest.mark.parametrize(
    ("config", "more", "words"),
    [
        ({"use_dora": True}, {}, "'use_dora' is set"),
        ({"peft_type": "IA3"}, {}, "a IA3 adapter cannot be converted"),
        ({"lora_alpha": 0}, {}, "'lora_alpha' is 0"),
        ({"lora_alpha": "x"}, {}, "wanted a finite number in 'lora_alpha'"),
        ({"init_lora_weights": "pissa_niter_4"}, {}, "changes the base's weights"),
        ({"alora_invocation_tokens": [1, 2]}, {}, "aLoRA"),
        ({"alpha_pattern": {"(": 1}}, {}, "is no pattern"),
        ({}, {"base_model.model.model.layers.0.self_attn.q_proj.bias": VECTOR}, "trained biases"),
        (
            {"modules_to_save": ["lm_head"]},
            {"base_model.model.lm_head.weight": MATRIX},
            r"tensor 'base_model.model.lm_head.weight': a whole weight was trained \('modules_to_save'",
        ),
        (
            {},
            {"base_model.model.model.layers.0.mlp.up_proj.lora_A.weight": MATRIX},
            "tensor 'model.layers.0.mlp.up_proj.weight': one of its two factors is missing",
        ),
        (
            {},
            {"base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector": VECTOR},
            "DoRA",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(
    tmp_path: Path, config: dict[str, object], more: dict[str, object], words: str
) -> None:
    factors = random_lora("llama-untied", r"layers\.1\.self_attn\.k_proj")
    folder = write_lora(tmp_path / "lora", factors, more, **config)  # type: ignore[arg-type]  # of several dtypes
    shutil.copy(FIXTURES / "llama-untied/config.json", folder)

    with pytest.raises(CheckpointError, match=words):
        convert_lora(folder, None, tmp_path / "lora.gguf")


@pytest.mark.parametrize(
    ("weight", "base", "words"),
    [
        (
            "model.layers.0.self_attn.k_proj.weight",
            "qwen2",
            r"\(3, 64\) and \(64, 3\) do not fit tensor 'blk.0.attn_k.weight'",
        ),
        ("model.layers.9.self_attn.q_proj.weight", "llama-untied", "layers.9"),
        (
            "model.layers.0.mystery.weight",
            "llama-untied",
            "'model.layers.0.mystery.weight' is not known",
        ),
        ("lm_head.weight", "llama-tied", "shares with its token embeddings"),
        ("model.embed_tokens.weight", "llama-tied", "are this model's output as well"),
        (
            "model.layers.0.block_sparse_moe.experts.1.w1.weight",
            "mixtral-sharded",
            "expert 0 is missing",
        ),
    ],
)
def test_an_adapter_of_another_base_is_refused(
    tmp_path: Path, weight: str, base: str, words: str
) -> None:
    gguf = read_header(convert_folder(FIXTURES / base, tmp_path / "base.gguf"))
    sizes = (512, 64) if "lm_head" in weight or "embed" in weight else (64, 64)
    factors = (np.ones((3, sizes[1]), np.float32), np.ones((sizes[0], 3), np.float32))
    folder = write_lora(tmp_path / "lora", {weight: factors})

    with pytest.raises(OlmError, match=words) as caught:
        convert_lora(folder, gguf, tmp_path / "lora.gguf")

    assert isinstance(caught.value, CheckpointError | GgufError)


def test_a_base_is_needed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="unknown what the adapter was made for"):
        convert_lora(FIXTURES / LORA, None, tmp_path / "lora.gguf")
