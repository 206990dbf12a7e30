"""A BERT of random weights, written for tests: an encoder without a memory, which pools, and may have a ranking head."""

from __future__ import annotations

import math
from pathlib import Path

import gguf
import numpy as np

__all__ = ["CONTEXT", "WIDTH", "WORDS", "head_tensors", "write_bert"]

WIDTH, LAYERS, CONTEXT = 32, 2, 64
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *(f"▁{word}" for word in ["the", "sky", "is", "blue", "a", "cat", "sat"]),
]


def write_bert(
    path: Path,
    *,
    pooling: gguf.PoolingType = gguf.PoolingType.MEAN,
    head: bool = False,
    eos: bool = False,
    rerank_template: str = "",
) -> None:
    """Write a BERT of two layers with Gaussian weights; `head` adds the tensors of a classifier with two labels.

    `eos`: the vocabulary ends texts with a token of its own, which is [MASK] here.
    """
    source = np.random.default_rng(5)
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(4 * WIDTH)
    writer.add_head_count(4)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(WORDS)
    writer.add_token_types([3] * 5 + [1] * (len(WORDS) - 5))
    writer.add_token_type_count(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_sep_token_id(3)
    writer.add_mask_token_id(4)

    def matrix(name: str, *shape: int) -> None:
        values = source.standard_normal(shape) / math.sqrt(shape[-1])
        writer.add_tensor(name, values.astype(np.float32))

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(WIDTH, np.float32))

    matrix("token_embd.weight", len(WORDS), WIDTH)
    matrix("position_embd.weight", CONTEXT, WIDTH)
    matrix("token_types.weight", 2, WIDTH)
    norm("token_embd_norm")
    for layer in range(LAYERS):
        at = f"blk.{layer}"
        shapes = {"attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH, WIDTH), "attn_v": (WIDTH, WIDTH),
                  "attn_output": (WIDTH, WIDTH), "ffn_up": (4 * WIDTH, WIDTH), "ffn_down": (WIDTH, 4 * WIDTH)}  # fmt: skip
        for name, shape in shapes.items():
            matrix(f"{at}.{name}.weight", *shape)
            writer.add_tensor(f"{at}.{name}.bias", np.zeros(shape[0], np.float32))
        norm(f"{at}.attn_output_norm")
        norm(f"{at}.layer_output_norm")
    if eos:
        writer.add_eos_token_id(WORDS.index("[MASK]"))
        writer.add_add_eos_token(True)
    if head:
        writer.add_classifier_output_labels(["fits", "does not"])
        for name, values in head_tensors().items():
            writer.add_tensor(name, values)
    if rerank_template:
        writer.add_string("tokenizer.chat_template.rerank", rerank_template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def head_tensors() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """The classifier of `write_bert`: a dense layer, tanh, and a row for each label."""
    source = np.random.default_rng(7)
    shapes = {
        "cls.weight": (WIDTH, WIDTH),
        "cls.bias": (WIDTH,),
        "cls.output.weight": (2, WIDTH),
        "cls.output.bias": (2,),
    }
    return {
        name: (source.standard_normal(shape) / math.sqrt(WIDTH)).astype(np.float32)
        for name, shape in shapes.items()
    }
