"""Folders with tokenizer files made up, and vocabularies as files that the engine loads."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

from olm.checkpoint import open_checkpoint
from olm.convert.metadata import Metadata
from olm.convert.tokenizers import read_vocab
from olm.convert.tokenizers.result import ReadVocab
from olm.convert.vocab import Vocab, write_vocab

FIXTURES = Path(__file__).parents[1] / "fixtures" / "hf"

BYTES = [chr(b) for b in (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))]
BYTES += [chr(0x100 + i) for i in range(256 - len(BYTES))]
"""Pieces of byte-level BPE for all bytes, in any order."""


def read_folder(folder: Path, vocab_size: int | None = None) -> ReadVocab:
    """Read the tokenizer of a folder of which the weights do not matter."""
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        head = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
        data = struct.pack("<Q", len(head)) + head + bytes(4)
        (folder / "model.safetensors").write_bytes(data)
    with open_checkpoint(folder) as checkpoint:
        vocab = read_vocab(checkpoint, vocab_size=vocab_size)
    assert vocab is not None
    return vocab


def write_files(folder: Path, files: Mapping[str, object]) -> Path:
    """Put files into a folder: bytes and text as they are, everything else as JSON."""
    for name, value in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, bytes):
            path.write_bytes(value)
        else:
            path.write_text(value if isinstance(value, str) else json.dumps(value), "utf-8")
    return folder


def byte_level(**changes: object) -> dict[str, object]:
    """A tokenizer.json of a byte-level BPE that knows `ab` and `abc`; arguments replace parts of its `model`, or others."""
    vocab = {text: i for i, text in enumerate([*BYTES, "ab", "abc"])}
    model: dict[str, object] = {"type": "BPE", "vocab": vocab, "merges": ["a b", "ab c"]}
    whole: dict[str, object] = {
        "model": model,
        "pre_tokenizer": {"type": "ByteLevel", "use_regex": True},
        "added_tokens": [],
    }
    for name, value in changes.items():
        (model if name in ("type", "vocab", "merges", "ignore_merges") else whole)[name] = value
    return whole


def vocab_file(path: Path, vocab: Vocab) -> Path:
    """Write a GGUF without weights, which can be loaded for its vocabulary."""
    meta = Metadata("llama")
    for name, value in (("block_count", 1), ("context_length", 64), ("embedding_length", 32)):
        meta.u32(f".{name}", value)
    meta.u32(".feed_forward_length", 32)
    meta.u32(".attention.head_count", 2)
    meta.f32(".attention.layer_norm_rms_epsilon", 1e-5)
    write_vocab(meta, vocab)
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, len(meta)) + meta.encode())
    return path
