"""Adapters of random factors for the tiny checkpoints, and what merging them into their base gives."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from convert_kit import Tensors, copy_fixture, read_safetensors, write_safetensors
from numpy.typing import NDArray

from kit.hf import FIXTURES
from olm.checkpoint.folder import open_checkpoint
from olm.convert.lora import plan_adapter
from olm.convert.run import convert
from olm.convert.wire import Convert, Quantization
from olm.convert.writer import write_gguf
from olm.gguf import Header, read_header
from olm.native.quantize import CancelFlag

__all__ = [
    "convert_folder",
    "convert_lora",
    "f32_tensors",
    "folder_tensors",
    "merged_checkpoint",
    "random_lora",
    "read_config",
    "write_lora",
]

Floats = NDArray[np.float32]


def read_config(name: str) -> dict[str, object]:
    """The config.json of a fixture."""
    found: dict[str, object] = json.loads((FIXTURES / name / "config.json").read_text())
    return found


def convert_folder(folder: Path, target: Path) -> Path:
    """Convert a checkpoint to F32."""
    files = {path.name: str(path) for path in folder.iterdir() if path.is_file()}
    wanted = Quantization(file_type="F32")
    convert(
        Convert(target=str(target), files=files, name=folder.name, quantization=wanted),
        lambda _: None,
        CancelFlag(),
    )
    return target


def convert_lora(folder: Path, base: Header | None, target: Path) -> Path:
    """Convert an adapter."""
    with open_checkpoint(folder) as checkpoint:
        write_gguf(plan_adapter(checkpoint, base), target)
    return target


def f32_tensors(path: Path) -> Mapping[str, Floats]:
    """All F32 tensors of a GGUF, in numpy's order of dimensions."""
    header, data = read_header(path), path.read_bytes()
    found = {}
    for tensor in header.tensors:
        assert tensor.type_name == "F32", tensor
        start = header.data_offset + tensor.offset
        flat = np.frombuffer(data[start : start + tensor.size_bytes], np.float32)
        found[tensor.name] = flat.reshape(tensor.shape[::-1])
    return found


def folder_tensors(folder: Path) -> Tensors:
    """All tensors of a folder of safetensors."""
    found: Tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= read_safetensors(path)
    return found


def _values(dtype: str, values: NDArray[np.generic]) -> Floats:
    if dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def random_lora(
    name: str, wanted: str, rank: Callable[[str], int] = lambda _: 3
) -> dict[str, tuple[Floats, Floats]]:
    """Factors (A, B) for the matrices of a fixture whose names match `wanted`."""
    rng = np.random.default_rng(7)
    found = {}
    for weight, (_, values) in folder_tensors(FIXTURES / name).items():
        if values.ndim == 2 and re.search(wanted, weight):
            rows, columns = values.shape
            n = rank(weight)
            found[weight] = (
                rng.standard_normal((n, columns)).astype(np.float32),
                rng.standard_normal((rows, n)).astype(np.float32),
            )
    return found


def write_lora(
    folder: Path,
    factors: Mapping[str, tuple[Floats, Floats]],
    more: Tensors | None = None,
    **config: object,
) -> Path:
    """Write a folder as PEFT does."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: Tensors = {}
    for weight, (a, b) in factors.items():
        module = "base_model.model." + weight.removesuffix(".weight")
        if "embed" in module:
            tensors[f"{module}.lora_embedding_A"] = ("F32", b.T.copy())
            tensors[f"{module}.lora_embedding_B"] = ("F32", a.T.copy())
        else:
            tensors[f"{module}.lora_A.weight"] = ("F32", a)
            tensors[f"{module}.lora_B.weight"] = ("F32", b)
    write_safetensors(folder / "adapter_model.safetensors", tensors | (more or {}))
    settings = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def merged_checkpoint(
    name: str, deltas: Mapping[str, Floats], folder: Path, drop: Sequence[str] = ()
) -> Path:
    """A fixture in F32 with `deltas` added to its weights."""
    target = copy_fixture(name, folder, dtype="float32", torch_dtype="float32")
    tensors: Tensors = {}
    for weight, (dtype, values) in folder_tensors(target).items():
        if weight not in drop:
            tensors[weight] = ("F32", _values(dtype, values) + deltas.get(weight, np.float32(0)))
    for path in [*target.glob("*.safetensors"), *target.glob("*.index.json")]:
        path.unlink()
    write_safetensors(target / "model.safetensors", tensors)
    return target
