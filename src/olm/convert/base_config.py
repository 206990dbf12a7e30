"""A Hugging Face config made from a GGUF's metadata: what an adapter's conversion must know of the model it was made for.

Only what decides about names and the order of rows: an architecture's name, layers, heads, experts. Weights cannot be
converted with such a config.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from olm.convert.registry import known_architectures
from olm.errors import CheckpointError
from olm.gguf import Header

__all__ = ["base_configs"]

# A GGUF's keys, and what configs call them (spec: `olm.convert.keys`, the other way round).
_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "block_count": ("num_hidden_layers",),
    "context_length": ("max_position_embeddings",),
    "embedding_length": ("hidden_size",),
    "feed_forward_length": ("intermediate_size",),
    "vocab_size": ("vocab_size",),
    "attention.head_count": ("num_attention_heads",),
    "attention.head_count_kv": ("num_key_value_heads",),
    "attention.key_length": ("head_dim",),
    "attention.sliding_window": ("sliding_window",),
    "attention.q_lora_rank": ("q_lora_rank",),
    "attention.kv_lora_rank": ("kv_lora_rank",),
    "attention.value_length_mla": ("v_head_dim",),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps",),
    "attention.layer_norm_epsilon": ("layer_norm_eps",),
    "rope.dimension_count": ("qk_rope_head_dim",),
    "rope.freq_base": ("rope_theta",),
    "expert_count": ("num_local_experts", "num_experts", "n_routed_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_shared_count": ("n_shared_experts",),
    "expert_feed_forward_length": ("moe_intermediate_size",),
    "leading_dense_block_count": ("first_k_dense_replace",),
}
_TOKENS: Final = "tokenizer.ggml.tokens"


def base_configs(header: Header, hint: str = "") -> Iterator[Mapping[str, object]]:
    """Guess configs of the checkpoint that a GGUF was made from, the likeliest first: several names may share a class.

    Args:
        hint: the name in `architectures`, where it is known.

    Raises:
        CheckpointError: nobody knows the GGUF's architecture.
    """
    architecture = header.text("general.architecture")
    settings = dict(_settings(header, architecture))
    known = known_architectures()

    def distance(name: str) -> tuple[bool, ...]:
        cls = known[name]
        module = cls.__module__.rpartition(".")[2]
        return (
            name != hint,
            cls.gguf_name != architecture,
            module != architecture,
            not name.endswith("ForCausalLM"),
        )

    names = sorted(
        (name for name, cls in known.items() if cls.kind == "model"),
        key=lambda name: (distance(name), name),
    )
    if not names or not architecture:
        raise CheckpointError("the base model does not say what it is")
    for name in names:
        yield {**settings, "architectures": [name]}


def _settings(header: Header, architecture: str) -> Iterator[tuple[str, object]]:
    for key, names in _NAMES.items():
        numbers = header.integers(f"{architecture}.{key}")
        value = header.values.get(f"{architecture}.{key}")
        for name in names:
            if len(numbers) > 1:
                yield name, list(numbers)
            elif numbers:
                yield name, numbers[0]
            elif isinstance(value, float):
                yield name, value
    tokens = header.values.get(_TOKENS)
    n_tokens = getattr(tokens, "n_items", 0)
    if n_tokens and f"{architecture}.vocab_size" not in header.values:
        yield "vocab_size", n_tokens
