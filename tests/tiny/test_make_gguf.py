"""The committed package data of `tiny` is what `models/tiny/make_gguf.py` writes, and reads back as meant."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from importlib import resources
from pathlib import Path
from types import ModuleType

import gguf
import pytest

REPO = Path(__file__).resolve().parents[2]
DATA = REPO / "src" / "olm" / "data" / "tiny"


@pytest.fixture
def make_gguf() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "make_gguf", REPO / "models" / "tiny" / "make_gguf.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reader() -> gguf.GGUFReader:
    return gguf.GGUFReader(DATA / "tiny-q8_0.gguf")


@pytest.mark.native
def test_the_script_writes_exactly_the_committed_files(
    make_gguf: ModuleType, tmp_path: Path
) -> None:
    make_gguf.build_package_data(tmp_path)

    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    committed = {
        path.name: path.read_bytes()
        for path in DATA.iterdir()
        if path.is_file() and path.suffix != ".py"
    }
    assert {name: hashlib.sha256(data).hexdigest() for name, data in written.items()} == {
        name: hashlib.sha256(data).hexdigest() for name, data in committed.items()
    }


def test_model_json_describes_the_files_beside_it() -> None:
    package = resources.files("olm.data.tiny")

    described = json.loads(package.joinpath("model.json").read_text("utf-8"))

    assert described["name"] == "tiny"
    assert described["config"]["model_family"] == "llama"
    for layer in described["layers"]:
        data = package.joinpath(layer["file"]).read_bytes()
        assert layer["size"] == len(data)
        assert layer["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_params_are_greedy_and_stop_at_chatml_ends() -> None:
    params = json.loads((DATA / "params.json").read_text("utf-8"))

    assert params == {"stop": ["<|im_end|>", "<|endoftext|>"], "temperature": 0}


def test_matrices_are_q8_0_and_norms_f32(reader: gguf.GGUFReader) -> None:
    types = {tensor.name: tensor.tensor_type for tensor in reader.tensors}

    assert len(types) == 2 + 5 * 9
    assert "output.weight" not in types  # tied to the embedding
    for name, tensor_type in types.items():
        wanted = (
            gguf.GGMLQuantizationType.F32
            if name.endswith("_norm.weight")
            else gguf.GGMLQuantizationType.Q8_0
        )
        assert tensor_type == wanted, name


def test_tokenizer_metadata_is_what_llama_cpp_needs(reader: gguf.GGUFReader) -> None:
    values = {name: field.contents() for name, field in reader.fields.items()}
    config = json.loads((REPO / "models/tiny/hf/tokenizer_config.json").read_text("utf-8"))

    assert values["tokenizer.ggml.pre"] == "llama-bpe"
    assert values["tokenizer.ggml.add_bos_token"] is False
    assert values["tokenizer.chat_template"] == config["chat_template"]
    tokens = values["tokenizer.ggml.tokens"]
    kinds = values["tokenizer.ggml.token_type"]
    assert tokens[values["tokenizer.ggml.eos_token_id"]] == "<|im_end|>"
    assert kinds[tokens.index("<|im_end|>")] == gguf.TokenType.CONTROL
    assert kinds[tokens.index("<tool_call>")] == gguf.TokenType.USER_DEFINED
