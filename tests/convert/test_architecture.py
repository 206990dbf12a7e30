"""What is wrong with a checkpoint is said with its name: the setting, the tensor, the architecture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from convert_kit import Tensors, copy_fixture, read_safetensors, tensor_bytes, write_safetensors
from numpy.typing import NDArray

from olm.checkpoint.folder import open_checkpoint
from olm.convert.architecture import Architecture, Options, convert_checkpoint
from olm.convert.hparams import Hparams
from olm.convert.model_file import ModelFile
from olm.convert.registry import known_architectures
from olm.convert.run import convert
from olm.convert.values import to_f32
from olm.convert.wire import Convert, Quantization
from olm.errors import CheckpointError
from olm.native.quantize import CancelFlag

Array = NDArray[Any]

pytestmark = pytest.mark.native

NAME = "llama-untied"
FIRST = "model.layers.0.self_attn.q_proj.weight"


def _plan(folder: Path) -> ModelFile:
    with open_checkpoint(folder) as checkpoint:
        return convert_checkpoint(checkpoint, Options())[0]


def _refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        _plan(folder)
    return caught.value.message


def test_an_unknown_architecture_tells_the_nearest(tmp_path: Path) -> None:
    folder = copy_fixture(NAME, tmp_path, architectures=["LamaForCausalLM"])

    assert "LamaForCausalLM" in _refusal(folder)
    assert "nearest known are LlamaForCausalLM" in _refusal(folder)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("architectures", None, "'architectures' is missing"),
        ("hidden_size", "64", "wanted a whole number from 0 up in 'hidden_size', found '64'"),
        ("num_hidden_layers", None, "'num_hidden_layers'"),
        ("num_hidden_layers", 100_000, "100000 layers, more than 512"),
        ("num_attention_heads", -2, "found -2"),
        ("num_attention_heads", 3, f"tensor '{FIRST}': 64 rows"),
        ("rms_norm_eps", float("nan"), "wanted a finite number in 'rms_norm_eps', found nan"),
        ("rope_parameters", [1], "wanted an object in 'rope_parameters'"),
        ("quantization_config", {"quant_method": "gptq"}, "'gptq' cannot be converted"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, key: str, value: object, words: str) -> None:
    assert words in _refusal(copy_fixture(NAME, tmp_path, **{key: value}))


def test_positions_that_cannot_be_scaled_are_told(tmp_path: Path) -> None:
    rope = {"rope_theta": 10000.0, "factor": 2.0}
    known = copy_fixture(NAME, tmp_path / "1", rope_parameters={**rope, "rope_type": "linear"})
    other = copy_fixture(NAME, tmp_path / "2", rope_parameters={**rope, "rope_type": "zorro"})

    assert _plan(known).notes == ()
    assert _plan(other).notes == (
        "config.json: rope_type 'zorro' is unknown; positions are not scaled",
    )


def test_a_tensor_that_nobody_knows_is_no_silent_loss(tmp_path: Path) -> None:
    folder = copy_fixture(NAME, tmp_path)
    tensors = read_safetensors(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.new.weight"] = tensors[FIRST]
    write_safetensors(folder / "model.safetensors", tensors)

    assert "'model.layers.0.self_attn.new.weight' is not known" in _refusal(folder)


def test_a_missing_expert_is_named(tmp_path: Path) -> None:
    folder = copy_fixture("mixtral-sharded", tmp_path)
    tensors: Tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= read_safetensors(path)
        path.unlink()
    (folder / "model.safetensors.index.json").unlink()
    del tensors["model.layers.1.block_sparse_moe.experts.2.w1.weight"]
    write_safetensors(folder / "model.safetensors", tensors)

    refusal = _refusal(folder)

    assert "model.layers.1.block_sparse_moe.experts.w1.weight" in refusal
    assert "expert 2 is missing" in refusal


def _with_8_bit_floats(folder: Path, block: int) -> Array:
    """Random F8_E4M3 in square blocks with a scale each, as DeepSeek publishes them; returns the first up projection."""
    rng = np.random.default_rng(3)
    path = folder / "model.safetensors"
    result: Tensors = {}
    first: Array = np.zeros(0, np.float32)
    for name, (dtype, values) in read_safetensors(path).items():
        if "_proj" not in name:
            result[name] = (dtype, values)
            continue
        codes = rng.integers(0, 127, values.shape, dtype=np.uint8)  # 127 is NaN
        scales = rng.random([size // block for size in values.shape], np.float32)
        result[name] = ("F8_E4M3", codes)
        result[f"{name}_scale_inv"] = ("F32", scales)
        if name == "model.layers.0.mlp.up_proj.weight":
            wide = scales.repeat(block, axis=0).repeat(block, axis=1)
            first = to_f32(codes, "F8_E4M3", 1) * wide
    write_safetensors(path, result)
    return first


def _converted(folder: Path, file_type: str = "") -> tuple[str, bytes]:
    target = folder / "model.gguf"
    files = {path.name: str(path) for path in folder.iterdir()}
    wanted = Quantization(file_type=file_type) if file_type else None
    request = Convert(target=str(target), files=files, quantization=wanted)
    convert(request, lambda _: None, CancelFlag())
    return tensor_bytes(target)["blk.0.ffn_up.weight"]


def test_8_bit_floats_are_joined_with_their_scales(tmp_path: Path) -> None:
    settings = {"quant_method": "fp8", "weight_block_size": [32, 32]}
    folder = copy_fixture(NAME, tmp_path, quantization_config=settings)
    wanted = _with_8_bit_floats(folder, 32)

    assert _converted(folder, "F32") == ("F32", wanted.tobytes())


def test_8_bit_floats_become_q8_0_unless_told_otherwise(tmp_path: Path) -> None:
    settings = {"quant_method": "fp8", "weight_block_size": [32, 32]}
    folder = copy_fixture(NAME, tmp_path, quantization_config=settings)
    _with_8_bit_floats(folder, 32)

    assert _converted(folder)[0] == "Q8_0"


def test_scales_of_another_shape_are_named(tmp_path: Path) -> None:
    settings = {"quant_method": "fp8", "weight_block_size": [16, 16]}
    folder = copy_fixture(NAME, tmp_path, quantization_config=settings)
    _with_8_bit_floats(folder, 32)

    assert "tensor 'model.layers.0.mlp.down_proj.weight': scales of" in _refusal(folder)


def test_every_architecture_says_what_it_writes() -> None:
    for name, family in known_architectures().items():
        assert issubclass(family, Architecture)
        assert family.gguf_name, name


@pytest.mark.parametrize("key", ["text_config", "llm_config"])
def test_nested_settings_are_found(key: str) -> None:
    from olm.convert.hparams import text_hparams

    config = {"vocab_size": 5, "hidden_size": 1, key: {"hidden_size": 2, "vocab_size": None}}

    found = text_hparams(config)

    assert (found.integer("hidden_size"), found.integer("vocab_size")) == (2, 5)


def test_settings_go_by_several_names() -> None:
    hparams = Hparams(json.loads('{"n_embd": 8.0, "dim": 9, "hidden_size": null}'))

    assert hparams.integer("hidden_size", "n_embd", "dim") == 8
    assert hparams.integer("absent", default=3) == 3
    assert hparams.find_number("absent") is None
