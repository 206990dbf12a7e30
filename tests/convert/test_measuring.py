"""Importance matrices of our own: the numbers, the file, what quantization makes of it, and how a child stops."""

from __future__ import annotations

import math
from pathlib import Path

import gguf
import numpy as np
import pytest
import trio
from convert_kit import Shape, random_model, tensor_bytes
from numpy.typing import NDArray

from kit.bert import CONTEXT, write_bert
from kit.hf import FIXTURES
from olm.actors.runtime import open_supervisor
from olm.convert.imatrix import read_imatrix
from olm.convert.job import open_conversion, open_measuring
from olm.convert.lazy import constant
from olm.convert.measure_wire import Measured, MeasureEvent, MeasureImportance, MeasureStep
from olm.convert.measuring import measure
from olm.convert.model_file import ModelFile, OutTensor
from olm.convert.run import convert
from olm.convert.wire import Convert, Converted, Quantization
from olm.convert.writer import write_gguf
from olm.errors import InvalidRequest, LoadFailed
from olm.gguf import read_header
from olm.native.handles import Model
from olm.native.lib import Cancelled
from olm.native.quantize import CancelFlag
from runtime.runtime_children import children_of_this_process

pytestmark = pytest.mark.native

TINY = Path(__file__).parents[2] / "src/olm/data/tiny/tiny-q8_0.gguf"
WORDS = [
    "the",
    "sky",
    "is",
    "blue",
    "and",
    "a",
    "cat",
    "sat",
    "on",
    "it",
    "while",
    "nobody",
    "looked",
]
N_CTX = 64


