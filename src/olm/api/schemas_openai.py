"""Wire structs of OpenAI's chat, completions and models, in the field order Ollama writes them.

Requests: every field may be absent or `null`, unknown fields are ignored; the structs are named as Ollama's, because
Go's error texts name them. Answers: a field with a default is left out when it has it. Sources: `openai/openai.go` of
Ollama (spec/ollama §2.2 to §2.4) and OpenAI's API reference. Meanings and checks are in `dialects.openai_*`.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw

from olm.api.schemas import ABSENT, DebugInfo, Int, StructuredOutputs, ToolCall

__all__ = [
    "CallFunction",
    "ChatChoice",
    "ChatCompletion",
    "ChatCompletionRequest",
    "ChatLogprobs",
    "ChatMessage",
    "Completion",
    "CompletionChoice",
    "CompletionLogprobs",
    "CompletionRequest",
    "FunctionCall",
    "Message",
    "Model",
    "ModelList",
    "Reasoning",
    "ResponseFormat",
    "StreamOptions",
    "TokenLogprob",
    "TopLogprob",
    "TurnFields",
    "Usage",
]

FINGERPRINT: Final = "fp_ollama"


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    """Base of request structs."""


class StreamOptions(_Request, frozen=True, kw_only=True):
    include_usage: bool | None = None


class JsonSchema(_Request, frozen=True, kw_only=True):
    """`name`, `description` and `strict` change nothing: an answer is always held to its schema."""

    schema: Raw = ABSENT


class ResponseFormat(_Request, frozen=True, kw_only=True):
    """`schema` beside `json_object` is llama-server's and others' form."""

    type: str | None = None
    json_schema: JsonSchema | None = None
    schema: Raw = ABSENT


class Reasoning(_Request, frozen=True, kw_only=True):
    effort: str | None = None


class Message(_Request, frozen=True, kw_only=True):
    """`content` is a text, a list of parts, or null; `reasoning_content` is DeepSeek's name of `reasoning`."""

    role: str | None = None
    content: object = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    name: str | None = None
    tool_call_id: str | None = None


class TurnFields(_Request, frozen=True, kw_only=True):
    """What both kinds of turn take: OpenAI's fields, then those of other servers and olm's own."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Int | None = None
    max_tokens: Int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: Int | None = None
    stop: object = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    response_format: ResponseFormat | None = None
    reasoning: Reasoning | None = None
    reasoning_effort: str | None = None
    debug_render_only: bool | None = msgspec.field(default=None, name="_debug_render_only")
    # beyond OpenAI: samplers under their usual names, all others by `options`
    top_k: Int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    repetition_penalty: float | None = None
    repeat_last_n: Int | None = None
    ignore_eos: bool | None = None
    think_budget: Int | None = None
    adapters: object = None
    lora: object = None
    options: dict[str, object] | None = None
    keep_alive: object = None
    think: object = None
    truncate: bool | None = None
    shift: bool | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Raw = ABSENT
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    grammar: str | None = None


class ChatCompletionRequest(TurnFields, frozen=True, kw_only=True):
    messages: list[Message] | None = None
    max_completion_tokens: Int | None = None
    tools: Raw = ABSENT
    tool_choice: object = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Int | None = None
    # beyond OpenAI
    chat_template_kwargs: dict[str, object] | None = None


class CompletionRequest(TurnFields, frozen=True, kw_only=True):
    """`prompt` is a text, a list of texts, a list of tokens, or a list of lists of tokens."""

    prompt: object = None
    suffix: str | None = None
    echo: bool | None = None
    best_of: Int | None = None
    logprobs: Int | None = None
    # beyond OpenAI
    raw: bool | None = None


class _Response(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Base of answer structs: a default is a zero value that is left out."""


class CachedTokens(_Response, frozen=True, kw_only=True):
    cached_tokens: int


class Usage(_Response, frozen=True, kw_only=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class TopLogprob(_Response, frozen=True, kw_only=True):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(_Response, frozen=True, kw_only=True):
    """`top_logprobs` is always there, as OpenAI's types want it; Ollama leaves an empty one out."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(_Response, frozen=True, kw_only=True):
    content: list[TokenLogprob]


class CallFunction(_Response, frozen=True, kw_only=True):
    name: str
    arguments: str


class FunctionCall(_Response, frozen=True, kw_only=True):
    id: str
    index: int
    type: str
    function: CallFunction


class ChatMessage(_Response, frozen=True, kw_only=True):
    role: str
    content: str
    reasoning: str = ""
    tool_calls: list[FunctionCall] | None = None


class ChatChoice(_Response, frozen=True, kw_only=True):
    index: int
    message: ChatMessage
    finish_reason: str | None
    logprobs: ChatLogprobs | None = None


class ChatCompletion(_Response, frozen=True, kw_only=True):
    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    debug_info: DebugInfo | None = msgspec.field(default=None, name="_debug_info")


class CompletionLogprobs(_Response, frozen=True, kw_only=True):
    """The legacy form: four lists side by side; `text_offset` counts characters in the choice's text."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class CompletionChoice(_Response, frozen=True, kw_only=True):
    text: str
    index: int
    finish_reason: str | None
    logprobs: CompletionLogprobs | None = None


class Completion(_Response, frozen=True, kw_only=True):
    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage
    debug_info: DebugInfo | None = msgspec.field(default=None, name="_debug_info")


class Model(_Response, frozen=True, kw_only=True):
    id: str
    object: str
    created: int
    owned_by: str


class ModelList(_Response, frozen=True, kw_only=True):
    object: str
    data: list[Model]
