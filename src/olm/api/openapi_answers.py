"""Answers that only the OpenAPI document knows as structs: the routes write them without one. Shapes, no behaviour."""

from __future__ import annotations

import msgspec

from olm.api.schemas_text import TokenPiece

__all__ = [
    "CloudState",
    "EmbedAnswer",
    "EmbeddingAnswer",
    "OpenAIEmbedding",
    "OpenAIEmbeddingList",
    "OpenAIEmbeddingUsage",
    "RecommendationsAnswer",
    "StatusAnswer",
    "TokenizeAnswer",
]


class EmbedAnswer(msgspec.Struct, kw_only=True):
    """Vectors of length 1, one an input. Durations are nanoseconds."""

    model: str
    embeddings: list[list[float]]
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0


class EmbeddingAnswer(msgspec.Struct, kw_only=True):
    """One vector, not normalised."""

    embedding: list[float]


class CloudState(msgspec.Struct, kw_only=True):
    """There is no cloud."""

    disabled: bool
    source: str


class StatusAnswer(msgspec.Struct, kw_only=True):
    """Ollama's status."""

    cloud: CloudState


class RecommendationsAnswer(msgspec.Struct, kw_only=True):
    """Always empty."""

    recommendations: list[dict[str, object]]


class OpenAIEmbedding(msgspec.Struct, kw_only=True):
    """A vector as numbers, or as base64 of little-endian 32-bit floats."""

    object: str
    embedding: list[float] | str
    index: int


class OpenAIEmbeddingUsage(msgspec.Struct, kw_only=True):
    """Tokens of all inputs."""

    prompt_tokens: int
    total_tokens: int


class OpenAIEmbeddingList(msgspec.Struct, kw_only=True):
    """Vectors in the order of the inputs."""

    object: str
    data: list[OpenAIEmbedding]
    model: str
    usage: OpenAIEmbeddingUsage


class TokenizeAnswer(msgspec.Struct, kw_only=True):
    """The tokens, or all with their pieces. (The route's own struct is a union that cannot be inspected.)"""

    tokens: list[int | TokenPiece]
