"""What a header tells the rest of olm: sizes, names, the KV cache's cost, templates. Pure functions of a `Header`.

Names and texts of `details` follow Ollama's (`fs/ggml`, commit fb30760); the cost of a token is that of llama.cpp's
unified f16 cache.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from olm.gguf.types import FILE_TYPES, Array, Header
from olm.units import human_number

__all__ = ["ModelFacts", "facts_of", "kv_json"]

_HIDDEN = ("general.name", "tokenizer.chat_template")
_F16_BYTES = 2
_TOOL_RESULTS = (
    "tool_response",
    "tool_results",
    "role'] == 'tool'",
    'role\'] == "tool"',
    "role\"] == 'tool'",
    'role"] == "tool"',
    "message.role == 'tool'",
    'message.role == "tool"',
    "ipython",
)
# An audio encoder that the engine does not use (Ollama, server/images.go).
_MUTE_PROJECTOR = "gemma3nv"
# Encoder-only architectures of llama.cpp: without a pooling key they still give embeddings and nothing else.
_ENCODERS = frozenset(
    (
        "bert",
        "nomic-bert",
        "nomic-bert-moe",
        "jina-bert-v2",
        "jina-bert-v3",
        "neo-bert",
        "modern-bert",
        "eurobert",
        "t5encoder",
        "gemma-embedding",
    )
)


class ModelFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """The facts of one weights file, small enough to be kept for every blob.

    Attributes:
        kind: `model`, `adapter` or `projector`.
        parameter_size, quantization_level: as Ollama prints them (`2.4M`, `Q8_0`, `unknown`).
        kv_bytes_per_token: f16 KV cache for one token of one sequence, bytes; an upper bound for models with
            sliding windows.
        jinja_tools, jinja_thinking: what the text of the GGUF's chat template offers (spec/ollama §12, row 2).
        jinja_tool_turns: the template also renders tool calls and results.
        n_splits: parts of a split model, 0 or 1 when whole; split_no: which of them this is, from 0.
    """

    kind: str = "model"
    architecture: str = ""
    parameter_count: int = 0
    parameter_size: str = ""
    quantization_level: str = "unknown"
    n_ctx_train: int = 0
    n_embd: int = 0
    n_layers: int = 0
    n_heads: int = 0
    kv_bytes_per_token: int = 0
    embedding: bool = False
    vision: bool = False
    audio: bool = False
    has_chat_template: bool = False
    jinja_tools: bool = False
    jinja_thinking: bool = False
    jinja_tool_turns: bool = False
    n_splits: int = 0
    split_no: int = 0


def facts_of(header: Header) -> ModelFacts:
    """Work out the facts of a checked header."""
    architecture = header.text("general.architecture")
    n_parameters = sum(tensor.n_elements for tensor in header.tensors)
    template = header.text("tokenizer.chat_template")
    return ModelFacts(
        kind=_kind(header, architecture),
        architecture=architecture,
        parameter_count=n_parameters,
        parameter_size=human_number(n_parameters),
        quantization_level=_file_type(header),
        n_ctx_train=header.integer(f"{architecture}.context_length"),
        n_embd=header.integer(f"{architecture}.embedding_length"),
        n_layers=header.integer(f"{architecture}.block_count"),
        n_heads=max(header.integers(f"{architecture}.attention.head_count"), default=0),
        kv_bytes_per_token=_kv_bytes_per_token(header, architecture),
        embedding=_is_embedding(header, architecture),
        vision=_has_part(header, architecture, "vision"),
        audio=_has_part(header, architecture, "audio"),
        has_chat_template=bool(template),
        jinja_tools="tools" in template or "tool_call" in template,
        jinja_thinking=_jinja_thinks(template),
        jinja_tool_turns=_jinja_tool_turns(template),
        n_splits=header.integer("split.count"),
        split_no=header.integer("split.no"),
    )


def _kind(header: Header, architecture: str) -> str:
    general = header.text("general.type")
    if general == "adapter" or header.text("adapter.type"):
        return "adapter"
    if architecture == "clip" or general in ("mmproj", "projector"):
        return "projector"
    return "model"


def _file_type(header: Header) -> str:
    """The declared file type, else the one type that all matrices share, else `unknown`."""
    declared = header.integer("general.file_type", -1)
    if declared in FILE_TYPES:
        return FILE_TYPES[declared]
    types = {tensor.type_name for tensor in header.tensors if len(tensor.shape) > 1}
    only = types.pop() if len(types) == 1 else ""
    return only if only in ("F32", "F16", "BF16", "Q8_0") else "unknown"


def _is_embedding(header: Header, architecture: str) -> bool:
    # pooling_type 0 is LLAMA_POOLING_TYPE_NONE, which Ollama counts as embedding too: the key's presence decides.
    return f"{architecture}.pooling_type" in header.values or architecture in _ENCODERS


def _has_part(header: Header, architecture: str, part: str) -> bool:
    return (
        header.integer(f"{architecture}.{part}.block_count") > 0
        or header.values.get(f"clip.has_{part}_encoder") is True
    ) and not (part == "audio" and _is_mute(header))


def _is_mute(header: Header) -> bool:
    keys = ("clip.vision.projector_type", "vision.projector_type")
    return any(header.text(key) == _MUTE_PROJECTOR for key in keys)


def _kv_bytes_per_token(header: Header, architecture: str) -> int:
    """Sum K and V rows over the layers that have a cache; recurrent layers say 0 KV heads in a per-layer array."""
    prefix = f"{architecture}.attention"
    n_layers = min(header.integer(f"{architecture}.block_count"), 512)
    heads = header.integers(f"{prefix}.head_count")
    if not heads or n_layers <= 0 or max(heads) <= 0:
        return 0
    kv_heads = header.integers(f"{prefix}.head_count_kv") or heads
    default = header.integer(f"{architecture}.embedding_length") // max(heads)
    key = header.integer(f"{prefix}.key_length", default)
    value = header.integer(f"{prefix}.value_length", default)
    per_layer = kv_heads[:n_layers] if len(kv_heads) > 1 else kv_heads * n_layers
    return sum(max(n, 0) for n in per_layer) * max(key + value, 0) * _F16_BYTES


def _jinja_thinks(template: str) -> bool:
    if "<think>" in template and "</think>" in template:
        return True
    splits = any(f"content.split({quote}</think>{quote})" in template for quote in "'\"")
    return splits and "reasoning_content" not in template


def _jinja_tool_turns(template: str) -> bool:
    """Whether a template writes calls and results, by the words that Ollama looks for (`server/images.go`)."""
    has_calls = "tool_calls" in template or "assistant_tool_call" in template
    return has_calls and any(mark in template for mark in _TOOL_RESULTS)


def kv_json(header: Header, *, verbose: bool = False) -> Mapping[str, object]:
    """The header's keys as `/api/show` gives them in `model_info` (spec/ollama §1.13).

    Arrays are None unless `verbose`, where those the reader skipped stay None; NaN and infinities, which JSON
    lacks, become None; `general.parameter_count` is added.
    """
    info: dict[str, object] = {}
    for key, value in header.values.items():
        if key in _HIDDEN:
            continue
        if isinstance(value, Array):
            info[key] = (
                [_finite(item) for item in value.values]
                if verbose and value.values is not None
                else None
            )
        else:
            info[key] = _finite(value)
    info["general.parameter_count"] = sum(tensor.n_elements for tensor in header.tensors)
    return info


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
