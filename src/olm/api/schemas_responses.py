"""Wire structs of OpenAI's embeddings and Responses, and of the rerank routes. How they become bytes is in `encoding`.

Requests: every field may be absent or `null`; fields not named here are ignored. Answers: OpenAI writes a field that
has no value as `null`, so most have no default. Sources: spec/ollama §2.4 and §2.5, OpenAI's API reference. Checks and
meanings are in `dialects`.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from olm.api.schemas import Int

__all__ = [
    "EmbeddingsRequest",
    "RerankDocument",
    "RerankMeta",
    "RerankRequest",
    "RerankResponse",
    "RerankText",
    "RerankTokens",
    "RerankUsage",
]


class _Request(msgspec.Struct, frozen=True):
    """Base of request structs: unknown fields are ignored, every field has a default."""


class EmbeddingsRequest(_Request, frozen=True, kw_only=True):
    model: str | None = None
    input: object = None
    dimensions: Int | None = None
    encoding_format: str | None = None
    # beyond OpenAI
    truncate: bool | None = None
    keep_alive: object = None


class RerankRequest(_Request, frozen=True, kw_only=True):
    model: str | None = None
    query: str | None = None
    documents: list[object] | None = None
    top_n: Int | None = None
    return_documents: bool | None = None
    # beyond Jina and Cohere
    truncate: bool | None = None
    keep_alive: object = None


class _Response(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of answer structs: only a field with a default can be left out."""


class RerankText(_Response, frozen=True, kw_only=True):
    text: str


class RerankDocument(_Response, frozen=True, kw_only=True):
    index: int
    relevance_score: Raw
    document: RerankText | None = None


class RerankUsage(_Response, frozen=True, kw_only=True):
    """Jina's."""

    prompt_tokens: int
    total_tokens: int


class RerankTokens(_Response, frozen=True, kw_only=True):
    input_tokens: int


class RerankMeta(_Response, frozen=True, kw_only=True):
    """Cohere's."""

    tokens: RerankTokens


class RerankResponse(_Response, frozen=True, kw_only=True):
    id: str
    model: str
    results: list[RerankDocument]
    usage: RerankUsage
    meta: RerankMeta
