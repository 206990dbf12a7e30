#!/usr/bin/env python3
"""Write random-weight Llama models of real shapes, with real vocabularies.

    python bench/make_model.py q05b out.gguf [--type q8_0]

The text they make is noise; what a token costs is what it costs with the real weights. The vocabularies come with
the llama.cpp tree (`models/ggml-vocab-*.gguf`). The same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, cast, get_args

import attrs
import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, LlamaFileType
from numpy.typing import NDArray

__all__ = ["SHAPES", "Shape", "TypeName", "write_model"]

TypeName = Literal["q8_0", "q4_0", "f16"]
_TYPES: Final[Mapping[TypeName, tuple[GGMLQuantizationType, LlamaFileType]]] = {
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (GGMLQuantizationType.Q4_0, LlamaFileType.MOSTLY_Q4_0),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
}
# Matrices are made and quantised this many elements at a time, so that memory stays near the size of the result.
_CHUNK_ELEMENTS: Final = 1 << 22

_TEMPLATE: Final = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@attrs.frozen
class Shape:
    """Dimensions of a Llama model; the output is tied to the embedding."""

    vocabulary: str
    n_embd: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    n_ff: int
    n_ctx: int
    rope_base: float


SHAPES: Final[Mapping[str, Shape]] = {
    "s15m": Shape("llama-spm", 288, 6, 6, 6, 768, 4096, 1e4),  # stories15M
    "s135m": Shape("gpt-2", 576, 30, 9, 3, 1536, 8192, 1e4),  # SmolLM2-135M
    "q05b": Shape("qwen2", 896, 24, 14, 2, 4864, 32768, 1e6),  # Qwen2.5-0.5B
    "l1b": Shape("llama-bpe", 2048, 16, 32, 8, 8192, 32768, 5e5),  # Llama-3.2-1B
}


def _copy_vocabulary(writer: GGUFWriter, path: Path) -> int:
    """Copy every tokenizer key but the chat template; return the number of tokens."""
    n_tokens = 0
    for name, field in GGUFReader(path).fields.items():
        if not name.startswith("tokenizer.") or name == "tokenizer.chat_template":
            continue
        value, kind = field.contents(), field.types[0]
        if kind == gguf.GGUFValueType.ARRAY:
            writer.add_key_value(name, value, kind, sub_type=field.types[-1])
        else:
            writer.add_key_value(name, value, kind)
        if name == "tokenizer.ggml.tokens":
            n_tokens = len(value)
    if not n_tokens:
        raise ValueError(f"{path}: wanted a vocabulary, found no tokenizer.ggml.tokens")
    return n_tokens


def _add_parameters(writer: GGUFWriter, name: str, shape: Shape, file_type: LlamaFileType) -> None:
    writer.add_name(f"random-{name}")
    writer.add_context_length(shape.n_ctx)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layers)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_heads)
    writer.add_head_count_kv(shape.n_kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_rope_dimension_count(shape.n_embd // shape.n_heads)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_chat_template(_TEMPLATE)


class _Weights:
    """Adds tensors to a writer: Gaussian matrices of one type, norms of ones."""

    def __init__(self, writer: GGUFWriter, kind: GGMLQuantizationType, seed: int) -> None:
        self._writer = writer
        self._kind = kind
        self._rng = np.random.default_rng(seed)

    def matrix(self, name: str, n_rows: int, n_cols: int) -> None:
        """Add `[n_rows, n_cols]` with variance 1/n_cols, so that activations keep their size."""
        scale = np.float32(1 / np.sqrt(n_cols))
        step = max(1, _CHUNK_ELEMENTS // n_cols)
        pieces: list[NDArray[np.generic]] = []
        for start in range(0, n_rows, step):
            n = min(step, n_rows - start)
            values = self._rng.standard_normal((n, n_cols), dtype=np.float32) * scale
            pieces.append(gguf.quants.quantize(values, self._kind))
        self._writer.add_tensor(f"{name}.weight", np.concatenate(pieces), raw_dtype=self._kind)

    def norm(self, name: str, n: int) -> None:
        """Add `[n]` ones."""
        self._writer.add_tensor(f"{name}.weight", np.ones(n, dtype=np.float32))


def _add_weights(weights: _Weights, shape: Shape, n_vocab: int) -> None:
    n_kv = shape.n_embd // shape.n_heads * shape.n_kv_heads
    weights.matrix("token_embd", n_vocab, shape.n_embd)
    for layer in range(shape.n_layers):
        block = f"blk.{layer}."
        weights.norm(block + "attn_norm", shape.n_embd)
        weights.matrix(block + "attn_q", shape.n_embd, shape.n_embd)
        weights.matrix(block + "attn_k", n_kv, shape.n_embd)
        weights.matrix(block + "attn_v", n_kv, shape.n_embd)
        weights.matrix(block + "attn_output", shape.n_embd, shape.n_embd)
        weights.norm(block + "ffn_norm", shape.n_embd)
        weights.matrix(block + "ffn_gate", shape.n_ff, shape.n_embd)
        weights.matrix(block + "ffn_up", shape.n_ff, shape.n_embd)
        weights.matrix(block + "ffn_down", shape.n_embd, shape.n_ff)
    weights.norm("output_norm", shape.n_embd)


def write_model(
    name: str, vocabularies: Path, path: Path, type_name: TypeName = "q8_0", seed: int = 1
) -> None:
    """Write the shape `name` to `path`; `vocabularies` is the folder of `ggml-vocab-*.gguf`.

    The file appears whole or not at all.

    Raises:
        OSError, ValueError: the vocabulary cannot be read.
    """
    shape = SHAPES[name]
    kind, file_type = _TYPES[type_name]
    partial = path.with_name(path.name + ".partial")
    writer = GGUFWriter(partial, "llama")
    n_vocab = _copy_vocabulary(writer, vocabularies / f"ggml-vocab-{shape.vocabulary}.gguf")
    writer.add_vocab_size(n_vocab)
    _add_parameters(writer, name, shape, file_type)
    _add_weights(_Weights(writer, kind, seed), shape, n_vocab)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(partial, path)


def main() -> None:
    """Run the command line described at the top of this file."""
    from servers import llama_cpp_tree

    parser = argparse.ArgumentParser(description="Write a random-weight model of a real shape.")
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("out", type=Path)
    parser.add_argument("--type", choices=get_args(TypeName), default="q8_0")
    parser.add_argument("--vocabularies", type=Path, help="folder of ggml-vocab-*.gguf")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    vocabularies = args.vocabularies or llama_cpp_tree() / "models"
    write_model(args.shape, vocabularies, args.out, cast("TypeName", args.type), args.seed)
    print(f"{args.out}: {args.out.stat().st_size / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
