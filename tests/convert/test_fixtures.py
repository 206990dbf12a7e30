"""Converted checkpoints compute what Transformers computed from the same files."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from kit.hf import FIXTURES, compare, reference
from olm.convert.job import projector_path
from olm.convert.run import convert
from olm.convert.wire import Convert, Converted, ConvertEvent, Quantization
from olm.gguf import read_header
from olm.native.handles import Model
from olm.native.quantize import CancelFlag

pytestmark = pytest.mark.native

CAUSAL = (
    "llama-tied",
    "llama-untied",
    "llama2-spm-bin",
    "mistral",
    "mistral-json-only",
    "mixtral-sharded",
    "qwen2",
    "qwen3",
    "qwen3moe",
    "gemma2",
    "gemma3",
    "gemma3-vision",
    "phi3",
    "granite",
    "olmo2",
    "starcoder2",
)


def _convert(name: str, target: Path, file_type: str = "") -> list[Converted]:
    files = {path.name: str(path) for path in (FIXTURES / name).iterdir() if path.is_file()}
    wanted = Quantization(file_type=file_type) if file_type else None
    events: list[ConvertEvent] = []
    convert(
        Convert(target=str(target), files=files, name=name, quantization=wanted),
        events.append,
        CancelFlag(),
    )
    return [event for event in events if isinstance(event, Converted)]


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("file_type", ["", "F32"])
def test_logits_and_tokens_are_those_of_transformers(
    backend: Path, tmp_path: Path, name: str, file_type: str
) -> None:
    target = tmp_path / "model.gguf"

    _convert(name, target, file_type)

    cases = cast("list[dict[str, object]]", reference(name)["tokenizer_cases"])
    with Model.load(target) as model:
        assert compare(model, name).is_exact
        for case in cases:
            assert model.tokenize(str(case["text"]), add_special=False) == case["ids"]


@pytest.mark.parametrize("name", CAUSAL)
def test_keys_and_shapes_are_those_of_llama_cpps_converter(tmp_path: Path, name: str) -> None:
    """Other choices can be equivalent: what Transformers works out by itself may be left out."""
    target = tmp_path / "model.gguf"
    _convert(name, target, "F32")
    wanted = cast("dict[str, dict[str, object]]", reference(name)["gguf"])

    header = read_header(target)

    assert {t.name: list(t.shape) for t in header.tensors} == wanted["tensors"]
    for key, value in wanted["kv"].items():
        found = header.values.get(key)
        if found is None and key.endswith(("key_length", "value_length")):
            continue
        assert found == (pytest.approx(value) if isinstance(value, float) else value), key


def test_an_8_bit_file_is_close(backend: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"

    _convert("llama-untied", target, "Q8_0")

    with Model.load(target) as model:
        assert compare(model, "llama-untied").cosine > 0.995


def test_what_came_out_is_told(tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"

    (converted,) = _convert("llama-tied", target)

    assert converted.size_bytes == target.stat().st_size
    assert not projector_path(target).exists()
    assert read_header(target).integer("general.file_type") == 32  # BF16 stays
