"""Checkpoints made of arithmetic: the same weights everywhere, from names and shapes alone, so that none must be kept.

Numpy only, and nothing of olm: the oracle's process (`oracle_torch.py`) has another environment.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["TOKENS", "digest", "weights", "write_folder"]

TOKENS = (3, 5, 7, 9)
"""What tiny models are run with."""

_DTYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64, "U8": np.uint8, "I32": np.int32}


def weights(name: str, dtype: str, shape: Sequence[int]) -> NDArray[np.generic]:
    """Numbers between -0.1 and 0.1, all different, by a tensor's name; whole numbers count up. Exact on every machine."""
    x = np.arange(math.prod(shape), dtype=np.uint32)
    if dtype not in ("F32", "F16"):
        return x.astype(_DTYPES[dtype]).reshape(shape)
    x = x * np.uint32(2654435761) + np.uint32(zlib.crc32(name.encode()))
    x ^= x >> np.uint32(15)
    x *= np.uint32(2246822519)
    x ^= x >> np.uint32(13)
    values = ((x >> np.uint32(8)).astype(np.float32) / np.float32(1 << 24) - np.float32(0.5)) / 5
    return values.astype(_DTYPES[dtype]).reshape(shape)


def digest(name: str, type_name: str, data: bytes) -> str:
    """A tensor's type and the first digits of a hash of its bytes.

    `exp` and `sin` are rounded differently by every library in their last bit, so what they made is hashed with fewer bits.
    """
    if name == "a.position_embd.weight":
        data = np.round(np.frombuffer(data, np.float32) * 4096).astype(np.int16).tobytes()
    if name.endswith((".ssm_a", ".per_dim_scale.weight")):
        data = np.frombuffer(data, np.float32).astype(np.float16).tobytes()
    return f"{type_name} {hashlib.sha256(data).hexdigest()[:12]}"


def write_folder(
    folder: Path,
    config: Mapping[str, object],
    tensors: Mapping[str, Sequence[object]],
    files: Mapping[str, object],
) -> None:
    """Write config.json, model.safetensors and other files.

    Args:
        tensors: name -> [dtype, *shape]. A name `2_Dense/linear.weight` goes into a file in that folder.
        files: path in the folder -> its JSON, or its text.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in {"config.json": config, **files}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / path).write_text(text, "utf-8")
    parts: dict[str, dict[str, Sequence[object]]] = {}
    for name, what in tensors.items():
        part, _, inner = name.rpartition("/")
        parts.setdefault(part, {})[inner] = what
    for part, inside in parts.items():
        _write_safetensors(folder / part / "model.safetensors", inside)


def _write_safetensors(path: Path, tensors: Mapping[str, Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = []
    at = 0
    for name, (dtype, *shape) in tensors.items():
        raw = weights(name, str(dtype), [int(str(size)) for size in shape]).tobytes()
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(raw)]}
        data.append(raw)
        at += len(raw)
    text = json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))
