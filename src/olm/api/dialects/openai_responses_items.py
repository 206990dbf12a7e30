"""Items of the Responses API, as messages for a model, and as they are kept and told back. Pure.

An input is a text or a list of items: messages, function calls and their results, reasoning, references to items that
olm has kept. Checks and words are Ollama's where it has some (spec/ollama §2.5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from olm.api import schemas_openai
from olm.api import schemas_responses as wire
from olm.api.dialects.common import quoted
from olm.api.dialects.openai_chat_messages import chat_messages
from olm.api.gojson import check_values
from olm.api.response_store import Item
from olm.chat.types import ChatMessage, ToolCall
from olm.errors import InvalidRequest

__all__ = ["keep_items", "messages_of", "page", "read_input", "read_items"]

FindItem = Callable[[str], bytes | None]
"""Finds a kept item by its id."""
NewId = Callable[[str], str]
"""Makes an id that begins with a prefix."""

_TEXT_PARTS: Final = frozenset({"input_text", "output_text", "text", "summary_text"})
_IGNORED: Final = frozenset({"web_search_call"})
_PAGE: Final = 20
_MAX_PAGE: Final = 100
_PREFIXES: Final = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}


def read_input(raw: msgspec.Raw, find: FindItem) -> list[wire.InputItem]:
    """Read the field `input`; a text is one message of the user. References are replaced by what they stand for.

    Raises:
        InvalidRequest: with the place of what is wrong.
    """
    text = bytes(raw).strip()
    if text in (b"", b"null"):
        return []
    if text.startswith(b'"'):
        message = wire.InputItem(type="message", role="user", content=raw)
        return [message] if text != b'""' else []
    try:
        entries = msgspec.json.decode(text, type=list[msgspec.Raw])
    except msgspec.ValidationError:
        raise _refusal("input must be a string or array") from None
    return [_item(bytes(entry), index, find) for index, entry in enumerate(entries)]


def read_items(kept: Iterable[Item]) -> list[wire.InputItem]:
    """Read items that olm has kept."""
    return [msgspec.json.decode(item.json, type=wire.InputItem) for item in kept]


def keep_items(items: Sequence[wire.InputItem], new_id: NewId) -> list[Item]:
    """Items as they are kept: each with an id and a type, contents of messages as parts."""
    kept: list[Item] = []
    for item in items:
        kind = item.type or "message"
        item_id = item.id or new_id(_PREFIXES.get(kind, "item"))
        whole = msgspec.structs.replace(item, id=item_id, type=kind)
        if kind == "message":
            whole = msgspec.structs.replace(
                whole, status=item.status or "completed", content=_parts(item)
            )
        kept.append(Item(item_id, msgspec.json.encode(whole)))
    return kept


def messages_of(items: Sequence[wire.InputItem]) -> list[ChatMessage]:
    """Translate items: calls belong to the assistant's message before them, reasoning to the one after it.

    Raises:
        InvalidRequest: in Ollama's words.
    """
    conversation = _Conversation()
    for item in items:
        conversation.add(item)
    return conversation.ended()


def _refusal(message: str) -> InvalidRequest:
    return InvalidRequest(message, param="input")


def _item(raw: bytes, index: int, find: FindItem) -> wire.InputItem:
    try:
        item = msgspec.json.decode(raw, type=wire.InputItem)
    except ValueError as exc:
        raise _refusal(f"input[{index}]: {exc}") from None
    match item.type or ("message" if item.role else ""):
        case "item_reference":
            found = find(item.id or "")
            if found is None:
                raise _refusal(f"Item with id '{item.id}' not found.")
            return msgspec.json.decode(found, type=wire.InputItem)
        case "message" if not item.role:
            raise _refusal(f"input[{index}]: message missing required 'role' field")
        case "message" | "function_call" | "function_call_output" | "reasoning":
            return item
        case "":
            raise _refusal(f"input[{index}]: input item missing required 'type' field")
        case kind if kind in _IGNORED:
            return item
        case kind:
            raise _refusal(f"input[{index}]: unknown input item type: {quoted(kind)}")


class _Conversation:
    """Messages as they are put together from items."""

    def __init__(self) -> None:
        self._messages: list[ChatMessage] = []
        self._thinking = ""
        self._names: dict[str, str] = {}

    def add(self, item: wire.InputItem) -> None:
        match item.type:
            case "message" | None:
                self._message(item)
            case "function_call":
                self._call(item)
            case "function_call_output":
                name = self._names.get(item.call_id or "", "")
                self._messages.append(_chat_message("tool", item.output, name, item.call_id))
            case "reasoning":
                self._thinking = _reasoning(item)
            case _:
                return

    def ended(self) -> list[ChatMessage]:
        """All messages; reasoning that nothing followed is a message of its own."""
        if self._thinking:
            self._messages.append(self._assistant())
        return self._messages

    def _message(self, item: wire.InputItem) -> None:
        message = _chat_message(item.role or "", item.content)
        if message.role == "assistant":
            last = self._messages[-1] if self._messages else None
            if last is not None and last.tool_calls and not (self._thinking or message.images):
                # Text after calls: templates want results to follow the message that has the calls.
                whole = msgspec.structs.replace(last, content=last.content + message.content)
                self._messages[-1] = whole
                return
            if self._thinking:
                message = msgspec.structs.replace(message, thinking=self._take_thinking())
        self._messages.append(message)

    def _call(self, item: wire.InputItem) -> None:
        call = _tool_call(item)
        if call is None:
            return
        self._names[call.id] = call.name
        last = self._messages[-1] if self._messages else None
        if last is None or last.role != "assistant" or (self._thinking and last.thinking):
            last = self._assistant()
            self._messages.append(last)
        self._messages[-1] = msgspec.structs.replace(
            last,
            thinking=last.thinking or self._take_thinking(),
            tool_calls=(*last.tool_calls, call),
        )

    def _assistant(self) -> ChatMessage:
        return ChatMessage("assistant", thinking=self._take_thinking())

    def _take_thinking(self) -> str:
        thinking, self._thinking = self._thinking, ""
        return thinking


def _tool_call(item: wire.InputItem) -> ToolCall | None:
    """A call, None for one that broke off: its text, where it has some, is in a message."""
    arguments = (item.arguments or "").strip() or "{}"
    try:
        msgspec.json.decode(arguments, type=dict[str, msgspec.Raw])
        check_values(arguments.encode())
    except (ValueError, RecursionError):
        if item.status == "incomplete":
            return None
        raise _refusal("failed to parse function call arguments: not a JSON object") from None
    name = f"{item.namespace}.{item.name}" if item.namespace else item.name or ""
    return ToolCall(name, arguments, item.call_id or "")


def _reasoning(item: wire.InputItem) -> str:
    """The text of reasoning: in Ollama's place for it, in parts of content, or in the summary."""
    if item.encrypted_content:
        return item.encrypted_content
    for raw in (item.content, item.summary):
        parts = _decoded(raw)
        if isinstance(parts, list) and parts:
            texts = (part.get("text") for part in parts if isinstance(part, dict))
            return "".join(text for text in texts if isinstance(text, str))
    return ""


