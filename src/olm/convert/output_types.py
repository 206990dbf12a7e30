"""Which ggml type a tensor gets when a checkpoint is converted, before any quantization; and what a file is called by its types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import attrs

from olm.checkpoint.types import DTYPES, RowReader
from olm.convert.model_file import ModelFile, OutTensor
from olm.errors import CheckpointError
from olm.gguf.types import FILE_TYPES, TENSOR_TYPES

__all__ = ["PLAIN_TYPES", "file_type", "output_type", "with_file_type"]

PLAIN_TYPES: Final = ("auto", "F32", "F16", "BF16")

# Tensors that llama.cpp's kernels want as f32, by parts of their names (conversion/base.py, prepare_tensors; spec of
# Ollama's converter, fs/ggml). Norms and vectors are told by suffix and dimension.
_ALWAYS_F32: Final = (
    "ffn_gate_inp.",
    "ffn_gate_inp_shexp.",
    "position_embd.",
    "token_types.",
    "ssm_conv1d",
    "shortconv.conv.",
    "time_mix_first.",
    "time_mix_w1.",
    "time_mix_w2.",
    "time_mix_decay_w1.",
    "time_mix_decay_w2.",
    "time_mix_lerp_fused.",
    "posnet.",
    "altup_correct_coef.",
    "altup_predict_coef.",
    "indexer.proj.",
)
_SUFFIXES: Final = (".weight", ".lora_a", ".lora_b")


def output_type(name: str, tensor: RowReader, wanted: str) -> str:
    """The type of one tensor.

    Args:
        name: its name in the GGUF.
        wanted: one of `PLAIN_TYPES`, for matrices. `auto` keeps BF16 and makes F16 of the rest.
    """
    if tensor.dtype not in DTYPES:
        return tensor.dtype
    if tensor.dtype in ("I32", "I64"):
        return tensor.dtype
    is_matrix = len(tensor.shape) > 1 and name.endswith(_SUFFIXES)
    if not is_matrix or name.endswith("_norm.weight") or any(part in name for part in _ALWAYS_F32):
        return "F32"
    if wanted == "auto":
        return "BF16" if tensor.dtype == "BF16" else "F16"
    if wanted not in PLAIN_TYPES:
        raise CheckpointError(f"unknown type {wanted!r}, known are {', '.join(PLAIN_TYPES)}")
    return wanted


def file_type(tensors: Sequence[OutTensor]) -> int:
    """`general.file_type` for a file whose types were chosen one by one: that of most elements of matrices."""
    weights: Counter[str] = Counter()
    for tensor in tensors:
        if len(tensor.reader.shape) > 1:
            weights[tensor.type_name] += tensor.n_elements
    most = weights.most_common(1)[0][0] if weights else "F32"
    return _BY_TENSOR_TYPE.get(most, 0)


def with_file_type(file: ModelFile) -> ModelFile:
    """The same file, which now says of itself what most of it is."""
    meta = file.metadata.copy()
    meta.u32("general.file_type", file_type(file.tensors))
    return attrs.evolve(file, metadata=meta)


def _by_tensor_type() -> dict[str, int]:
    named = {name: number for number, name in FILE_TYPES.items()}
    found = {info.name: named[info.name] for info in TENSOR_TYPES.values() if info.name in named}
    # Types that name no file type of their own: their small mixture stands for them.
    return found | {k: named[f"{k}_S"] for k in ("Q3_K", "Q4_K", "Q5_K") if f"{k}_S" in named}


_BY_TENSOR_TYPE: Final = _by_tensor_type()
