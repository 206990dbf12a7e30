"""Which files of a create are what, and what a quantization may say."""

from __future__ import annotations

import pytest

from olm.errors import InvalidRequest
from olm.gguf.types import FILE_TYPES
from olm.store.create_files import (
    adapter_names,
    checked_quantize,
    checkpoint_level,
    checkpoint_names,
    draft_error,
    is_checkpoint_weights,
    quantize_error,
)
from olm.store.create_info import with_info
from olm.store.manifests import ImageConfig
from olm.store.names import Digest


@pytest.mark.parametrize(
    ("names", "inside"),
    [
        (["config.json", "model.safetensors"], ["config.json", "model.safetensors"]),
        (["m/config.json", "m/model.safetensors"], ["config.json", "model.safetensors"]),
        (
            ["m/1_Pooling/config.json", "m/2_Dense/model.safetensors", "m/model.safetensors"],
            ["1_Pooling/config.json", "2_Dense/model.safetensors", "model.safetensors"],
        ),
        (["a/b/x.bin"], ["x.bin"]),
    ],
)
def test_the_folder_of_a_checkpoint_is_taken_off(names: list[str], inside: list[str]) -> None:
    assert checkpoint_names(names) == dict(zip(names, inside, strict=True))


def test_each_folder_with_an_adapters_config_is_an_adapter() -> None:
    files = ["x/a/adapter_config.json", "x/a/adapter_model.safetensors", "y/a/adapter_config.json"]

    assert adapter_names(["adapter_config.json", "w.bin"]) == {
        "adapter": {"adapter_config.json": "adapter_config.json", "w.bin": "w.bin"}
    }
    assert list(adapter_names(files[:2])) == ["a"]
    assert adapter_names(files) == {
        "a": {files[0]: "adapter_config.json", files[1]: "adapter_model.safetensors"},
        "y-a": {files[2]: "adapter_config.json"},
    }


@pytest.mark.parametrize(
    ("config", "level"),
    [
        (b'{"torch_dtype": "bfloat16"}', "BF16"),
        (b'{"dtype":"float32"}', "F32"),
        (b'{"torch_dtype": "float16"}', "F16"),
        (b"\xff\x00", "F16"),
    ],
)
def test_a_status_names_what_a_checkpoint_was(config: bytes, level: str) -> None:
    assert checkpoint_level(config) == level


@pytest.mark.parametrize("name", [*FILE_TYPES.values(), "q4_k", "q4_K_M", "f16"])
def test_every_type_that_can_be_written_can_be_asked_for(name: str) -> None:
    wanted = checked_quantize(name, {}, {})

    assert wanted is not None
    assert wanted.file_type in FILE_TYPES.values()
    assert wanted.is_plain == (name.upper() in ("F32", "F16", "BF16"))


def test_a_quantization_keeps_the_order_of_its_overrides_and_its_matrix() -> None:
    digest = Digest.of(b"")

    wanted = checked_quantize("q4_k", {"b": "q8_0", "a": "F16"}, {"some/m.dat": digest})

    assert wanted is not None
    assert list(wanted.overrides.items()) == [("b", "Q8_0"), ("a", "F16")]
    assert (wanted.file_type, wanted.imatrix, wanted.imatrix_name) == ("Q4_K_M", digest, "m.dat")
    assert checked_quantize("", {}, {}) is None
    with pytest.raises(InvalidRequest, match="unknown tensor type 'Q4_K_M'"):
        checked_quantize("q4_k", {"a": "q4_k_m"}, {})


def test_only_floats_are_quantized() -> None:
    assert [quantize_error(level) for level in ("F32", "F16", "BF16", "unknown")] == [None] * 4
    error = draft_error("Q4_0")
    assert str(error) == "draft quantization requires an unquantized draft model, got Q4_0"


def test_weights_are_told_by_name() -> None:
    names = ["model.safetensors", "m.BIN", "consolidated.00.pth", "m.pt", "config.json", "m.gguf"]

    assert [is_checkpoint_weights(name) for name in names] == [True] * 4 + [False] * 2


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"model_family": 5}, 'info field "model_family" must be a string'),
        ({"context_length": "5"}, 'info field "context_length" must be a number'),
        ({"context_length": True}, 'info field "context_length" must be a number'),
        ({"embedding_length": -1}, 'info field "embedding_length" must be a non-negative integer'),
        ({"embedding_length": 1e400}, 'info field "embedding_length" must be a non-negative'),
        ({"capabilities": "x"}, 'info field "capabilities" must be an array of strings'),
        ({"capabilities": ["x", 1]}, 'info field "capabilities" element 1 must be a string'),
    ],
)
def test_wrong_info_is_named(info: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        with_info(ImageConfig(), info)

    assert caught.value.message.startswith(message)


def test_info_replaces_what_it_names_and_nothing_else() -> None:
    config = ImageConfig(model_family="llama", model_families=("llama",), file_type="F16")

    changed = with_info(
        config, {"model_family": "x", "context_length": 8.0, "capabilities": [], "other": 1}
    )

    assert changed == ImageConfig(
        model_family="x", model_families=("x",), file_type="F16", context_length=8
    )
