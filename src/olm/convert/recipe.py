"""Which type each tensor of a quantized file gets: llama.cpp's recipes, asked of llama.cpp, and what they leave out.

`llama_quant_compute_types` answers as if there were no importance matrix. The few rules that one changes are here, as in
`llama_tensor_get_type_impl` (src/llama-quant.cpp of the tree that `native/ggml/UPSTREAM.toml` pins); tests hold both to
what llama-quantize writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from olm.convert.file_types import file_type_number
from olm.convert.metadata import Metadata
from olm.convert.model_file import OutTensor
from olm.convert.values import GGML_TYPES
from olm.errors import InvalidRequest
from olm.gguf.types import FILE_TYPES, TENSOR_TYPES
from olm.native.quantize import Override, TensorFacts, TypeQuestion, choose_types

__all__ = ["Recipe", "TypeOverride", "file_type_number", "in_order", "needs_imatrix", "types_of"]

# Layers of the models that upstream calls 70B, whose shared attention values get more bits.
_70B_LAYERS: Final = {"llama": 80, "qwen2": 80, "olmo": 80, "deci": 80, "jais2": 68}
_EMBEDDINGS: Final = ("token_embd.weight", "per_layer_token_embd.weight")
_OUTPUT: Final = "output.weight"
_ALWAYS_NEEDY: Final = ("IQ3_XXS", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_M", "IQ1_S")
# ggml itself cannot write these without, not even the output tensor.
_IMPOSSIBLE_WITHOUT: Final = ("IQ2_XXS", "IQ2_XS", "IQ1_S")
_ATTENTION: Final = (
    "attn_qkv.weight",
    "attn_kv_b.weight",
    "attn_v.weight",
    "attn_k.weight",
    "attn_q.weight",
    "attn_output.weight",
)


@attrs.frozen
class TypeOverride:
    """A type for all tensors in whose name `pattern`, a regular expression, is found; the first that fits counts."""

    pattern: str
    type_name: str


@attrs.frozen(kw_only=True)
class Recipe:
    """What a file is to be quantized to.

    Attributes:
        file_type: `Q4_K_M`, `IQ3_XXS`, `Q8_0`, `F16` …; any case, aliases as in llama-quantize.
        overrides: types of single tensors, before the recipe's own.
        output_type, embedding_type: of `output.weight` and `token_embd.weight`; "" for the recipe's.
        pure: the same type for all, no mixture.
        keep_output: leave `output.weight` as it is.
        allow_requantize: take tensors that are quantized already.
    """

    file_type: str
    overrides: tuple[TypeOverride, ...] = ()
    output_type: str = ""
    embedding_type: str = ""
    pure: bool = False
    keep_output: bool = False
    allow_requantize: bool = False


def in_order(tensors: Sequence[OutTensor]) -> list[OutTensor]:
    """The order in which llama-quantize goes through tensors, and writes them: what has no layer first, then by layer and name."""

    def place(tensor: OutTensor) -> tuple[int, bytes]:
        found = re.match(r"blk\.(\d+)", tensor.name)
        return (int(found[1]) if found else -1), tensor.name.encode()

    return sorted(tensors, key=place)


def types_of(
    meta: Metadata, tensors: Sequence[OutTensor], recipe: Recipe, *, has_imatrix: bool
) -> list[str]:
    """The type of each tensor, which are in the order of `in_order`.

    Raises:
        InvalidRequest: an unknown type, a pattern that is no regular expression, an architecture unknown to llama.cpp.
    """
    _check_patterns(recipe)
    question = _question(meta, tensors, recipe)
    if has_imatrix and not recipe.pure:
        extra = tuple(_with_imatrix(question, recipe))
        question = _replaced(question, (*question.overrides, *extra))
    return [TENSOR_TYPES[chosen.type].name for chosen in choose_types(question)]


def _check_patterns(recipe: Recipe) -> None:
    """Name the one that is wrong; the engine's regular expressions (ECMAScript's) have nearly the same rules."""
    for override in recipe.overrides:
        try:
            re.compile(override.pattern)
        except re.error as exc:
            raise InvalidRequest(
                f"tensor type pattern {override.pattern!r} is no regular expression: {exc}"
            ) from exc


def _question(meta: Metadata, tensors: Sequence[OutTensor], recipe: Recipe) -> TypeQuestion:
    architecture = meta.architecture
    n_layers = meta.integer(".block_count")
    n_heads = _first(meta, ".attention.head_count", 0)
    n_kv_heads = _first(meta, ".attention.head_count_kv", n_heads)
    n_experts = meta.integer(".expert_count")
    is_70b = n_layers == _70B_LAYERS.get(architecture)
    if architecture == "llama":
        is_70b = is_70b and n_heads != n_kv_heads and n_experts != 8
    return TypeQuestion(
        architecture=architecture,
        ftype=file_type_number(recipe.file_type),
        tensors=[_facts(tensor) for tensor in tensors],
        overrides=[Override(o.pattern, type_number(o.type_name)) for o in recipe.overrides],
        n_embd=meta.integer(".embedding_length"),
        n_ff=meta.integer(".feed_forward_length"),
        n_layer=max(n_layers, 1),
        n_head=n_heads,
        n_head_kv=n_kv_heads,
        n_expert=n_experts,
        is_70b=is_70b,
        pure=recipe.pure,
        keep_output=recipe.keep_output,
        output_type=type_number(recipe.output_type) if recipe.output_type else -1,
        embedding_type=type_number(recipe.embedding_type) if recipe.embedding_type else -1,
    )


def type_number(name: str) -> int:
    """The number of a tensor type by its name, in any case. Raises InvalidRequest for an unknown one."""
    found = GGML_TYPES.get(name.upper())
    if found is None:
        raise InvalidRequest(f"unknown tensor type {name!r}, known are {', '.join(GGML_TYPES)}")
    return found[0]


def _facts(tensor: OutTensor) -> TensorFacts:
    shape = tuple(reversed(tensor.reader.shape)) or (1,)
    return TensorFacts(tensor.name, GGML_TYPES[tensor.type_name][0], shape)


def _first(meta: Metadata, key: str, default: int) -> int:
    """A figure of the first layer."""
    value = meta.get(key)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        value = value[0] if value else None
    return value if isinstance(value, int) else default


def _replaced(question: TypeQuestion, overrides: Sequence[Override]) -> TypeQuestion:
    import msgspec

    return msgspec.structs.replace(question, overrides=overrides)


def _is_attention_value(name: str) -> bool:
    return any(part in name for part in _ATTENTION[:3])


def _is_ffn_down(name: str) -> bool:
    others = (*_ATTENTION, "ffn_up", "ffn_gate")
    return "ffn_down" in name and not any(part in name for part in others)


def _with_imatrix(question: TypeQuestion, recipe: Recipe) -> Iterator[Override]:
    """What an importance matrix changes, as overrides of single tensors.

    Upstream counts the down projections it decides about; an override is not counted. So where the rest depends on the
    count, all of them are overridden.
    """
    file_type = FILE_TYPES[question.ftype]
    gqa = question.n_head // question.n_head_kv if question.n_head_kv else 0
    n_early = question.n_layer // 8
    n_seen = 0
    for tensor in question.tensors:
        name = tensor.name
        if any(re.search(override.pattern, name) for override in recipe.overrides):
            continue
        wanted = ""
        if _is_ffn_down(name):
            number = re.match(r"blk\.(\d+)", name)
            layer = int(number[1]) if question.n_expert > 1 and number else n_seen
            n_seen += 1
            wanted = _down_type(file_type, is_early=layer < n_early)
        elif _is_attention_value(name) and file_type == "IQ3_XXS":
            wanted = "IQ3_XXS" if gqa < 4 and question.n_expert != 8 else ""
        if wanted:
            yield Override(f"^{re.escape(name)}$", GGML_TYPES[wanted][0])


def _down_type(file_type: str, *, is_early: bool) -> str:
    """The type of a down projection where there is an importance matrix; "" where that changes nothing."""
    if file_type in ("IQ3_XXS", "IQ4_NL", "IQ4_XS"):
        return file_type
    if file_type in ("Q4_0", "Q5_0") and is_early:
        return "Q4_1" if file_type == "Q4_0" else "Q5_1"
    return ""


def needs_imatrix(name: str, type_name: str, file_type: int) -> bool:
    """Whether a tensor of this name would be useless in this type without an importance matrix."""
    if type_name in _IMPOSSIBLE_WITHOUT:
        return True
    if name in _EMBEDDINGS or name == _OUTPUT:
        return False
    return type_name in _ALWAYS_NEEDY or (type_name == "Q2_K" and FILE_TYPES[file_type] == "Q2_K_S")
