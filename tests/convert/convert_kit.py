"""Small models of random weights, and llama.cpp's own quantization of them to compare with."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

from olm.convert.lazy import constant
from olm.convert.metadata import Metadata
from olm.convert.model_file import ModelFile, OutTensor
from olm.convert.recipe import Recipe, file_type_number, type_number

__all__ = [
    "Shape",
    "Tensors",
    "copy_fixture",
    "quantized_by_llama",
    "random_model",
    "read_safetensors",
    "tensor_bytes",
    "write_safetensors",
]


@attrs.frozen
class Shape:
    """What of a model matters to a recipe."""

    architecture: str = "llama"
    n_layers: int = 8
    n_heads: int = 8
    n_kv_heads: int = 8
    n_experts: int = 0
    is_tied: bool = False
    n_embd: int = 256
    n_ff: int = 256
    is_fused: bool = False


def random_model(shape: Shape, seed: int = 1) -> ModelFile:
    """A model with these figures, f32, of some 100 kB a layer: llama-quantize takes it, nothing can run it."""
    rng = np.random.default_rng(seed)
    meta = Metadata(shape.architecture)
    meta.u32(".block_count", shape.n_layers)
    meta.u32(".context_length", 128)
    meta.u32(".embedding_length", shape.n_embd)
    meta.u32(".feed_forward_length", shape.n_ff)
    meta.u32(".attention.head_count", shape.n_heads)
    meta.u32(".attention.head_count_kv", shape.n_kv_heads)
    meta.f32(".attention.layer_norm_rms_epsilon", 1e-5)
    meta.f32(".attention.layer_norm_epsilon", 1e-5)
    if shape.n_experts:
        meta.u32(".expert_count", shape.n_experts)
        meta.u32(".expert_used_count", 2)
    tensors = [("token_embd", (8, shape.n_embd)), ("output_norm", (shape.n_embd,))]
    if not shape.is_tied:
        tensors.append(("output", (8, shape.n_embd)))
    for layer in range(shape.n_layers):
        tensors += [(f"blk.{layer}.{name}", dims) for name, dims in _layer(shape)]
    return ModelFile(
        "model",
        meta,
        tuple(
            OutTensor(f"{name}.weight", constant(rng.standard_normal(dims)), "F32")
            for name, dims in tensors
        ),
    )


def _layer(shape: Shape) -> Sequence[tuple[str, tuple[int, ...]]]:
    embd, ff = shape.n_embd, shape.n_ff
    attention: list[tuple[str, tuple[int, ...]]] = [
        ("attn_norm", (embd,)),
        ("attn_output", (8, embd)),
    ]
    names = ["attn_qkv"] if shape.is_fused else ["attn_q", "attn_k", "attn_v"]
    attention += [(name, (8, embd)) for name in names]
    experts = (shape.n_experts,) if shape.n_experts else ()
    suffix = "_exps" if experts else ""
    router: list[tuple[str, tuple[int, ...]]] = (
        [("ffn_gate_inp", (*experts, embd))] if experts else []
    )
    return [
        *attention,
        ("ffn_norm", (embd,)),
        *router,
        (f"ffn_gate{suffix}", (*experts, 4, embd)),
        (f"ffn_up{suffix}", (*experts, 4, embd)),
        (f"ffn_down{suffix}", (*experts, 4, ff)),
    ]


def quantized_by_llama(
    source: Path,
    target: Path,
    recipe: Recipe,
    imatrix: Mapping[str, NDArray[np.float32]] | None = None,
) -> None:
    """Run `llama_model_quantize` from file to file."""
    from olm.native.lib import check, lib

    wanted = {
        "in": str(source),
        "out": str(target),
        "ftype": file_type_number(recipe.file_type),
        "pure": recipe.pure,
        "keep_output": recipe.keep_output,
        "allow_requantize": recipe.allow_requantize,
        "output_type": type_number(recipe.output_type) if recipe.output_type else -1,
        "embedding_type": type_number(recipe.embedding_type) if recipe.embedding_type else -1,
        "overrides": [
            {"pattern": o.pattern, "type": type_number(o.type_name)} for o in recipe.overrides
        ],
        "imatrix": {name: values.tolist() for name, values in (imatrix or {}).items()},
    }
    check(lib.olm_test_quantize(json.dumps(wanted).encode()))


def tensor_bytes(path: Path) -> Mapping[str, tuple[str, bytes]]:
    """Type and bytes of each tensor of a GGUF, by name."""
    from olm.gguf import read_header

    header, data = read_header(path), path.read_bytes()
    return {
        t.name: (
            t.type_name,
            data[header.data_offset + t.offset : header.data_offset + t.offset + t.size_bytes],
        )
        for t in header.tensors
    }


Tensors = dict[str, tuple[str, NDArray[np.generic]]]
"""Element type in safetensors' words, and values in what carries them."""


def read_safetensors(path: Path) -> Tensors:
    """All tensors of a safetensors file."""
    from olm.checkpoint.types import DTYPES

    raw = path.read_bytes()
    (n_head,) = struct.unpack_from("<Q", raw)
    found: Tensors = {}
    for name, entry in json.loads(raw[8 : 8 + n_head]).items():
        if name != "__metadata__":
            start, end = (8 + n_head + offset for offset in entry["data_offsets"])
            values = np.frombuffer(raw[start:end], DTYPES[entry["dtype"]])
            found[name] = (entry["dtype"], values.reshape(entry["shape"]))
    return found


def write_safetensors(path: Path, tensors: Tensors) -> None:
    """Write a safetensors file."""
    head, data = {}, b""
    for name, (dtype, values) in tensors.items():
        start, data = len(data), data + values.tobytes()
        head[name] = {"dtype": dtype, "shape": values.shape, "data_offsets": [start, len(data)]}
    raw = json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)


def copy_fixture(name: str, folder: Path, **config: object) -> Path:
    """Copy a checkpoint of tests/fixtures/hf, with settings of its config.json changed; None takes one away."""
    from kit.hf import FIXTURES

    target = folder / name
    shutil.copytree(FIXTURES / name, target, ignore=shutil.ignore_patterns("reference.json"))
    path = target / "config.json"
    changed = {**json.loads(path.read_text()), **config}
    path.write_text(json.dumps({k: v for k, v in changed.items() if v is not None}))
    return target
