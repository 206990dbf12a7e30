#!/usr/bin/env python3
"""Turn `hf/` into the package data of the built-in model `tiny`.

    python models/tiny/make_gguf.py              # rewrite src/olm/data/tiny
    python models/tiny/make_gguf.py --out DIR    # write the same files elsewhere
    python models/tiny/make_gguf.py --gguf FILE --type f16   # only the weights, in another type

Needs the `gguf` package and numpy, no torch. The same input gives the same bytes, which a test
relies on. General conversion of checkpoints is `olm.convert`'s business, not this script's: here are
only the facts of one model, checked instead of guessed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import struct
from pathlib import Path
from typing import Final, Literal, cast

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
from numpy.typing import NDArray

__all__ = ["build_package_data", "main", "write_gguf"]

HERE: Final = Path(__file__).resolve().parent
PACKAGE_DATA: Final = HERE.parents[1] / "src" / "olm" / "data" / "tiny"
GGUF_NAME: Final = "tiny-q8_0.gguf"

TypeName = Literal["q8_0", "f16"]
TENSOR_TYPES: Final[dict[TypeName, tuple[GGMLQuantizationType, LlamaFileType]]] = {
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
}

# The pattern that llama.cpp's `llama-bpe` pre-tokenizer implements (src/llama-vocab.cpp,
# LLAMA_VOCAB_PRE_TYPE_LLAMA3); it also sets ignore_merges, as this tokenizer does.
LLAMA_BPE_PATTERN: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

LAYER_TENSORS: Final = (
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
)

# Layers of the stored model: file, media type of Ollama's manifest.
LAYERS: Final = (
    (GGUF_NAME, "application/vnd.ollama.image.model"),
    ("template.gotmpl", "application/vnd.ollama.image.template"),
    ("LICENSE", "application/vnd.ollama.image.license"),
    ("params.json", "application/vnd.ollama.image.params"),
)


class _Config:
    """`config.json`, read with the types this script expects."""

    def __init__(self, path: Path) -> None:
        self._values = cast("dict[str, object]", json.loads(path.read_text("utf-8")))

    def integer(self, key: str) -> int:
        """Return an integer setting; raises ValueError when it is missing or of another type."""
        value = self._values.get(key)
        if isinstance(value, int):
            return value
        raise ValueError(f"config.json: wanted an integer in {key!r}, found {value!r}")

    def number(self, key: str) -> float:
        """Return a numeric setting; raises ValueError when it is missing or of another type."""
        value = self._values.get(key)
        if isinstance(value, int | float):
            return float(value)
        raise ValueError(f"config.json: wanted a number in {key!r}, found {value!r}")

    def require(self, key: str, wanted: object) -> None:
        """Raise ValueError unless the setting is `wanted`: what this script takes for granted."""
        found = self._values.get(key)
        if found != wanted:
            raise ValueError(f"config.json: wanted {key} = {wanted!r}, found {found!r}")


def _read_safetensors(path: Path) -> dict[str, NDArray[np.float16]]:
    """Read a float16 safetensors file whole.

    The format (github.com/huggingface/safetensors, README): u64 length, JSON header, tensor bytes.
    """
    raw = path.read_bytes()
    (header_size,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + header_size])
    tensors: dict[str, NDArray[np.float16]] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "F16":
            raise ValueError(f"{path.name}: {name} is {entry['dtype']}, wanted F16")
        start, end = (8 + header_size + int(offset) for offset in entry["data_offsets"])
        tensors[name] = np.frombuffer(raw[start:end], dtype="<f2").reshape(entry["shape"])
    return tensors


def _to_ggml_rope(weights: NDArray[np.float32], n_heads: int) -> NDArray[np.float32]:
    """Reorder the rows of a query or key projection, `[n_heads * head_dim, n_embd]`.

    Hugging Face rotates row i of a head with row i + head_dim/2, llama.cpp's `llama` architecture rotates
    neighbours (ROPE_TYPE_NORM), so the two halves of each head are interleaved. Same permutation as
    `LlamaModel.permute` in llama.cpp's converter.
    """
    n_rows, n_cols = weights.shape
    halves = weights.reshape(n_heads, 2, n_rows // n_heads // 2, n_cols)
    return halves.swapaxes(1, 2).reshape(n_rows, n_cols)


def _add_tensor(
    writer: GGUFWriter, name: str, values: NDArray[np.float32], matrix_type: GGMLQuantizationType
) -> None:
    # Norms stay in F32: llama.cpp's kernels accept nothing else for one-dimensional tensors.
    tensor_type = matrix_type if values.ndim > 1 else GGMLQuantizationType.F32
    data = gguf.quants.quantize(np.ascontiguousarray(values), tensor_type)
    writer.add_tensor(f"{name}.weight", data, raw_dtype=tensor_type)


def _add_tensors(writer: GGUFWriter, config: _Config, matrix_type: GGMLQuantizationType) -> int:
    """Add every tensor and return the number of parameters; raises ValueError if any is left over."""
    source = _read_safetensors(HERE / "hf" / "model.safetensors")
    n_params = sum(math.prod(tensor.shape) for tensor in source.values())

    def take(name: str) -> NDArray[np.float32]:
        return source.pop(f"{name}.weight").astype(np.float32)

    _add_tensor(writer, "token_embd", take("model.embed_tokens"), matrix_type)
    heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
    for layer in range(config.integer("num_hidden_layers")):
        for hf_name, ggml_name in LAYER_TENSORS:
            values = take(f"model.layers.{layer}.{hf_name}")
            if ggml_name in heads:
                values = _to_ggml_rope(values, config.integer(heads[ggml_name]))
            _add_tensor(writer, f"blk.{layer}.{ggml_name}", values, matrix_type)
    _add_tensor(writer, "output_norm", take("model.norm"), matrix_type)
    if source:
        raise ValueError(f"model.safetensors: tensors nobody asked for: {sorted(source)}")
    return n_params


def _add_architecture(writer: GGUFWriter, config: _Config, file_type: LlamaFileType) -> None:
    config.require("architectures", ["LlamaForCausalLM"])
    config.require("rope_scaling", None)
    config.require("tie_word_embeddings", True)
    head_dim = config.integer("head_dim")
    writer.add_block_count(config.integer("num_hidden_layers"))
    writer.add_context_length(config.integer("max_position_embeddings"))
    writer.add_embedding_length(config.integer("hidden_size"))
    writer.add_feed_forward_length(config.integer("intermediate_size"))
    writer.add_head_count(config.integer("num_attention_heads"))
    writer.add_head_count_kv(config.integer("num_key_value_heads"))
    writer.add_rope_freq_base(config.number("rope_theta"))
    writer.add_layer_norm_rms_eps(config.number("rms_norm_eps"))
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_file_type(file_type)
    writer.add_vocab_size(config.integer("vocab_size"))
    writer.add_rope_dimension_count(head_dim)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_tokenizer(writer: GGUFWriter, config: _Config) -> None:
    tokenizer = json.loads((HERE / "hf" / "tokenizer.json").read_text("utf-8"))
    pattern = tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    if pattern != LLAMA_BPE_PATTERN or tokenizer["model"]["ignore_merges"] is not True:
        raise ValueError(
            "tokenizer.json: not the llama-3 pre-tokenizer, so `llama-bpe` would be wrong"
        )
    tokens = [""] * config.integer("vocab_size")
    types = [TokenType.NORMAL] * len(tokens)
    for text, token_id in tokenizer["model"]["vocab"].items():
        tokens[token_id] = text
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]] = added["content"]
        # Control tokens are never printed; <think> and <tool_call> must be, so they are user-defined.
        types[added["id"]] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    if "" in tokens:
        raise ValueError(f"tokenizer.json: token id {tokens.index('')} has no text")
    writer.add_add_space_prefix(False)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    # Merges, special token ids, add_bos and the chat template, read as llama.cpp's converter reads them.
    special = gguf.SpecialVocab(HERE / "hf", load_merges=True, n_vocab=len(tokens))
    special.add_to_gguf(writer, quiet=True)
    # llama.cpp would find <|im_end|> by its text; said here so that no reader has to guess.
    writer.add_eot_token_id(config.integer("eos_token_id"))


def write_gguf(path: Path, type_name: TypeName = "q8_0") -> int:
    """Write the model as one GGUF file and return its number of parameters.

    Metadata keys are those llama.cpp's own converter writes for this checkpoint, plus `eot_token_id` and licence.
    There is no `output.weight`: the output is tied to the embedding, which llama.cpp falls back to.
    """
    config = _Config(HERE / "hf" / "config.json")
    matrix_type, file_type = TENSOR_TYPES[type_name]
    writer = GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name("tiny")
    n_params = _add_tensors(writer, config, matrix_type)
    writer.add_size_label(gguf.size_label(n_params, 0, 0, 0))
    writer.add_license("mit")
    _add_architecture(writer, config, file_type)
    _add_tokenizer(writer, config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return n_params


def build_package_data(directory: Path) -> None:
    """Write everything that `olm.data.tiny` holds besides its Python file into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    n_params = write_gguf(directory / GGUF_NAME)
    for name in ("template.gotmpl", "LICENSE", "params.json"):
        (directory / name).write_bytes((HERE / name).read_bytes())
    layers = []
    for name, media_type in LAYERS:
        data = (directory / name).read_bytes()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        layers.append({"file": name, "mediaType": media_type, "digest": digest, "size": len(data)})
    config = {
        "model_format": "gguf",
        "model_family": "llama",
        "model_families": ["llama"],
        "model_type": gguf.size_label(n_params, 0, 0, 0),
        "file_type": "Q8_0",
        "architecture": "amd64",
        "os": "linux",
    }
    text = json.dumps({"name": "tiny", "config": config, "layers": layers}, indent=2)
    (directory / "model.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Run the command line described at the top of this file."""
    parser = argparse.ArgumentParser(description="Write the built-in model's files.")
    parser.add_argument(
        "--out", type=Path, default=PACKAGE_DATA, help="directory for the package data"
    )
    parser.add_argument("--gguf", type=Path, help="write only the weights, to this file")
    parser.add_argument("--type", choices=sorted(TENSOR_TYPES), default="q8_0", help="with --gguf")
    args = parser.parse_args()
    if args.gguf:
        print(args.gguf, write_gguf(args.gguf, args.type), "parameters")
        return
    build_package_data(args.out)
    print((args.out / "model.json").read_text("utf-8"), end="")


if __name__ == "__main__":
    main()
