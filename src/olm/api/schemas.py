"""Wire structs of Ollama's native API, in Ollama's field order. How they become bytes is in `encoding`.

Requests: every field may be absent or `null` (Go treats them alike). Answers: a field with a default is left out when
it has it, as Go's `omitempty`; a field without one is always written. Source: `api/types.go` of Ollama, commit fb30760
(spec/ollama §1.4 to §1.17). Checks and meanings are in `dialects.ollama`.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw

__all__ = [
    "ChatRequest",
    "ChatResponse",
    "CopyRequest",
    "CreateRequest",
    "DebugInfo",
    "DeleteRequest",
    "Details",
    "EmbedRequest",
    "EmbeddingRequest",
    "GenerateRequest",
    "GenerateResponse",
    "Logprob",
    "Message",
    "ProcessModel",
    "ProcessResponse",
    "ProgressResponse",
    "PullRequest",
    "PushRequest",
    "ResponseMessage",
    "ShowRequest",
    "ShowResponse",
    "StructuredOutputs",
    "TagsModel",
    "TagsResponse",
    "Tensor",
    "TokenProb",
    "Tool",
    "ToolCall",
    "ToolCallFunction",
    "VersionResponse",
]

ABSENT: Final = Raw(b"")
"""A raw field that the client did not send; `null` is `Raw(b"null")`."""

TokenId = Annotated[int, Meta(ge=-(1 << 31), le=(1 << 31) - 1)]
Int = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


class _Request(msgspec.Struct, frozen=True):
    """Base of request structs: unknown fields are ignored, every field has a default."""


class ToolCallFunction(_Request, frozen=True, kw_only=True):
    index: Int | None = None
    name: str | None = None
    arguments: Raw = ABSENT


class ToolCall(_Request, frozen=True, kw_only=True):
    id: str | None = None
    function: ToolCallFunction | None = None


class Message(_Request, frozen=True, kw_only=True):
    role: str | None = None
    content: str | None = None
    thinking: str | None = None
    images: list[bytes] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class ToolProperty(_Request, frozen=True, kw_only=True):
    """Only what is checked, here and in the tools above it; their text travels on as it came, foreign keywords too."""

    anyOf: list[ToolProperty | None] | None = None  # noqa: N815 # the name on the wire
    description: str | None = None
    enum: list[object] | None = None
    properties: dict[str, ToolProperty | None] | None = None
    required: list[str] | None = None


class ToolFunctionParameters(_Request, frozen=True, kw_only=True):
    required: list[str] | None = None
    properties: dict[str, ToolProperty | None] | None = None


class ToolFunction(_Request, frozen=True, kw_only=True):
    name: str | None = None
    description: str | None = None
    parameters: ToolFunctionParameters | None = None


class Tool(_Request, frozen=True, kw_only=True):
    type: str | None = None
    function: ToolFunction | None = None


class StructuredOutputs(_Request, frozen=True, kw_only=True):
    """vLLM's `StructuredOutputsParams`, with `lark` and `gbnf` for grammars whose language is to be said."""

    json: Raw = ABSENT
    json_object: bool | None = None
    regex: str | None = None
    choice: list[str] | None = None
    lark: str | None = None
    gbnf: str | None = None
    grammar: str | None = None


class GenerateRequest(_Request, frozen=True, kw_only=True):
    model: str | None = None
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[TokenId] | None = None
    stream: bool | None = None
    raw: bool | None = None
    format: Raw = ABSENT
    keep_alive: object = None
    images: list[bytes] | None = None
    options: dict[str, object] | None = None
    think: object = None
    truncate: bool | None = None
    shift: bool | None = None
    debug_render_only: bool | None = msgspec.field(default=None, name="_debug_render_only")
    logprobs: bool | None = None
    top_logprobs: Int | None = None
    # beyond Ollama
    structured_outputs: StructuredOutputs | None = None
    grammar: str | None = None


class ChatRequest(_Request, frozen=True, kw_only=True):
    model: str | None = None
    messages: list[Message] | None = None
    stream: bool | None = None
    format: Raw = ABSENT
    keep_alive: object = None
    tools: Raw = ABSENT
    options: dict[str, object] | None = None
    think: object = None
    truncate: bool | None = None
    shift: bool | None = None
    debug_render_only: bool | None = msgspec.field(default=None, name="_debug_render_only")
    logprobs: bool | None = None
    top_logprobs: Int | None = None
    # beyond Ollama
    tool_choice: object = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, object] | None = None
    structured_outputs: StructuredOutputs | None = None
    grammar: str | None = None


class EmbedRequest(_Request, frozen=True, kw_only=True):
    model: str | None = None
    input: object = None
    keep_alive: object = None
    truncate: bool | None = None
    dimensions: Int | None = None
    options: dict[str, object] | None = None


class EmbeddingRequest(_Request, frozen=True, kw_only=True):
    model: str | None = None
    prompt: str | None = None
    keep_alive: object = None
    options: dict[str, object] | None = None


class ShowRequest(_Request, frozen=True, kw_only=True):
    model: str | None = None
    system: str | None = None
    template: str | None = None
    verbose: bool | None = None
    options: dict[str, object] | None = None
    name: str | None = None


