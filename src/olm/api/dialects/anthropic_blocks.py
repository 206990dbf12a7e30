"""The messages of an Anthropic request as olm's: content blocks to texts, images, calls and results. Pure.

One message of theirs may become several of ours, because results of tools are blocks of a user's message there and
messages of their own here. Words and order of checks: spec/ollama §2.7. What Ollama ignores and olm reads (documents,
search results, `is_error`, images in `data:` URLs) follows Anthropic's documents.

System messages in the middle of a conversation, which Claude Code sends in every session, become a marked part of the
user's turn where they stand. Many templates refuse them (Ollama issue 17774), and moved to the front they would change
the beginning of the prompt, which is in the cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from olm.api import schemas_anthropic as wire
from olm.api.dialects.common import decoded_base64, go_type, json_object
from olm.api.gojson import check_types
from olm.chat.types import ChatMessage, ToolCall
from olm.errors import InvalidRequest

__all__ = ["read_messages"]

_BILLING: Final = "x-anthropic-billing-header:"
"""Claude Code begins its system prompt with such a block. Its check sum differs in every request, so that no prompt
would have a prefix in common with the one before; it means nothing to a model."""


def read_messages(system: object, messages: Iterable[wire.Message]) -> list[ChatMessage]:
    """Translate the field `system` and the conversation.

    Raises:
        InvalidRequest: a malformed block, or one that olm cannot give to a model.
    """
    found: list[ChatMessage] = []
    tool_names: dict[str, str] = {}
    _add_system(found, _system_text(system, "system"))
    for message in messages:
        role = (message.role or "").lower()
        if role == "system":
            _add_system(found, _system_text(message.content, "messages", "content"))
        elif isinstance(message.content, str):
            found.append(ChatMessage(role=role, content=message.content))
        else:
            reader = _MessageReader(tool_names)
            for block in _blocks(message.content, "messages", "content"):
                reader.read(block)
            # Templates want the results next to the calls they answer.
            found += reader.results
            found += reader.rest(role)
    return found


def _system_text(system: object, *path: str) -> str:
    """Read text, or text blocks that are put together; what else there is has no meaning here."""
    if system is None or isinstance(system, str):
        return system or ""
    return "".join(
        block.text
        for block in _blocks(system, *path)
        if block.type == "text" and block.text and not block.text.startswith(_BILLING)
    )


def _add_system(found: list[ChatMessage], text: str) -> None:
    """Add instructions: to the first message if that is still where we are, else to the user's turn."""
    if not text:
        return
    if not found:
        found.append(ChatMessage(role="system", content=text))
        return
    is_first = len(found) == 1 and found[0].role == "system"
    if not is_first:
        text = f"<system-reminder>\n{text}\n</system-reminder>"
        if found[-1].role != "user":
            found.append(ChatMessage(role="user", content=text))
            return
    content = f"{found[-1].content}\n\n{text}" if found[-1].content else text
    found[-1] = msgspec.structs.replace(found[-1], content=content)


