"""Adapters of families that turn, cut, interleave or stack their weights: merging in the GGUF is merging in the checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import attrs
import numpy as np
import pytest
from numpy.typing import NDArray
from oracle import folder_of

from olm.checkpoint.folder import OpenCheckpoint, open_checkpoint
from olm.checkpoint.types import RowReader
from olm.convert.architecture import Options
from olm.convert.hparams import Hparams
from olm.convert.lazy import constant
from olm.convert.lora import plan_adapter
from olm.convert.model_file import ModelFile
from olm.convert.registry import architecture_of
from olm.convert.rows import n_rows, row_length
from olm.convert.values import to_f32
from olm.errors import CheckpointError

pytestmark = pytest.mark.native

RANK, ALPHA = 3, 6.0
FAMILIES = (
    "bloom",
    "chatglm3",
    "command-r",
    "dbrx",
    "deepseek2",
    "ernie4.5",
    "falcon-groups",
    "gpt2",
    "gptneox",
    "granitehybrid",
    "granitemoe",
    "internlm2",
    "jamba",
    "lfm2-moe",
    "llama4",
    "minicpm",
    "modern-bert",
    "nemotron-h",
    "nomic-bert-moe",
    "olmoe",
    "phimoe",
    "qwen3-next",
    "stablelm",
)
# Norms and tables of positions are no layers that PEFT adapts; the rest cannot be said with two factors, see below.
NOT_ADAPTED = r"norm|position|token_type|wpe|ln_|conv1d|mtp\.|pooler|kv_b_proj"
TIED_OUTPUT = ("bloom", "command-r", "gpt2", "minicpm", "modern-bert", "granitehybrid")

Floats = NDArray[np.float32]


@attrs.frozen
class _Changed:
    """A checkpoint with other tensors, and JSON files beside its own."""

    inner: OpenCheckpoint
    tensors: Mapping[str, RowReader]
    files: Mapping[str, object] = attrs.field(factory=dict)

    @property
    def folder(self) -> Path:
        return self.inner.folder

    @property
    def config(self) -> Mapping[str, object]:
        return self.inner.config

    def json(self, name: str) -> object | None:
        return self.files.get(name, self.inner.json(name))

    def text(self, name: str) -> str | None:
        return self.inner.text(name)

    def part(self, name: str) -> OpenCheckpoint:
        return self.inner.part(name)

    def close(self) -> None:
        pass


def _values(reader: RowReader) -> Floats:
    flat = to_f32(reader.read(0, n_rows(reader)), reader.dtype, row_length(reader))
    return flat.reshape(reader.shape)


def _all(file: ModelFile) -> dict[str, Floats]:
    return {tensor.name: _values(tensor.reader) for tensor in file.tensors}


def _model(checkpoint: OpenCheckpoint, tensors: Mapping[str, RowReader]) -> dict[str, Floats]:
    name, family = architecture_of(Hparams(checkpoint.config))
    bare = type(family.__name__, (family,), {"vocab": lambda _self: None})
    return _all(bare(_Changed(checkpoint, tensors), name, Options("F32")).build())


def _factors(
    checkpoint: OpenCheckpoint, name: str, wanted: str
) -> dict[str, tuple[Floats, Floats]]:
    """(A, B) for matrices, as PEFT's linear layers have them."""
    rng = np.random.default_rng(5)
    skipped = NOT_ADAPTED + ("|lm_head" if name in TIED_OUTPUT else "")
    found = {}
    for weight, tensor in checkpoint.tensors.items():
        if len(tensor.shape) != 2 or not weight.endswith(".weight") or tensor.dtype[0] == "I":
            continue
        if re.search(wanted, weight) and not re.search(skipped, weight):
            rows, columns = tensor.shape[::-1] if _is_turned(name, weight) else tensor.shape
            found[weight] = (
                rng.standard_normal((RANK, columns)).astype(np.float32),
                rng.standard_normal((rows, RANK)).astype(np.float32),
            )
    return found


def _is_turned(name: str, weight: str) -> bool:
    """GPT-2 keeps its layers as [inputs, outputs]."""
    return name == "gpt2" and ".h." in weight


def _is_embedding(weight: str) -> bool:
    return (
        re.search(r"embed_tokens|embed_in|embeddings\.weight|tok_embeddings|word_emb|wte", weight)
        is not None
    )


def _adapter(
    checkpoint: OpenCheckpoint, factors: Mapping[str, tuple[Floats, Floats]]
) -> dict[str, Floats]:
    tensors: dict[str, RowReader] = {}
    for weight, (a, b) in factors.items():
        module = "base_model.model." + weight.removesuffix(".weight")
        if _is_embedding(weight):
            tensors[f"{module}.lora_embedding_A"] = constant(b.T)
            tensors[f"{module}.lora_embedding_B"] = constant(a.T)
        else:
            tensors[f"{module}.lora_A.weight"] = constant(a)
            tensors[f"{module}.lora_B.weight"] = constant(b)
    files = {"adapter_config.json": {"lora_alpha": ALPHA, "r": RANK}}
    return _all(plan_adapter(_Changed(checkpoint, tensors, files), None))  # type: ignore[arg-type]  # readers without files


def _merged(plain: Mapping[str, Floats], adapter: Mapping[str, Floats]) -> dict[str, Floats]:
    found = dict(plain)
    for name in [name.removesuffix(".lora_a") for name in adapter if name.endswith(".lora_a")]:
        a, b = adapter[f"{name}.lora_a"], adapter[f"{name}.lora_b"]
        if name == "token_embd.weight":
            a, b = b.T, a
        change = np.float32(ALPHA / b.shape[-1]) * (b @ a)
        found[name] = plain[name] + change.reshape(plain[name].shape)
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_rearranges_factors_as_it_does_weights(tmp_path: Path, name: str) -> None:
    with open_checkpoint(folder_of(name, tmp_path / "tiny")) as checkpoint:
        plain = _model(checkpoint, checkpoint.tensors)
        factors = _factors(checkpoint, name, "")
        changed: dict[str, RowReader] = dict(checkpoint.tensors)
        for weight, (a, b) in factors.items():
            delta = np.float32(ALPHA / RANK) * (b @ a)
            turned = delta.T if _is_turned(name, weight) else delta
            changed[weight] = constant(_values(checkpoint.tensors[weight]) + turned)
        expected = _model(checkpoint, changed)

        found = _merged(plain, _adapter(checkpoint, factors))

    assert sum((found[key] != plain[key]).any() for key in plain) >= 4
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, atol=1e-4, err_msg=key)


@pytest.mark.parametrize(
    ("name", "weight", "words"),
    [
        ("deepseek2", r"layers\.0.*kv_b_proj", "of experts or heads cannot be transposed"),
        ("gemma2", "lm_head", "that an adapter could change alone"),
        ("olmoe", r"experts\.1\.up_proj", "expert 0 is missing"),
    ],
)
def test_what_two_factors_cannot_say_is_refused(
    tmp_path: Path, name: str, weight: str, words: str
) -> None:
    with open_checkpoint(folder_of(name, tmp_path / "tiny")) as checkpoint:
        shapes = {key: t.shape for key, t in checkpoint.tensors.items() if re.search(weight, key)}
        key, (rows, columns) = next(iter(shapes.items()), ("lm_head.weight", (96, 32)))
        factors = {key: (np.ones((2, columns), np.float32), np.ones((rows, 2), np.float32))}

        with pytest.raises(CheckpointError, match=words):
            _adapter(checkpoint, factors)
