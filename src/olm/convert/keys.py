"""The metadata keys that most language models share: lengths, heads, rope, norms, experts.

Keys, their order and the names they go by in configs are those of llama.cpp's converter (`conversion/base.py`, tree of
`native/ggml/UPSTREAM.toml`).
"""

from __future__ import annotations

from typing import Final

import attrs

from olm.convert.hparams import Hparams
from olm.convert.metadata import Metadata
from olm.errors import CheckpointError

__all__ = ["BLOCK_COUNT", "Rope", "rope_notes", "rope_of", "write_common", "write_rope"]

BLOCK_COUNT: Final = ("n_layers", "num_hidden_layers", "n_layer", "num_layers")

_ROPE_KINDS: Final = (
    *("", "default", "linear", "yarn", "su", "longrope", "dynamic", "llama3", "mrope"),
    *("original", "proportional", "xdrope"),
)

_COUNTS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    (
        ".context_length",
        (
            "max_position_embeddings",
            "n_ctx",
            "n_positions",
            "max_length",
            "max_sequence_length",
            "model_max_length",
        ),
    ),
    (".embedding_length", ("hidden_size", "n_embd", "dim")),
    (
        ".feed_forward_length",
        (
            "prefix_dense_intermediate_size",
            "dense_intermediate_size",
            "intermediate_size",
            "n_inner",
            "hidden_dim",
        ),
    ),
    (".attention.head_count", ("num_attention_heads", "n_head", "n_heads")),
    (".attention.head_count_kv", ("num_key_value_heads", "n_kv_heads")),
)
_EXPERTS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    (".expert_count", ("num_local_experts", "num_experts", "n_routed_experts")),
    (
        ".expert_used_count",
        ("num_experts_per_tok", "num_experts_per_token", "top_k_experts"),
    ),
    (".expert_group_count", ("n_group",)),
    (".expert_group_used_count", ("topk_group",)),
)
_GATING: Final = {"softmax": 1, "sigmoid": 2, "sqrtsoftplus": 4}
_GATING_NAMES: Final = (
    "score_function",
    "scoring_func",
    "score_func",
    "moe_router_activation",
    "moe_router_activation_func",
    "expert_selection_fn",
)


def write_common(meta: Metadata, hparams: Hparams, n_blocks: int) -> None:
    """Write every key that the config has a setting for.

    Raises:
        CheckpointError: a setting has the wrong type.
    """
    meta.u32(".block_count", n_blocks)
    for key, names in _COUNTS:
        _write_count(meta, key, hparams, names)
    if hparams.get("is_causal") is False:
        meta.flag(".attention.causal", value=False)
    write_rope(meta, rope_of(hparams))
    eps = hparams.find_number("rms_norm_eps", "norm_eps")
    if eps is not None:
        meta.f32(".attention.layer_norm_rms_epsilon", eps)
    eps = hparams.find_number("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")
    if eps is not None:
        meta.f32(".attention.layer_norm_epsilon", eps)
    for key, names in _EXPERTS:
        _write_count(meta, key, hparams, names)
    _write_gating(meta, hparams)
    head_dim = hparams.find_integer("head_dim")
    if head_dim is not None:
        meta.u32(".attention.key_length", head_dim)
        meta.u32(".attention.value_length", head_dim)
    meta.u32("general.file_type", 0)  # its place; the value is known when all types are


def _write_count(meta: Metadata, key: str, hparams: Hparams, names: tuple[str, ...]) -> None:
    if hparams.get(*names) is None:
        return
    value = hparams.per_layer(*names)
    if isinstance(value, int):
        meta.u32(key, value)
    else:
        meta.i32s(key, value)


def _write_gating(meta: Metadata, hparams: Hparams) -> None:
    if hparams.get(*_GATING_NAMES) is None:
        return
    function = hparams.text(*_GATING_NAMES)
    if function not in _GATING:
        raise CheckpointError(
            f"config.json: experts are chosen by {function!r}; known are {', '.join(_GATING)}"
        )
    meta.u32(".expert_gating_func", _GATING[function])


