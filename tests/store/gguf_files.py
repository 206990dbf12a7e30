"""Write small GGUF files byte by byte, right or wrong, for the tests of the reader and the store."""

from __future__ import annotations

import struct
from collections.abc import Sequence

U32, F32, BOOL, STRING, ARRAY, U64 = 4, 6, 7, 8, 9, 10


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str | bytes, value: object) -> bytes:
    head = text(key)
    match value:
        case bool():
            return head + struct.pack("<I?", BOOL, value)
        case int():
            return head + struct.pack("<II", U32, value)
        case float():
            return head + struct.pack("<If", F32, value)
        case str() | bytes():
            return head + struct.pack("<I", STRING) + text(value)
        case list() if value and isinstance(value[0], str):
            return (
                head
                + struct.pack("<IIQ", ARRAY, STRING, len(value))
                + b"".join(text(item) for item in value)
            )
        case list():
            return (
                head
                + struct.pack("<IIQ", ARRAY, U32, len(value))
                + struct.pack(f"<{len(value)}I", *value)
            )
    raise TypeError(value)


def tensor(name: str | bytes, shape: Sequence[int], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def gguf(
    pairs: Sequence[bytes],
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    align: int = 32,
    n_pairs: int | None = None,
    n_tensors: int | None = None,
) -> bytes:
    head = struct.pack(
        "<4sIQQ",
        b"GGUF",
        version,
        len(tensors) if n_tensors is None else n_tensors,
        len(pairs) if n_pairs is None else n_pairs,
    )
    head += b"".join(pairs) + b"".join(tensors)
    return head + bytes(-len(head) % align) + data


BASE = {
    "general.architecture": "llama",
    "general.file_type": 1,
    "llama.block_count": 2,
    "llama.context_length": 512,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
}


def model(*, tokens: int = 8, **extra: object) -> bytes:
    """A valid small model; `extra` keys replace `__` by `.`, None drops the key."""
    values: dict[str, object] = {
        **BASE,
        "tokenizer.ggml.tokens": [f"t{i}" for i in range(tokens)],
        **{key.replace("__", "."): value for key, value in extra.items()},
    }
    pairs = [pair(key, value) for key, value in values.items() if value is not None]
    tensors = [
        tensor("token_embd.weight", (64, 4), 1, 0),
        tensor("output_norm.weight", (64,), 0, 512),
    ]
    return gguf(pairs, tensors, bytes(512 + 256))


def lora(architecture: str = "llama") -> bytes:
    """A valid adapter for `model`, which has no matrix that one could change: so this one brings a norm."""
    pairs = [
        pair("general.architecture", architecture),
        pair("general.type", "adapter"),
        pair("adapter.type", "lora"),
        pair("adapter.lora.alpha", 2.0),
    ]
    return gguf(pairs, [tensor("output_norm.weight", (64,), 0, 0)], bytes(256))
