"""Names and shapes that tiny checkpoints share: sizes of a config, a layer of Llama's shape, experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = [
    "ATTENTION_LAYER",
    "DENSE_LAYER",
    "LLAMA_LAYER",
    "SIZES",
    "ends",
    "expert_layers",
    "layers",
]

Shapes = Mapping[str, Sequence[int | str]]

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "max_position_embeddings": 128,
}
LLAMA_LAYER = {
    "input_layernorm.weight": [32],
    "post_attention_layernorm.weight": [32],
    "self_attn.q_proj.weight": [32, 32],
    "self_attn.k_proj.weight": [16, 32],
    "self_attn.v_proj.weight": [16, 32],
    "self_attn.o_proj.weight": [32, 32],
    "mlp.gate_proj.weight": [48, 32],
    "mlp.up_proj.weight": [48, 32],
    "mlp.down_proj.weight": [32, 48],
}
ATTENTION_LAYER = {n: shape for n, shape in LLAMA_LAYER.items() if not n.startswith("mlp.")}
DENSE_LAYER = {n: shape for n, shape in LLAMA_LAYER.items() if n.startswith("mlp.")}


def layers(
    shapes: Shapes, n_layers: int = 2, stem: str = "model.layers"
) -> dict[str, Sequence[int | str]]:
    """The same tensors for each layer."""
    return {f"{stem}.{i}.{name}": shape for i in range(n_layers) for name, shape in shapes.items()}


def ends(
    *,
    norm: str = "model.norm.weight",
    embedding: str = "model.embed_tokens.weight",
    head: str = "lm_head.weight",
) -> dict[str, Sequence[int | str]]:
    """What stands before and behind the layers."""
    return {embedding: [96, 32], norm: [32]} | ({head: [96, 32]} if head else {})


def expert_layers(
    first: int = 1, last: int = 2, *, shared: str = "shared_experts", gate: str = "gate"
) -> dict[str, Sequence[int | str]]:
    """Four numbered experts, one that is shared, and their router, for the layers that have them."""
    layer: dict[str, Sequence[int | str]] = {f"mlp.{gate}.weight": [4, 32]}
    for stem in (*(f"experts.{i}" for i in range(4)), *([shared] if shared else [])):
        layer[f"mlp.{stem}.gate_proj.weight"] = [16, 32]
        layer[f"mlp.{stem}.up_proj.weight"] = [16, 32]
        layer[f"mlp.{stem}.down_proj.weight"] = [32, 16]
    return {
        f"model.layers.{i}.{n}": shape for i in range(first, last) for n, shape in layer.items()
    }
