"""Wire structs of OpenAI's embeddings and Responses, and of the rerank routes. How they become bytes is in `encoding`.

Requests: every field may be absent or `null`; fields not named here are ignored. Answers: OpenAI writes a field that
has no value as `null`, so most have no default. Sources: spec/ollama §2.4 and §2.5, OpenAI's API reference. Checks and
meanings are in `dialects`.
"""

from __future__ import annotations

import builtins
from typing import Final

import msgspec
from msgspec import Raw

from olm.api.schemas import ABSENT, Int
from olm.api.schemas_openai import Reasoning, TokenLogprob, TurnFields

__all__ = [
    "Deleted",
    "EmbeddingsRequest",
    "IncompleteDetails",
    "InputItem",
    "InputItemList",
    "InputTokens",
    "InputTokensDetails",
    "OutputCall",
    "OutputItem",
    "OutputMessage",
    "OutputReasoning",
    "OutputText",
    "OutputTokensDetails",
    "RerankDocument",
    "RerankMeta",
    "RerankRequest",
    "RerankResponse",
    "RerankText",
    "RerankTokens",
    "RerankUsage",
    "ResponseError",
    "ResponseObject",
    "ResponseReasoning",
    "ResponseUsage",
    "ResponsesRequest",
    "ResponsesTool",
    "SummaryText",
    "TextFormat",
]

NULL: Final = Raw(b"null")


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    """Base of request structs: unknown fields are ignored, every field has a default."""


class EmbeddingsRequest(_Request, frozen=True, kw_only=True):
    model: str | None = None
    input: object = None
    dimensions: Int | None = None
    encoding_format: str | None = None
    # beyond OpenAI
    truncate: bool | None = None
    keep_alive: object = None


class ResponsesReasoning(Reasoning, frozen=True, kw_only=True):
    summary: str | None = None


class TextFormat(_Request, frozen=True, kw_only=True):
    type: str | None = None
    schema: Raw = ABSENT


class ResponsesText(_Request, frozen=True, kw_only=True):
    """`format` is raw because it is told back as it came."""

    format: Raw = ABSENT


class ResponsesTool(_Request, frozen=True, kw_only=True):
    """A function in flat form, or a `namespace` of functions; of other types only the type is read."""

    type: str | None = None
    name: str | None = None
    description: str | None = None
    parameters: Raw = ABSENT
    tools: list[ResponsesTool] | None = None


class ResponsesRequest(TurnFields, frozen=True, kw_only=True):
    """Named as Ollama's, because Go's error texts name it."""

    input: Raw = ABSENT
    instructions: str | None = None
    max_output_tokens: Int | None = None
    tools: Raw = ABSENT
    tool_choice: object = None
    parallel_tool_calls: bool | None = None
    text: ResponsesText | None = None
    reasoning: ResponsesReasoning | None = None
    truncation: str | None = None
    metadata: dict[str, object] | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    conversation: object = None
    prompt: object = None
    include: list[str] | None = None
    top_logprobs: Int | None = None
    max_tool_calls: Int | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class InputItem(_Request, frozen=True, kw_only=True, omit_defaults=True):
    """One item of an input, of any kind: each kind uses some of the fields."""

    id: str | None = None
    type: str | None = None
    status: str | None = None
    role: str | None = None
    content: Raw = ABSENT
    call_id: str | None = None
    namespace: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: Raw = ABSENT
    summary: Raw = ABSENT
    encrypted_content: str | None = None


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


class OutputText(_Response, frozen=True, kw_only=True, tag_field="type", tag="output_text"):
    text: str
    annotations: tuple[()]
    logprobs: list[TokenLogprob]


class SummaryText(_Response, frozen=True, kw_only=True, tag_field="type", tag="summary_text"):
    text: str


class OutputMessage(_Response, frozen=True, kw_only=True, tag_field="type", tag="message"):
    id: str
    status: str
    role: str
    content: list[OutputText]


class OutputReasoning(_Response, frozen=True, kw_only=True, tag_field="type", tag="reasoning"):
    """`encrypted_content` is plain text, as Ollama has it: clients that keep no ids send it back to be read."""

    id: str
    summary: list[SummaryText]
    encrypted_content: str = ""


class OutputCall(_Response, frozen=True, kw_only=True, tag_field="type", tag="function_call"):
    id: str
    status: str
    call_id: str
    name: str
    namespace: str = ""
    arguments: str


OutputItem = OutputMessage | OutputReasoning | OutputCall


class ResponseError(_Response, frozen=True, kw_only=True):
    code: str
    message: str


class IncompleteDetails(_Response, frozen=True, kw_only=True):
    reason: str


class ResponseReasoning(_Response, frozen=True, kw_only=True):
    effort: str | None
    summary: str | None


class InputTokensDetails(_Response, frozen=True, kw_only=True):
    cached_tokens: int


class OutputTokensDetails(_Response, frozen=True, kw_only=True):
    reasoning_tokens: int


class ResponseUsage(_Response, frozen=True, kw_only=True):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseObject(_Response, frozen=True, kw_only=True):
    """In Ollama's field order. Times are seconds since the epoch; raw fields are told back as the client sent them."""

    id: str
    object: str
    created_at: int
    completed_at: int | None
    status: str
    incomplete_details: IncompleteDetails | None
    model: str
    previous_response_id: str | None
    instructions: str | None
    output: list[OutputItem]
    error: ResponseError | None
    tools: list[Raw]
    tool_choice: builtins.object
    truncation: str
    parallel_tool_calls: bool
    text: dict[str, Raw]
    top_p: float | None
    presence_penalty: float
    frequency_penalty: float
    top_logprobs: int
    temperature: float | None
    reasoning: ResponseReasoning
    usage: ResponseUsage | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    store: bool
    background: bool
    service_tier: str
    metadata: dict[str, str]
    safety_identifier: str | None
    prompt_cache_key: str | None
    user: str | None


class InputItemList(_Response, frozen=True, kw_only=True):
    object: str
    data: list[Raw]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(_Response, frozen=True, kw_only=True):
    id: str
    object: str
    deleted: bool


class InputTokens(_Response, frozen=True, kw_only=True):
    object: str
    input_tokens: int
