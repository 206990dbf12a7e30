"""Which adapters fit which model, by their headers alone."""

from __future__ import annotations

import pytest

from olm.errors import GgufError
from olm.gguf import Array, Header
from olm.gguf.adapters import check_adapter
from olm.gguf.types import Tensor

Shapes = dict[str, tuple[int, ...]]

BASE: Shapes = {
    "token_embd.weight": (64, 512),
    "output.weight": (64, 512),
    "blk.0.attn_q.weight": (64, 48),
    "blk.0.ffn_up_exps.weight": (64, 128, 4),
}
LORA: Shapes = {"blk.0.attn_q.weight.lora_a": (64, 4), "blk.0.attn_q.weight.lora_b": (4, 48)}


def _header(shapes: Shapes, **values: str | int | Array) -> Header:
    tensors = tuple(Tensor(name, "F32", shape, 0, 0, 0) for name, shape in shapes.items())
    return Header(
        3, {key.replace("__", "."): value for key, value in values.items()}, tensors, 0, 0
    )


def _base(shapes: Shapes = BASE, **values: str | int | Array) -> Header:
    return _header(shapes, **{"general__architecture": "llama", **values})


def _lora(shapes: Shapes, **values: str | int | Array) -> Header:
    kind = {"general__type": "adapter", "adapter__type": "lora", "general__architecture": "llama"}
    return _header(shapes, **{**kind, **values})


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"token_embd.weight.lora_a": (4, 512), "token_embd.weight.lora_b": (4, 64)},
        {"output.weight.lora_a": (64, 8), "output.weight.lora_b": (8, 512)},
        {
            "blk.0.ffn_up_exps.weight.lora_a": (64, 2, 4),
            "blk.0.ffn_up_exps.weight.lora_b": (2, 128, 4),
        },
        {"blk.0.attn_norm.weight": (64,)},
    ],
)
def test_what_fits_passes(more: Shapes) -> None:
    check_adapter(_lora({**LORA, **more}), _base())


@pytest.mark.parametrize(
    ("lora", "base", "words"),
    [
        (_lora(LORA, general__type="model"), _base(), "lora.gguf is no LoRA adapter"),
        (_lora(LORA, adapter__type="alora"), _base(), "is no LoRA adapter"),
        (_lora(LORA, general__architecture="qwen2"), _base(), "'qwen2', not 'llama'"),
        (
            _lora(LORA, adapter__alora__invocation_tokens=Array(1, (5,))),
            _base(),
            "switched on by an invocation",
        ),
        (_lora({"blk.0.attn_q.weight.lora_a": (64, 4)}), _base(), "lacks one of its two factors"),
        (_lora({"blk.0.attn_q.weight": (64, 4)}), _base(), "lacks one of its two factors"),
        (
            _lora({"blk.9.attn_q.weight.lora_a": (64, 4), "blk.9.attn_q.weight.lora_b": (4, 48)}),
            _base(),
            "'blk.9.attn_q.weight', which the model does not have",
        ),
        (
            _lora({"blk.0.attn_q.weight.lora_a": (64, 4), "blk.0.attn_q.weight.lora_b": (5, 48)}),
            _base(),
            "do not fit tensor 'blk.0.attn_q.weight'",
        ),
        (
            _lora({"output.weight.lora_a": (64, 4), "output.weight.lora_b": (4, 512)}),
            _base({"token_embd.weight": (64, 512)}),
            "which this model shares with its token embeddings",
        ),
        (
            _lora({"token_embd.weight.lora_a": (4, 512), "token_embd.weight.lora_b": (4, 64)}),
            _base({"token_embd.weight": (64, 512)}),
            "which are this model's output as well",
        ),
    ],
)
def test_what_does_not_is_refused(lora: Header, base: Header, words: str) -> None:
    with pytest.raises(GgufError, match=words):
        check_adapter(lora, base, "lora.gguf")


def test_of_a_split_model_only_what_is_there_is_checked() -> None:
    """The first part's header does not have all tensors."""
    shapes: Shapes = {"blk.9.attn_q.weight.lora_a": (64, 4), "blk.9.attn_q.weight.lora_b": (4, 48)}

    check_adapter(_lora(shapes), _base(split__count=2))
