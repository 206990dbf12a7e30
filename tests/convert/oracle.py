"""Tiny checkpoints of many architectures, and what llama.cpp's own converter makes of each: keys, names, types, bytes.

The answers lie in `tiny/*.json`: names and shapes of a checkpoint, whose weights are arithmetic (`oracle_weights`), and digests
of the GGUF's tensors. So the tests need no torch. To make answers for new cases, with an environment that has torch, transformers and
sentencepiece:

    OLM_TORCH_VENV=… python tests/convert/oracle.py NAME…

Cases are in the `oracle_cases_*.py` beside this file; without names, those without an answer are made.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import numpy as np
import trio
from numpy.typing import NDArray

if TYPE_CHECKING:
    from olm.convert.model_file import ModelFile

__all__ = [
    "ANSWERS",
    "Tiny",
    "build",
    "differences",
    "folder_of",
    "is_runnable",
    "run_once",
    "scores_of",
    "without_words",
]

ANSWERS = Path(__file__).parent / "tiny"
_FIXTURES = Path(__file__).parents[1] / "fixtures/hf"
_TYPES = ("F32", "F16", "BF16")
_KINDS = (
    "U8",
    "I8",
    "U16",
    "I16",
    "U32",
    "I32",
    "F32",
    "BOOL",
    "STRING",
    "ARRAY",
    "U64",
    "I64",
    "F64",
)
_LONG_KINDS = {
    "UINT8": "U8", "INT8": "I8", "UINT16": "U16", "INT16": "I16", "UINT32": "U32", "INT32": "I32",
    "FLOAT32": "F32", "UINT64": "U64", "INT64": "I64", "FLOAT64": "F64",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiny:
    """One checkpoint.

    Attributes:
        name: of its answer's file.
        hf_name: `architectures[0]`.
        config: what to set in Transformers' config class; the whole config.json where `tensors` are given.
        config_json: what published files say otherwise than Transformers writes it now; llama.cpp's converter is then kept from asking
            Transformers.
        model_class: the class of Transformers, if it has another name than `hf_name`.
        tensors: name -> shape, or [dtype, *shape], for architectures that Transformers has no class for.
        more_tensors: further ones, `2_Dense/linear.weight` for one in another folder.
        renames: parts of names that published checkpoints have otherwise than Transformers writes them now.
        files: other files of the folder, by path: text, or what becomes JSON.
        has_model, has_projector: which files it becomes.
        not_run: why llama.cpp is not asked to run it.
        tokenizer: a fixture whose tokenizer the folder gets (only where the conversion of tensors asks for it).
    """

    name: str
    hf_name: str
    config: Mapping[str, object]
    config_json: Mapping[str, object] = dataclasses.field(default_factory=dict)
    model_class: str = ""
    tensors: Mapping[str, Sequence[int | str]] | None = None
    more_tensors: Mapping[str, Sequence[int | str]] = dataclasses.field(default_factory=dict)
    renames: Mapping[str, str] = dataclasses.field(default_factory=dict)
    files: Mapping[str, object] = dataclasses.field(default_factory=dict)
    tokenizer: str = ""
    has_model: bool = True
    has_projector: bool = False
    not_run: str = ""


def _answer(name: str) -> Mapping[str, object]:
    return json.loads((ANSWERS / f"{name}.json").read_text("utf-8"))


def folder_of(name: str, folder: Path) -> Path:
    """Write a case's checkpoint."""
    import shutil

    from oracle_weights import write_folder

    answer = _answer(name)
    write_folder(folder, answer["config"], answer["tensors"], answer["files"])
    if answer["tokenizer"]:
        for path in (_FIXTURES / answer["tokenizer"]).iterdir():
            if path.name.startswith(("tokenizer", "special_tokens", "vocab", "merges", "added_")):
                shutil.copy(path, folder)
    return folder


def build(
    checkpoint: object, type_name: str = "F32", *, has_projector: bool = True
) -> Mapping[str, ModelFile]:
    """Plan the GGUFs of a checkpoint, by kind: the model without a tokenizer of its own, so that any weights can be loaded."""
    from olm.convert.architecture import Options
    from olm.convert.hparams import Hparams
    from olm.convert.output_types import with_file_type
    from olm.convert.registry import architecture_of, projector_of

    config = Hparams(checkpoint.config)
    hf_name, family = architecture_of(config)
    without = type(family.__name__, (family,), {"vocab": lambda _self: None})
    options = Options(type_name, "tiny")
    files = {"model": with_file_type(without(checkpoint, hf_name, options).build())}
    projector = projector_of(config)
    if projector is not None and has_projector:
        files["projector"] = with_file_type(projector(checkpoint, hf_name, options).build())
    return files


def differences(name: str, temp: Path) -> Iterator[str]:
    """Convert a case's checkpoint and say where that differs from llama.cpp's answer: key, tensor, type or bytes."""
    from convert_kit import tensor_bytes
    from oracle_weights import digest

    from olm.checkpoint.folder import open_checkpoint
    from olm.convert.writer import write_gguf

    answer = _answer(name)
    with open_checkpoint(folder_of(name, temp / "tiny")) as checkpoint:
        for place, type_name in enumerate(_TYPES):
            files = build(checkpoint, type_name, has_projector="projector" in answer)
            for kind, file in files.items():
                if kind not in answer:
                    continue
                path = temp / f"{kind}.gguf"
                write_gguf(file, path)
                expected = answer[kind]
                if place == 0:
                    yield from _key_differences(expected["keys"], file)
                    yield from _shape_differences(expected["tensors"], file)
                found = tensor_bytes(path)
                for tensor, (_, *digests) in expected["tensors"].items():
                    if tensor in found and digests[place] != digest(tensor, *found[tensor]):
                        yield f"{type_name} {tensor}: wanted {digests[place]}, found {digest(tensor, *found[tensor])}"