class CopyRequest(_Request, frozen=True, kw_only=True):
    source: str | None = None
    destination: str | None = None


class DeleteRequest(_Request, frozen=True, kw_only=True):
    model: str | None = None
    name: str | None = None


class CreateRequest(_Request, frozen=True, kw_only=True):
    model: str | None = None
    stream: bool | None = None
    quantize: str | None = None
    draft_quantize: str | None = None
    from_: str | None = msgspec.field(default=None, name="from")
    remote_host: str | None = None
    files: dict[str, str] | None = None
    draft_files: dict[str, str] | None = None
    adapters: dict[str, str] | None = None
    template: str | None = None
    license: object = None
    system: str | None = None
    parameters: dict[str, object] | None = None
    messages: list[Message] | None = None
    renderer: str | None = None
    parser: str | None = None
    requires: str | None = None
    info: dict[str, object] | None = None
    name: str | None = None
    quantization: str | None = None
    links: dict[str, str] | None = None
    tensor_types: dict[str, str] | None = None
    imatrix: dict[str, str] | None = None


class PullRequest(_Request, frozen=True, kw_only=True):
    """`username` and `password` of older clients are let pass, as in Ollama."""

    model: str | None = None
    name: str | None = None
    insecure: bool | None = None
    stream: bool | None = None
    limit_rate: int | None = None


class PushRequest(PullRequest, frozen=True, kw_only=True):
    """As `PullRequest`. `limit_rate` is olm's own in both: the most bytes a second, 0 for as many as there are."""


class _Response(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of answer structs: a default is a zero value that is left out."""


class VersionResponse(_Response, frozen=True, kw_only=True):
    version: str


class TokenProb(_Response, frozen=True, kw_only=True):
    token: str
    logprob: float
    bytes: list[int] | None = None


class Logprob(_Response, frozen=True, kw_only=True):
    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[TokenProb] | None = None


class CallFunction(_Response, frozen=True, kw_only=True):
    index: int
    name: str
    arguments: Raw


class Call(_Response, frozen=True, kw_only=True):
    id: str = ""
    function: CallFunction


class ResponseMessage(_Response, frozen=True, kw_only=True):
    role: str
    content: str
    thinking: str = ""
    images: list[bytes] | None = None
    tool_calls: list[Call] | None = None
    tool_name: str = ""
    tool_call_id: str = ""


class DebugInfo(_Response, frozen=True, kw_only=True):
    rendered_template: str
    image_count: int = 0


class GenerateResponse(_Response, frozen=True, kw_only=True):
    model: str
    created_at: str
    response: str
    thinking: str = ""
    done: bool
    done_reason: str = ""
    context: tuple[int, ...] = ()
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_cached_count: int = 0
    truncated: bool = False
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0
    tool_calls: list[Call] | None = None
    debug_info: DebugInfo | None = msgspec.field(default=None, name="_debug_info")
    logprobs: list[Logprob] | None = None
    malformed_tool_call: bool = False


class ChatResponse(_Response, frozen=True, kw_only=True):
    model: str
    created_at: str
    message: ResponseMessage
    done: bool
    done_reason: str = ""
    debug_info: DebugInfo | None = msgspec.field(default=None, name="_debug_info")
    logprobs: list[Logprob] | None = None
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_cached_count: int = 0
    truncated: bool = False
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0
    malformed_tool_call: bool = False


class Details(_Response, frozen=True, kw_only=True):
    parent_model: str
    format: str
    family: str
    families: tuple[str, ...] | None
    parameter_size: str
    quantization_level: str
    context_length: int = 0
    embedding_length: int = 0


class TagsModel(_Response, frozen=True, kw_only=True):
    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details
    capabilities: tuple[str, ...] = ()


class TagsResponse(_Response, frozen=True, kw_only=True):
    models: list[TagsModel]


class ProcessModel(_Response, frozen=True, kw_only=True):
    name: str
    model: str
    size: int
    digest: str
    details: Details
    expires_at: str
    size_vram: int
    context_length: int


class ProcessResponse(_Response, frozen=True, kw_only=True):
    models: list[ProcessModel]


class Tensor(_Response, frozen=True, kw_only=True):
    name: str
    type: str
    shape: tuple[int, ...]


class Adapter(_Response, frozen=True, kw_only=True):
    """A LoRA adapter, as the option `adapters` calls it; `scale` when a request says nothing."""

    id: int
    name: str = ""
    scale: float
    digest: str


class ShowResponse(_Response, frozen=True, kw_only=True):
    license: str = ""
    modelfile: str = ""
    parameters: str = ""
    template: str = ""
    system: str = ""
    details: Details
    messages: list[ResponseMessage] | None = None
    model_info: dict[str, object]
    projector_info: dict[str, object] | None = None
    tensors: list[Tensor] | None = None
    capabilities: tuple[str, ...] = ()
    modified_at: str
    requires: str = ""
    links: dict[str, str] | None = None
    adapters: list[Adapter] | None = None


class ProgressResponse(_Response, frozen=True, kw_only=True):
    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0
