"""Quantized files are llama-quantize's, byte for byte, for every type and mixture that llama.cpp can write."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from convert_kit import Shape, quantized_by_llama, random_model, tensor_bytes

from olm.convert.gguf_source import GgufSource
from olm.convert.imatrix import ImportanceMatrix
from olm.convert.model_file import ModelFile
from olm.convert.quantize import importance, quantized
from olm.convert.recipe import Recipe, TypeOverride
from olm.convert.writer import write_gguf
from olm.errors import CheckpointError, InvalidRequest
from olm.gguf.types import FILE_TYPES

pytestmark = pytest.mark.native

# Some tables of the smallest types take ten seconds to make. `OLM_TEST_ALL_TYPES=1` tries every type with every shape.
ALL = bool(os.environ.get("OLM_TEST_ALL_TYPES"))

NEEDY = ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ1_S", "IQ1_M", "Q2_K_S", "IQ3_XXS", "IQ3_XS")
# llama.cpp reads NVFP4 and writes it tensor by tensor, but has no recipe for a file of it.
WRITABLE = [name for name in FILE_TYPES.values() if name != "NVFP4"]
SHAPES = {
    "plain": Shape(),
    "grouped": Shape(n_kv_heads=2),
    "tied": Shape(is_tied=True, n_kv_heads=4, n_layers=16),
    "eight experts": Shape(n_experts=8, n_kv_heads=2),
    "four experts": Shape(n_experts=4, n_layers=9),
    "falcon": Shape(architecture="falcon", is_fused=True, n_layers=16),
    "fused": Shape(architecture="phi3", is_fused=True),
    "odd rows": Shape(n_embd=288, n_ff=160),
    "rows of no block": Shape(n_embd=264, n_ff=264, n_layers=1),
}


def _imatrix(file: ModelFile) -> ImportanceMatrix:
    rng = np.random.default_rng(7)
    entries = {}
    for tensor in file.tensors:
        if len(tensor.reader.shape) > 1:
            *outer, _, columns = tensor.reader.shape
            n_values = columns * int(np.prod(outer, dtype=np.int64))
            entries[tensor.name] = rng.random(n_values, dtype=np.float32) + np.float32(0.1)
    return ImportanceMatrix("im.gguf", entries, "text", 5)


def _both(
    tmp_path: Path, shape: Shape, recipe: Recipe, *, with_imatrix: bool = False
) -> tuple[Path, Path]:
    """The file by us, in one pass, and by llama.cpp from the f32 file."""
    file = random_model(shape)
    plain, ours, theirs = (tmp_path / name for name in ("plain.gguf", "ours.gguf", "theirs.gguf"))
    write_gguf(file, plain, n_threads=1)
    imatrix = _imatrix(file) if with_imatrix else None
    quantized_by_llama(plain, theirs, recipe, imatrix.entries if imatrix else None)
    result = quantized(file, recipe, imatrix)
    write_gguf(
        result,
        ours,
        n_threads=2,
        imatrix=importance(result.tensors, imatrix) if imatrix else None,
    )
    return ours, theirs


# Shapes that between them meet every rule of the mixtures.
FEW = ["tied", "eight experts", "odd rows"]
# File types whose mixture an importance matrix changes.
CHANGED = ["IQ3_XXS", "IQ4_NL", "IQ4_XS", "Q4_0", "Q5_0", "Q2_K_S"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES if ALL else FEW)
def test_every_mixture_is_llama_quantizes_own(tmp_path: Path, name: str) -> None:
    """Whole files are equal, header and order of tensors included."""
    shape = SHAPES[name]
    for file_type in WRITABLE:
        if file_type in NEEDY or (file_type == "Q1_0" and shape.n_embd % 128):
            continue
        ours, theirs = _both(tmp_path, shape, Recipe(file_type=file_type))
        assert ours.read_bytes() == theirs.read_bytes(), file_type


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES if ALL else ["grouped", "eight experts"])
def test_an_importance_matrix_changes_what_it_changes_in_llama_quantize(
    tmp_path: Path, name: str
) -> None:
    shape = SHAPES[name]
    # IQ3_XXS gives queries and keys a type whose tables take four seconds.
    overrides = () if ALL else (TypeOverride("attn_[qk]", "Q4_0"),)
    for file_type in WRITABLE if ALL else CHANGED:
        if file_type == "Q1_0" and shape.n_embd % 128:
            continue
        recipe = Recipe(file_type=file_type, overrides=overrides)
        ours, theirs = _both(tmp_path, shape, recipe, with_imatrix=True)
        assert tensor_bytes(ours) == tensor_bytes(theirs), file_type


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(file_type="q4_k"),
        Recipe(file_type="Q4_K_M", pure=True),
        Recipe(file_type="Q4_K_M", output_type="q8_0", embedding_type="F16"),
        Recipe(file_type="Q4_K_M", keep_output=True),
        Recipe(
            file_type="Q5_K_M",
            overrides=(
                TypeOverride(r"blk\.[0-3]\.ffn_down", "Q8_0"),
                TypeOverride("attn_v", "IQ4_NL"),
            ),
        ),
    ],
)
def test_wishes_are_understood_as_by_llama_quantize(tmp_path: Path, recipe: Recipe) -> None:
    ours, theirs = _both(tmp_path, Shape(n_kv_heads=2), recipe)

    assert ours.read_bytes() == theirs.read_bytes()


def test_overrides_are_not_counted_when_an_importance_matrix_decides(tmp_path: Path) -> None:
    recipe = Recipe(file_type="Q4_0", overrides=(TypeOverride(r"blk\.0\.ffn_down", "Q8_0"),))

    ours, theirs = _both(tmp_path, Shape(n_layers=16), recipe, with_imatrix=True)

    assert tensor_bytes(ours) == tensor_bytes(theirs)


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_large_models_whose_values_are_shared_get_more_bits(
    tmp_path: Path, architecture: str
) -> None:
    """Upstream tells them by their number of layers."""
    shape = Shape(architecture=architecture, n_layers=80, n_kv_heads=2)

    ours, theirs = _both(tmp_path, shape, Recipe(file_type="Q3_K_S"))

    assert tensor_bytes(ours)["blk.40.attn_v.weight"][0] == "Q5_K"
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_gguf_becomes_another_type(tmp_path: Path) -> None:
    recipe = Recipe(file_type="Q4_K_M", allow_requantize=True)
    plain, q8, ours, theirs = (tmp_path / name for name in ("plain", "q8", "ours", "theirs"))
    write_gguf(random_model(Shape()), plain)
    quantized_by_llama(plain, q8, Recipe(file_type="Q8_0"))
    quantized_by_llama(q8, theirs, recipe)

    with GgufSource([q8]) as source:
        write_gguf(quantized(source.file, recipe), ours)

    assert ours.read_bytes() == theirs.read_bytes()


def test_a_gguf_is_copied_byte_by_byte(tmp_path: Path) -> None:
    path, copy = tmp_path / "a", tmp_path / "b"
    write_gguf(random_model(Shape()), path)

    with GgufSource([path]) as source:
        write_gguf(source.file, copy)

    assert copy.read_bytes() == path.read_bytes()


def test_quantized_weights_are_not_quantized_again_unasked(tmp_path: Path) -> None:
    path = tmp_path / "q8"
    write_gguf(quantized(random_model(Shape()), Recipe(file_type="Q8_0")), path)

    with GgufSource([path]) as source, pytest.raises(InvalidRequest, match="is Q8_0 already"):
        quantized(source.file, Recipe(file_type="Q4_0"))


@pytest.mark.parametrize("name", NEEDY)
def test_types_useless_without_an_importance_matrix_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="needs an importance matrix"):
        quantized(random_model(Shape(n_layers=1)), Recipe(file_type=name))


def test_an_importance_matrix_that_lacks_a_needed_tensor_is_refused() -> None:
    file = random_model(Shape(n_layers=2))
    whole = _imatrix(file)
    entries = {k: v for k, v in whole.entries.items() if k != "blk.1.ffn_up.weight"}

    with pytest.raises(
        InvalidRequest, match=r"blk\.1\.ffn_up\.weight.*not in the importance matrix"
    ):
        quantized(file, Recipe(file_type="IQ2_XS"), ImportanceMatrix("im", entries))


def test_an_importance_matrix_of_another_model_is_refused() -> None:
    other = _imatrix(random_model(Shape(n_layers=1, n_embd=512)))
    result = quantized(random_model(Shape(n_layers=1)), Recipe(file_type="Q4_0"), other)

    with pytest.raises(CheckpointError, match="of another model"):
        importance(result.tensors, other)


def test_unknown_types_are_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match=r"unsupported quantization type Q9.*Q4_K_M"):
        quantized(random_model(Shape(n_layers=1)), Recipe(file_type="Q9"))


def test_rows_that_fit_no_type_of_a_recipe_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="fallback"):
        quantized(random_model(Shape(n_layers=1, n_embd=264)), Recipe(file_type="Q1_0"))


def test_a_pattern_that_is_no_regular_expression_is_refused_by_name() -> None:
    recipe = Recipe(file_type="Q4_0", overrides=(TypeOverride("blk.(", "Q8_0"),))

    with pytest.raises(InvalidRequest, match=r"pattern 'blk\.\(' is no regular expression: "):
        quantized(random_model(Shape(n_layers=1)), recipe)