def scores_of(name: str) -> Sequence[float]:
    """What Transformers makes of `TOKENS`, where the checkpoint is a classifier; else nothing."""
    return _answer(name).get("scores", ())


def is_runnable(name: str) -> bool:
    """Whether the answer says that llama.cpp can run the model: some need a real vocabulary, some are parts of others."""
    answer = _answer(name)
    return "model" in answer and not answer.get("not_run")


def without_words(file: ModelFile) -> ModelFile:
    """The model with a vocabulary of numbers only, as many as its embedding has rows."""
    rows = {tensor.name: tensor.reader.shape[0] for tensor in file.tensors}
    meta = file.metadata.copy()
    for key in [key for key, _ in meta if key.startswith("tokenizer.")]:
        meta.remove(key)
    meta.text("tokenizer.ggml.model", "none")
    meta.u32(".vocab_size", rows["token_embd.weight"])
    meta.u32("tokenizer.ggml.token_type_count", rows.get("token_types.weight", 1))
    return attrs.evolve(file, metadata=meta)


def run_once(path: Path) -> NDArray[np.float32]:
    """Run a few tokens: logits after the last, or the hidden state of each for what only embeds."""
    from oracle_weights import TOKENS

    from kit.hf import logits_after
    from olm.gguf import read_header
    from olm.native.engine import Engine, EngineOptions
    from olm.native.handles import Model

    header = read_header(path)
    architecture = header.text("general.architecture")
    is_causal = header.values.get(f"{architecture}.attention.causal", True)
    pools = f"{architecture}.pooling_type" in header.values
    tokens = list(TOKENS)
    with Model.load(path) as model:
        if is_causal and model.info.has_decoder and not pools:
            return logits_after(model, tokens)
        with Engine(model, EngineOptions(n_ctx=64, n_parallel=1, n_threads=1)) as engine:
            engine.embed([tokens], normalize=False)

            async def wait() -> bytes:
                while True:
                    for event in await engine.next_events():
                        return event.vectors

            return np.frombuffer(trio.run(wait), np.float32)


def _key_differences(expected: Mapping[str, Sequence[object]], file: ModelFile) -> Iterator[str]:
    wanted = {k: (_kind_name(str(kind)), value) for k, (kind, value) in expected.items()}
    found = {}
    for key, pair in file.metadata:
        kind = _KINDS[pair.kind]
        if kind == "ARRAY":
            kind = f"ARRAY:{_KINDS[pair.payload[0]]}"
        found[key] = (kind, pair.value)
    for key, (kind, value) in wanted.items():
        if key not in found:
            yield f"key {key} is missing, wanted {kind} {value!r}"
        elif found[key][0] != kind or not _is_equal(found[key][1], value):
            yield f"key {key}: wanted {kind} {value!r}, found {found[key]}"
    for key in found.keys() - wanted.keys():
        if not key.startswith(("general.", "tokenizer.")):
            yield f"key {key} is too much: {found[key]}"


def _kind_name(text: str) -> str:
    return ":".join(_LONG_KINDS.get(part, part) for part in text.split(":"))


def _is_equal(found: object, wanted: object) -> bool:
    if isinstance(wanted, list):
        return len(wanted) == len(found) and all(map(_is_equal, found, wanted))
    if isinstance(wanted, float):
        return np.float32(found) == np.float32(wanted)
    return found == wanted


def _shape_differences(expected: Mapping[str, Sequence[object]], file: ModelFile) -> Iterator[str]:
    found = {tensor.name: list(tensor.reader.shape) for tensor in file.tensors}
    for name, (shape, *_) in expected.items():
        if name not in found:
            yield f"tensor {name} {shape} is missing"
        elif found[name] != shape:
            yield f"tensor {name}: wanted {shape}, found {found[name]}"
    for name in found.keys() - expected.keys():
        yield f"tensor {name} {found[name]} is too much"


def _all_cases() -> Mapping[str, Tiny]:
    sys.path.insert(0, str(Path(__file__).parent))
    modules = sorted(path.stem for path in Path(__file__).parent.glob("oracle_cases_*.py"))
    cases = [case for module in modules for case in importlib.import_module(module).CASES]
    return {case.name: case for case in cases}


def _make(names: Sequence[str]) -> int:
    cases = _all_cases()
    chosen = [cases[name] for name in names] or [
        case for case in cases.values() if not (ANSWERS / f"{case.name}.json").exists()
    ]
    python = Path(os.environ["OLM_TORCH_VENV"]) / "bin/python"
    trees = sorted((Path.home() / ".cache/olm/upstream").glob("*/llama.cpp"))
    here = Path(__file__).parent
    command = [python, here / "oracle_torch.py", trees[-1], _FIXTURES, ANSWERS]
    with tempfile.TemporaryFile() as cases_file:
        cases_file.write(json.dumps([dataclasses.asdict(case) for case in chosen]).encode())
        cases_file.seek(0)
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        return subprocess.run(command, stdin=cases_file, check=False, env=environment).returncode


if __name__ == "__main__":
    sys.modules.setdefault("oracle", sys.modules["__main__"])
    sys.exit(_make(sys.argv[1:]))
