"""The messages of OpenAI's chat as olm's: parts put together, pictures and sound decoded, roles and calls named. Pure.

Checks and words are Ollama's (spec/ollama §2.2, commit fb30760). It makes a message of each part; here the parts of a
message stay together, because templates want roles to take turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from olm.api import schemas_openai as wire
from olm.api.dialects.common import decoded_base64, go_type
from olm.api.dialects.tools import tool_call
from olm.api.schemas import ToolCall as WireToolCall
from olm.chat.types import ChatMessage, ToolCall
from olm.errors import InvalidRequest

__all__ = ["chat_messages"]

_ROLES: Final = {"developer": "system", "function": "tool"}
"""OpenAI's newer name of the system's role, and its older one of a tool's."""
_IMAGE_HEADS: Final = (
    "data:;base64,",
    *(f"data:image/{kind};base64," for kind in ("jpeg", "jpg", "png", "webp")),
)
_PLACE: Final = "[img]"
"""Where a picture stands in a text (`olm.chat.media`); without one it stands in front."""


def chat_messages(messages: Sequence[wire.Message]) -> list[ChatMessage]:
    """Translate all messages.

    Raises:
        InvalidRequest: in Ollama's words.
    """
    names: dict[str, str] = {}
    translated: list[ChatMessage] = []
    for message in messages:
        calls = _calls(message.tool_calls or ())
        names.update((call.id, call.name) for call in calls if call.id)
        translated.append(_message(message, calls, names))
    return translated


def _message(
    message: wire.Message, calls: tuple[ToolCall, ...], names: dict[str, str]
) -> ChatMessage:
    role = (message.role or "").lower()
    role = _ROLES.get(role, role)
    content, media = _content(message)
    call_id = message.tool_call_id or ""
    return ChatMessage(
        role=role,
        content=content,
        thinking=message.reasoning or message.reasoning_content or "",
        images=media,
        tool_calls=calls,
        tool_name=(message.name or names.get(call_id, "")) if role == "tool" else "",
        tool_call_id=call_id,
    )


def _calls(calls: Sequence[WireToolCall]) -> tuple[ToolCall, ...]:
    try:
        return tuple(tool_call(call) for call in calls)
    except InvalidRequest as exc:
        raise InvalidRequest("invalid tool call arguments", param="messages") from exc


def _content(message: wire.Message) -> tuple[str, tuple[bytes, ...]]:
    match message.content:
        case str(text):
            return text, ()
        case list(parts):
            return _joined([_part(part) for part in parts])
        case None if message.tool_calls is not None:
            return "", ()
        case other:
            raise InvalidRequest(
                f"invalid message content type: {go_type(other)}", param="messages"
            )


def _joined(parts: Sequence[str | bytes]) -> tuple[str, tuple[bytes, ...]]:
    """Put parts together. Pictures that stand before all text need no mark of their place."""
    media = tuple(part for part in parts if isinstance(part, bytes))
    lines = [part if isinstance(part, str) else _PLACE for part in parts]
    are_in_front = all(isinstance(part, bytes) for part in parts[: len(media)])
    return "\n".join(lines[len(media) :] if are_in_front else lines), media


def _part(part: object) -> str | bytes:
    match part:
        case {"type": "text", "text": str(text)} | {"type": "refusal", "refusal": str(text)}:
            return text
        case {"type": "image_url", "image_url": {"url": str(url)} | str(url)}:
            return _image(url)
        case {"type": "input_audio", "input_audio": {"data": str(data)}}:
            return _base64(data, "invalid audio input")
        case _:
            raise InvalidRequest("invalid message format", param="messages")


def _image(url: str) -> bytes:
    if url.startswith(("http://", "https://")):
        raise InvalidRequest(
            "image URLs are not currently supported, please use base64 encoded data instead",
            param="messages",
        )
    head = next((head for head in _IMAGE_HEADS if url.startswith(head)), None)
    if head is None:
        raise InvalidRequest("invalid image input", param="messages")
    return _base64(url[len(head) :], "invalid image input")


def _base64(text: str, refusal: str) -> bytes:
    try:
        return decoded_base64(text)
    except ValueError:
        raise InvalidRequest(refusal, param="messages") from None
