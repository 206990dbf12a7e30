"""The messages layer: a JSON array of a model's seeded history, in the API's own form. Both directions."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import msgspec

from olm.chat.types import ChatMessage, ToolCall
from olm.errors import CorruptStore

__all__ = ["decode_messages", "encode_messages"]


class _Function(msgspec.Struct, omit_defaults=True):
    name: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")
    index: int = 0


class _Call(msgspec.Struct, omit_defaults=True):
    function: _Function
    id: str | None = None


class _Message(msgspec.Struct, omit_defaults=True):
    role: str
    content: str | msgspec.UnsetType | None = msgspec.UNSET  # so that an empty one is written
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[_Call] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


def encode_messages(messages: Sequence[ChatMessage]) -> bytes:
    """Write the layer; a field that is empty is left out, `role` and `content` never are."""
    return msgspec.json.encode([_wire(message) for message in messages])


def _wire(message: ChatMessage) -> _Message:
    return _Message(
        role=message.role,
        content=message.content,
        thinking=message.thinking or None,
        images=[base64.b64encode(image).decode() for image in message.images] or None,
        tool_calls=[
            _Call(_Function(c.name, msgspec.Raw(c.arguments_json.encode()), c.index), c.id or None)
            for c in message.tool_calls
        ]
        or None,
        tool_name=message.tool_name or None,
        tool_call_id=message.tool_call_id or None,
    )


def decode_messages(data: bytes) -> tuple[ChatMessage, ...]:
    """Read the layer. Raises CorruptStore when it is damaged."""
    try:
        return tuple(_value(message) for message in msgspec.json.decode(data, type=list[_Message]))
    except (msgspec.MsgspecError, UnicodeDecodeError, binascii.Error, RecursionError) as exc:
        raise CorruptStore(f"a messages layer in the store is damaged: {exc}") from exc


def _value(message: _Message) -> ChatMessage:
    return ChatMessage(
        role=message.role,
        content=message.content or "",
        thinking=message.thinking or "",
        images=tuple(base64.b64decode(image, validate=True) for image in message.images or ()),
        tool_calls=tuple(
            ToolCall(
                call.function.name,
                bytes(call.function.arguments).decode(),
                call.id or "",
                call.function.index,
            )
            for call in message.tool_calls or ()
        ),
        tool_name=message.tool_name or "",
        tool_call_id=message.tool_call_id or "",
    )