def _text(path: Path, n_words: int = 1500) -> str:
    """Words by a rule of its own, so that no two chunks are the same."""
    path.write_text(" ".join(WORDS[i * i % 53 % len(WORDS)] for i in range(n_words)) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("measuring")


def _fixture(folder: Path, name: str) -> Path:
    path = folder / f"{name}.gguf"
    if not path.exists():
        files = {file.name: str(file) for file in (FIXTURES / name).iterdir()}
        wanted = Quantization(file_type="F32")
        request = Convert(target=str(path), files=files, name=name, quantization=wanted)
        convert(request, lambda _: None, CancelFlag())
    return path


def _measured(request: MeasureImportance) -> list[MeasureEvent]:
    events: list[MeasureEvent] = []
    measure(request, events.append, CancelFlag())
    return events


def _floats(path: Path) -> dict[str, NDArray[np.float32]]:
    return {
        name: np.frombuffer(data, "<f4").astype(np.float32)
        for name, (_, data) in tensor_bytes(path).items()
    }


@pytest.mark.slow
def test_the_first_layers_sums_are_those_of_the_embeddings(folder: Path) -> None:
    """What goes into the first layer can be computed by hand: the norm of each token's embedding."""
    model, text, target = _fixture(folder, "llama-untied"), _text(folder / "t"), folder / "first"
    _measured(MeasureImportance(model=str(model), text=text, target=str(target), n_ctx=N_CTX))

    weights = _floats(model)
    epsilon = read_header(model).values["llama.attention.layer_norm_rms_epsilon"]
    with Model.load(model) as loaded:
        words = Path(text).read_text().removesuffix("\n")
        tokens = np.array(loaded.tokenize(words, parse_special=False))
        if loaded.info.add_bos:
            tokens[::N_CTX] = loaded.info.bos
        tokens = tokens[: len(tokens) // N_CTX * N_CTX]
        rows = weights["token_embd.weight"].reshape(-1, loaded.info.n_embd)[tokens]
    rows = rows / np.sqrt((rows**2).mean(axis=1, keepdims=True) + epsilon)
    expected = ((rows * weights["blk.0.attn_norm.weight"]) ** 2).sum(axis=0)
    found = _floats(target)
    for name in ("attn_q", "attn_k", "attn_v"):
        np.testing.assert_allclose(found[f"blk.0.{name}.weight.in_sum2"], expected, rtol=1e-4)
        assert found[f"blk.0.{name}.weight.counts"].tolist() == [len(tokens)]


@pytest.mark.slow
def test_the_file_is_llama_imatrix_own(folder: Path) -> None:
    """Keys, names, order, types and shapes as its files have them (compared byte by byte when this was written)."""
    model, target = _fixture(folder, "qwen3moe"), folder / "moe"
    request = MeasureImportance(
        model=str(model),
        text=_text(folder / "t"),
        target=str(target),
        dataset="t.txt",
        n_ctx=N_CTX,
        n_chunks=9,
    )

    events = _measured(request)

    header = read_header(target, arrays=True)
    assert list(header.values) == [
        "general.type",
        "imatrix.datasets",
        "imatrix.chunk_count",
        "imatrix.chunk_size",
    ]
    assert header.text("general.type") == "imatrix"
    assert header.integer("imatrix.chunk_count") == 9
    assert header.integer("imatrix.chunk_size") == N_CTX
    names = [tensor.name for tensor in header.tensors]
    assert names == [
        n
        for s in sorted({n.rpartition(".")[0] for n in names})
        for n in (f"{s}.in_sum2", f"{s}.counts")
    ]
    shapes = {tensor.name: tuple(tensor.shape) for tensor in header.tensors}
    experts = "blk.0.ffn_down_exps.weight"
    n_experts = read_header(model).integer("qwen3moe.expert_count")
    assert shapes[f"{experts}.in_sum2"][1] == n_experts
    assert shapes[f"{experts}.counts"] == (1, n_experts)
    assert shapes["blk.0.attn_q.weight.counts"] == (1,)
    used = read_header(model).integer("qwen3moe.expert_used_count")
    assert _floats(target)[f"{experts}.counts"].sum() == 9 * N_CTX * used
    assert not [name for name in names if not name.startswith("blk.")]
    assert events[0] == MeasureStep(0, 0)
    assert events[-2] == MeasureStep(9 * N_CTX, 9 * N_CTX)
    assert isinstance(events[-1], Measured)
    assert events[-1].size_bytes == target.stat().st_size
    assert read_imatrix(target).dataset == "t.txt"


@pytest.mark.slow
def test_the_sums_are_those_of_llama_imatrix(folder: Path) -> None:
    """Sums over all columns that the pinned tool gave for this model and text: `llama-imatrix -c 64 -b 512 --chunks 16`."""
    model, target = _fixture(folder, "llama-untied"), folder / "tool"
    text = _text(folder / "t")
    _measured(
        MeasureImportance(model=str(model), text=text, target=str(target), n_ctx=N_CTX, n_chunks=16)
    )

    found = {name: float(values.sum(dtype=np.float64)) for name, values in _floats(target).items()}

    for name, value in TOOL.items():
        assert found[f"{name}.weight.in_sum2"] == pytest.approx(value, rel=2e-3), name


TOOL = {
    "blk.0.attn_k": 65563.3,
    "blk.0.attn_output": 22123.2,
    "blk.0.attn_q": 65563.3,
    "blk.0.attn_v": 65563.3,
    "blk.0.ffn_down": 40363.8,
    "blk.0.ffn_gate": 63836.6,
    "blk.0.ffn_up": 63836.6,
    "blk.1.attn_k": 70231.7,
    "blk.1.attn_output": 29712.6,
    "blk.1.attn_q": 70231.7,
    "blk.1.attn_v": 70231.7,
    "blk.1.ffn_down": 48121.6,
    "blk.1.ffn_gate": 65862.3,
    "blk.1.ffn_up": 65862.3,
    "blk.2.attn_k": 71410.8,
    "blk.2.attn_output": 29162.0,
    "blk.2.attn_q": 71410.8,
    "blk.2.attn_v": 71410.8,
    "blk.2.ffn_down": 54313.8,
    "blk.2.ffn_gate": 68738.4,
    "blk.2.ffn_up": 68738.4,
}


@pytest.mark.slow
def test_an_encoder_without_a_memory_is_measured(folder: Path) -> None:
    path, target = folder / "bert.gguf", folder / "bert.imatrix"
    write_bert(path, pooling=gguf.PoolingType.CLS)
    text = folder / "words"
    text.write_text("the sky is blue a cat sat " * 60)

    _measured(MeasureImportance(model=str(path), text=str(text), target=str(target)))

    assert read_header(target).integer("imatrix.chunk_size") == CONTEXT
    assert _floats(target)["blk.1.ffn_down.weight.in_sum2"].min() > 0


def test_a_text_that_is_too_short_is_refused(folder: Path) -> None:
    (folder / "short").write_text("Hi there")
    request = MeasureImportance(
        model=str(TINY), text=str(folder / "short"), target=str(folder / "none")
    )

    with pytest.raises(InvalidRequest, match="1024 are needed for chunks of 512"):
        _measured(request)

    assert not (folder / "none").exists()


def test_a_chunk_beyond_the_models_context_is_refused(folder: Path) -> None:
    path, text = folder / "bert2.gguf", folder / "words2"
    write_bert(path)
    text.write_text("the sky is blue a cat sat " * 60)
    request = MeasureImportance(
        model=str(path), text=str(text), target=str(folder / "none"), n_ctx=CONTEXT + 1
    )

    with pytest.raises(InvalidRequest, match=f"context of {CONTEXT}"):
        _measured(request)


def test_weights_that_cannot_be_loaded_are_refused_without_their_path(folder: Path) -> None:
    path = folder / "broken.gguf"
    path.write_bytes(TINY.read_bytes()[:5000])
    request = MeasureImportance(model=str(path), text=_text(folder / "t"), target="unused")

    with pytest.raises(LoadFailed) as caught:
        _measured(request)

    assert str(folder) not in str(caught.value)


def test_a_flag_stops_it(folder: Path) -> None:
    flag = CancelFlag()
    flag.set()
    request = MeasureImportance(
        model=str(TINY), text=_text(folder / "t"), target="unused", n_ctx=N_CTX
    )

    with pytest.raises(Cancelled):
        measure(request, lambda _: None, flag)


# -- from a text to a quantized model --------------------------------------------------------------------------------


def _wide_model(path: Path) -> None:
    """A llama of random weights with rows of 256, as k-quants want them, and the vocabulary of `tiny`."""
    tiny = gguf.GGUFReader(TINY)
    shape = Shape(n_layers=2, n_heads=4, n_kv_heads=4)
    rng = np.random.default_rng(3)
    plain = random_model(shape)
    meta = plain.metadata
    meta.u32(".context_length", 512)
    meta.u32(".rope.dimension_count", 64)
    tokens = tiny.get_field("tokenizer.ggml.tokens")
    assert tokens is not None
    n_vocab = len(tokens.data)
    for name in ("model", "pre"):
        field = tiny.get_field(f"tokenizer.ggml.{name}")
        if field is not None:
            meta.text(f"tokenizer.ggml.{name}", field.contents())
    for name in ("tokens", "merges"):
        field = tiny.get_field(f"tokenizer.ggml.{name}")
        if field is not None:
            meta.texts(f"tokenizer.ggml.{name}", field.contents())
    for name in ("token_type", "scores"):
        field = tiny.get_field(f"tokenizer.ggml.{name}")
        if field is not None:
            (meta.i32s if name == "token_type" else meta.f32s)(
                f"tokenizer.ggml.{name}", field.contents()
            )
    dims = {"token_embd": n_vocab, "output": n_vocab}
    tensors = []
    for tensor in plain.tensors:
        stem, columns = tensor.name.removesuffix(".weight"), tensor.reader.shape[-1]
        values = np.ones(columns)
        if not stem.endswith("norm"):
            values = rng.standard_normal((dims.get(stem, 256), columns)) / math.sqrt(columns)
        tensors.append(OutTensor(tensor.name, constant(values.astype(np.float32)), "F32"))
    write_gguf(ModelFile("model", meta, tensors), path)


@pytest.mark.slow
async def test_a_type_that_needs_it_takes_a_matrix_of_our_own(tmp_path: Path) -> None:
    model, matrix = tmp_path / "wide.gguf", tmp_path / "wide.imatrix.gguf"
    _wide_model(model)
    wanted = Quantization(file_type="IQ2_XS")
    plain = Convert(target=str(tmp_path / "a"), ggufs=[str(model)], quantization=wanted)
    with pytest.raises(InvalidRequest, match="needs an importance matrix"):
        convert(plain, lambda _: None, CancelFlag())

    request = MeasureImportance(
        model=str(model), text=_text(tmp_path / "t"), target=str(matrix), n_ctx=64, n_chunks=4
    )
    async with open_supervisor() as supervisor:
        async with open_measuring(supervisor, "m", request) as measuring:
            measured = [event async for event in measuring]
        with_it = Quantization(file_type="IQ2_XS", imatrix=str(matrix))
        second = Convert(target=str(tmp_path / "b"), ggufs=[str(model)], quantization=with_it)
        async with open_conversion(supervisor, "c", second) as converting:
            made = [event async for event in converting]

    assert isinstance(measured[-1], Measured)
    assert isinstance(made[-1], Converted)
    types = {name: kind for name, (kind, _) in tensor_bytes(tmp_path / "b").items()}
    assert types["blk.0.ffn_up.weight"] == "IQ2_XS"
    with Model.load(tmp_path / "b") as loaded:
        assert loaded.info.n_layer == 2


@pytest.mark.slow
async def test_a_measuring_that_nobody_waits_for_stops_and_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "out"
    request = MeasureImportance(
        model=str(TINY), text=_text(tmp_path / "t", 200_000), target=str(target), n_ctx=N_CTX
    )
    before = set(children_of_this_process())

    async with open_supervisor() as supervisor:
        async with open_measuring(supervisor, "m", request) as events:
            async for event in events:
                if isinstance(event, MeasureStep) and event.completed:
                    break
            start_s = trio.current_time()
        took_s = trio.current_time() - start_s

    assert took_s < 1.5
    assert not target.exists()
    assert set(children_of_this_process()) <= before