@attrs.frozen
class Rope:
    """How positions are rotated.

    Attributes:
        full: settings of full attention: `rope_theta`, `rope_type`, `factor`, `partial_rotary_factor` …
        sliding: those of sliding attention, where they differ; else empty.
        sections: of M-RoPE, empty without.
    """

    full: Hparams
    sliding: Hparams
    sections: tuple[int, ...] = ()


def rope_of(hparams: Hparams) -> Rope:
    """Gather rope's settings from all the places they have lived in: outer keys, `rope_scaling`, `rope_parameters`."""
    found = hparams.table("rope_parameters", "rope_scaling")
    sections = found.integers("mrope_section")
    if "full_attention" in found or "sliding_attention" in found:
        return Rope(found.table("full_attention"), found.table("sliding_attention"), sections)
    full = dict(found.values)
    outer = {
        "rope_theta": (
            "global_rope_theta",
            "rope_global_theta",
            "rope_theta_global",
            "rope_theta",
            "rotary_emb_base",
        ),
        "partial_rotary_factor": ("partial_rotary_factor", "rope_pct", "rope_percent"),
        "original_max_position_embeddings": ("original_max_position_embeddings",),
    }
    for key, names in outer.items():
        value = hparams.get(*names)
        if full.get(key) is None and value is not None:
            full[key] = value
    if full.get("rope_type") is None and full.get("type") is not None:
        full["rope_type"] = full["type"]
    local = hparams.get(
        "local_rope_theta",
        "rope_local_theta",
        "rope_theta_local",
        "swa_rope_theta",
        "rope_local_base_freq",
    )
    sliding = {} if local is None else {"rope_theta": local}
    return Rope(Hparams(full), Hparams(sliding), sections)


def write_rope(meta: Metadata, rope: Rope) -> None:
    """Write rope's keys. `llama3` has a tensor instead (`olm.convert.parts.llama3_rope_factors`)."""
    kind = rope.full.text("rope_type", default="")
    factor = rope.full.find_number("factor")
    if kind in ("linear", "yarn") and factor is not None:
        meta.text(".rope.scaling.type", kind)
        meta.f32(".rope.scaling.factor", factor)
    if kind == "yarn" and factor is not None:
        _write_yarn(meta, rope.full)
    if kind in ("su", "longrope"):
        meta.text(".rope.scaling.type", "longrope")
    if rope.sections:
        meta.i32s(".rope.dimension_sections", (*rope.sections, 0, 0, 0, 0)[:4])
    theta = rope.full.find_number("rope_theta")
    if theta is not None:
        meta.f32(".rope.freq_base", theta)
    theta = rope.sliding.find_number("rope_theta")
    if theta is not None:
        meta.f32(".rope.freq_base_swa", theta)


def rope_notes(rope: Rope) -> tuple[str, ...]:
    """What is to be said about positions: a kind of scaling that is written nowhere, here or in a family's own file."""
    kind = rope.full.text("rope_type", default="")
    if kind.lower() in _ROPE_KINDS:
        return ()
    return (f"config.json: rope_type {kind!r} is unknown; positions are not scaled",)


def _write_yarn(meta: Metadata, rope: Hparams) -> None:
    meta.u32(
        ".rope.scaling.original_context_length", rope.integer("original_max_position_embeddings")
    )
    optional = (
        (".rope.scaling.yarn_ext_factor", ("extrapolation_factor",)),
        (".rope.scaling.yarn_attn_factor", ("attention_factor", "attn_factor")),
        (".rope.scaling.yarn_beta_fast", ("beta_fast",)),
        (".rope.scaling.yarn_beta_slow", ("beta_slow",)),
    )
    for key, names in optional:
        value = rope.find_number(*names)
        if value is not None:
            meta.f32(key, value)