class _MessageReader:
    """Gathers the blocks of one message. `tool_names` maps the ids of calls so far to the names of their tools."""

    def __init__(self, tool_names: dict[str, str]) -> None:
        self._tool_names = tool_names
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._images: list[bytes] = []
        self._calls: list[ToolCall] = []
        self.results: list[ChatMessage] = []

    def read(self, block: wire.Block) -> None:
        """Take one block; types that olm does not know are passed over, as Ollama does. Raises InvalidRequest."""
        match block.type:
            case "tool_use":
                self._calls.append(self._call(block))
            case "tool_result":
                self.results.append(self._result(block))
            case "thinking":
                self._thoughts.append(block.thinking or "")
            case "image":
                self._images.append(_image(block))
            case _:
                self._texts += _texts(block)

    def rest(self, role: str) -> list[ChatMessage]:
        """All but the results, as one message, or none when nothing is left."""
        message = ChatMessage(
            role=role,
            content="".join(self._texts),
            thinking="".join(self._thoughts),
            images=tuple(self._images),
            tool_calls=tuple(self._calls),
        )
        return [message] if message != ChatMessage(role=role) else []

    def _call(self, block: wire.Block) -> ToolCall:
        if block.id is None:
            raise InvalidRequest("tool_use block missing required 'id' field")
        if block.name is None:
            raise InvalidRequest("tool_use block missing required 'name' field")
        if not isinstance(block.input, dict | None):
            raise InvalidRequest("tool_use block's 'input' must be an object")
        arguments = json_object(block.input) or "{}"
        self._tool_names[block.id] = block.name
        return ToolCall(block.name, arguments, block.id, len(self._calls))

    def _result(self, block: wire.Block) -> ChatMessage:
        texts: list[str] = []
        images: list[bytes] = []
        if isinstance(block.content, str):
            texts.append(block.content)
        elif block.content is not None:
            for part in _blocks(block.content, "messages", "content", "content"):
                if part.type == "image":
                    images.append(_image(part))
                else:
                    texts += _texts(part)
        content = "".join(texts)
        # A model is told of a failure in words only: templates have no field for it.
        if block.is_error and not content.lower().startswith("error"):
            content = f"Error: {content}" if content else "Error"
        call_id = block.tool_use_id or ""
        return ChatMessage(
            role="tool",
            content=content,
            images=tuple(images),
            tool_name=self._tool_names.get(call_id, ""),
            tool_call_id=call_id,
        )


def _texts(block: wire.Block) -> Sequence[str]:
    """What a block has to say in words; nothing for those of an unknown type."""
    match block.type:
        case "text":
            return (block.text or "",)
        case "document":
            return (_titled(block.title, _document(_source(block))),)
        case "search_result":
            where = block.source if isinstance(block.source, str) else ""
            title = " ".join(part for part in (block.title, f"({where})" if where else "") if part)
            return (_titled(title, _plain(block.content)),)
        case _:
            return ()


def _titled(title: str | None, text: str) -> str:
    return f"{title}\n{text}\n\n" if title else f"{text}\n\n"


def _document(source: wire.Source) -> str:
    match source.type:
        case "text":
            return source.data or ""
        case "content":
            return _plain(source.content)
        case "base64":
            what = source.media_type or "an unknown type"
        case other:
            what = f"source type {other}"
    raise InvalidRequest(f"documents of {what} are not supported: send their text")


def _plain(content: object) -> str:
    """The text of content that is text, or blocks of it."""
    if content is None or isinstance(content, str):
        return content or ""
    blocks = _blocks(content, "messages", "content", "content")
    return "".join(block.text or "" for block in blocks if block.type == "text")


def _image(block: wire.Block) -> bytes:
    source = _source(block)
    data = source.data or ""
    if source.type == "url" and (source.url or "").startswith("data:"):
        head, _, data = (source.url or "").partition(",")
        if not head.endswith(";base64"):
            raise InvalidRequest("invalid image source: a data URL must be base64")
    elif source.type != "base64":
        raise InvalidRequest(
            f"invalid image source type: {source.type or ''}. Only base64 images are supported."
        )
    try:
        return decoded_base64(data)
    except ValueError as exc:
        raise InvalidRequest(f"invalid base64 image data: {exc}") from None


def _source(block: wire.Block) -> wire.Source:
    if not isinstance(block.source, dict):
        raise InvalidRequest(f"invalid {block.type} source")
    try:
        return msgspec.convert(block.source, wire.Source)
    except msgspec.ValidationError:
        check_types(
            block.source,
            wire.Source,
            struct="MessagesRequest",
            path=("messages", "content", "source"),
        )
        raise InvalidRequest(f"invalid {block.type} source") from None


def _blocks(content: object, *path: str) -> list[wire.Block]:
    """Read content that is not text. Raises InvalidRequest, for wrong types in Go's words."""
    if not isinstance(content, list):
        raise InvalidRequest(f"invalid message content type: {go_type(content)}")
    if not all(isinstance(block, dict) for block in content):
        raise InvalidRequest("invalid content block format")
    try:
        return msgspec.convert(content, list[wire.Block])
    except msgspec.ValidationError:
        check_types(content, list[wire.Block], struct="MessagesRequest", path=path)
        raise InvalidRequest("invalid content block format") from None