def _chat_message(
    role: str, content: msgspec.Raw, name: str = "", call_id: str | None = None
) -> ChatMessage:
    """Translate contents, by way of the chat API, which has the same under other names."""
    match _decoded(content):
        case None:
            parts: object = ""
        case list(given):
            parts = _joined_texts([_chat_part(part) for part in given])
        case str(text):
            parts = text
        case _:
            raise _refusal("content must be a string or array")
    message = schemas_openai.Message(role=role, content=parts, name=name, tool_call_id=call_id)
    try:
        return chat_messages([message])[0]
    except InvalidRequest as exc:
        raise _refusal(exc.message) from exc


def _chat_part(part: object) -> dict[str, object]:
    match part:
        case {"type": str(kind), "text": str(text)} if kind in _TEXT_PARTS:
            return {"type": "text", "text": text}
        case {"type": "refusal", "refusal": str(text)}:
            return {"type": "text", "text": text}
        case {"type": "input_image", "image_url": str() | dict() as url} if url:
            return {"type": "image_url", "image_url": url}
        case {"type": "input_image"}:
            raise _refusal("input_image needs an image_url: olm keeps no files")
        case {"type": "input_audio", "input_audio": audio}:
            return {"type": "input_audio", "input_audio": audio}
        case {"type": "input_file"}:
            raise _refusal("file inputs are not currently supported")
        case {"type": str(kind)}:
            raise _refusal(f"unknown content type: {kind[:200]}")
        case _:
            raise _refusal("content parts must be objects with a type")


def _joined_texts(parts: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """Put texts that follow each other together without a seam, as Ollama does here; the chat API breaks the line."""
    joined: list[dict[str, object]] = []
    for part in parts:
        if joined and part["type"] == joined[-1]["type"] == "text":
            joined[-1] = {"type": "text", "text": f"{joined[-1]['text']}{part['text']}"}
        else:
            joined.append(part)
    return joined


def _parts(item: wire.InputItem) -> msgspec.Raw:
    """Contents as a list of parts, which is the form they are told back in."""
    raw = bytes(item.content).strip()
    if raw.startswith(b'"'):
        kind = b"output_text" if item.role == "assistant" else b"input_text"
        return msgspec.Raw(b'[{"type":"%b","text":%b}]' % (kind, raw))
    return msgspec.Raw(raw if raw not in (b"", b"null") else b"[]")


def _decoded(raw: msgspec.Raw) -> object:
    """A raw value. Parts of pictures may be large, so nothing else is kept of it."""
    data = bytes(raw)
    try:
        return msgspec.json.decode(data) if data else None
    except (ValueError, RecursionError) as exc:
        raise _refusal(str(exc)) from None


def page(items: Sequence[Item], query: Mapping[str, str]) -> wire.InputItemList:
    """A page of items: `order` (the newest first unless `asc`), `after` (an item's id) and `limit`.

    Raises:
        InvalidRequest: a limit out of range, an order that is none, or an unknown item.
    """
    limit = query.get("limit", str(_PAGE))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= _MAX_PAGE):
        raise InvalidRequest(f"limit must be between 1 and {_MAX_PAGE}", param="limit")
    order, after = query.get("order", "desc"), query.get("after", "")
    if order not in ("asc", "desc"):
        raise InvalidRequest('order must be "asc" or "desc"', param="order")
    ordered = list(items) if order == "asc" else list(reversed(items))
    start = 0
    if after:
        places = [place for place, item in enumerate(ordered) if item.id == after]
        if not places:
            raise InvalidRequest(f"Item with id '{after}' not found.", param="after")
        start = places[-1] + 1
    shown = ordered[start : start + int(limit)]
    return wire.InputItemList(
        object="list",
        data=[msgspec.Raw(item.json) for item in shown],
        first_id=shown[0].id if shown else None,
        last_id=shown[-1].id if shown else None,
        has_more=start + len(shown) < len(ordered),
    )
