"""Wire structs of Anthropic's Messages API, in the field order of its documents. Meanings are in `dialects.anthropic*`.

Requests: every field may be absent or `null`; unknown fields are ignored, so that newer clients work. The content of
messages, system texts and schemas is `object` here: it is either text or blocks, and is read by `dialects.anthropic_blocks`.
Answers: all fields are written, also those that are `null`, because the official client's types want them.
Source: Anthropic's Messages API of version 2023-06-01, as its Python client 2.12 has it; spec/ollama §2.7.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Raw

__all__ = [
    "Block",
    "CountRequest",
    "Format",
    "MessageDelta",
    "MessageDeltaEvent",
    "MessageResponse",
    "MessageStartEvent",
    "MessagesRequest",
    "OutputConfig",
    "Source",
    "TextBlock",
    "Thinking",
    "ThinkingBlock",
    "TokenCount",
    "Tool",
    "ToolChoice",
    "ToolUseBlock",
    "Usage",
]

Int = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    """Base of request structs: unknown fields are ignored, every field has a default."""


class Source(_Request, frozen=True, kw_only=True):
    """Where an image or a document comes from. `content` is text or blocks (documents only)."""

    type: str | None = None
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    content: object = None


class Block(_Request, frozen=True, kw_only=True):
    """A content block of any type, of a request. Which fields count is told by `type`.

    `source` is an object of images and documents and a text of search results, so it is read when the type is known.
    """

    type: str | None = None
    text: str | None = None
    source: object = None
    title: str | None = None
    id: str | None = None
    name: str | None = None
    input: object = None
    tool_use_id: str | None = None
    content: object = None
    is_error: bool | None = None
    thinking: str | None = None


class Message(_Request, frozen=True, kw_only=True):
    role: str | None = None
    content: object = None


class Tool(_Request, frozen=True, kw_only=True):
    type: str | None = None
    name: str | None = None
    description: str | None = None
    input_schema: dict[str, object] | None = None


class ToolChoice(_Request, frozen=True, kw_only=True):
    type: str | None = None
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(_Request, frozen=True, kw_only=True):
    type: str | None = None
    budget_tokens: Int | None = None


class Format(_Request, frozen=True, kw_only=True):
    type: str | None = None
    schema: dict[str, object] | None = None


class OutputConfig(_Request, frozen=True, kw_only=True):
    effort: str | None = None
    format: Format | None = None


class CountRequest(_Request, frozen=True, kw_only=True):
    """`/v1/messages/count_tokens`: what has a part in the prompt."""

    model: str | None = None
    messages: list[Message] | None = None
    system: object = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: Format | None = None


class MessagesRequest(CountRequest, frozen=True, kw_only=True):
    """`/v1/messages`."""

    max_tokens: Int | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Int | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens. The three kinds of input add up to the prompt; olm writes nothing to a cache that is charged for."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    output_tokens: int = 0


class TextBlock(msgspec.Struct, frozen=True, tag="text"):
    text: str


class ThinkingBlock(msgspec.Struct, frozen=True, tag="thinking"):
    thinking: str
    signature: str


class ToolUseBlock(msgspec.Struct, frozen=True, tag="tool_use"):
    id: str
    name: str
    input: Raw


class MessageResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A whole message, and the empty one at the beginning of a stream."""

    id: str
    type: str = "message"
    role: str = "assistant"
    model: str
    content: list[TextBlock | ThinkingBlock | ToolUseBlock]
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Usage


class MessageStartEvent(msgspec.Struct, frozen=True, tag="message_start"):
    message: MessageResponse


class MessageDelta(msgspec.Struct, frozen=True):
    stop_reason: str
    stop_sequence: str | None


class MessageDeltaEvent(msgspec.Struct, frozen=True, tag="message_delta"):
    delta: MessageDelta
    usage: Usage


class TokenCount(msgspec.Struct, frozen=True):
    input_tokens: int
