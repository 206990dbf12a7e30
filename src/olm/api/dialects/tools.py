"""The tools of a request, the choice among them, and the calls in its messages. Pure.

Tools travel on as the client's own text, so that no schema keyword is lost; only their shape is checked here, as
Ollama's types would (`api/types.go`). `tool_choice` is OpenAI's and not in Ollama's native API.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs
import msgspec

from olm.api import schemas as wire
from olm.api.dialects.common import quoted
from olm.api.gojson import check_types, check_values
from olm.chat.types import ToolCall, ToolChoice
from olm.errors import InvalidRequest

__all__ = ["Tools", "only_tools", "read_tools", "tool_call", "tool_choice"]

_CHOICES: Final = '"auto", "none", "required", or {"type": "function", "function": {"name": "..."}}'
_NO_OBJECT: Final = "Value looks like object, but can't find closing '}' symbol"
"""What Ollama says of arguments that are no object (its JSON library's words, known to many clients)."""


@attrs.frozen
class Tools:
    """The tools of a request. `text` is their JSON array, empty for none; `names` in the client's order."""

    text: str = ""
    names: tuple[str, ...] = ()


def read_tools(raw: msgspec.Raw) -> Tools:
    """Check the field `tools`.

    Raises:
        InvalidRequest: a wrong shape, in Go's words, or a tool without a name.
    """
    # A raw field has not been decoded yet, so its bytes may still be no UTF-8; Go replaces those.
    text = bytes(raw).strip().decode("utf-8", "replace")
    if text in ("", "null", "[]"):
        return Tools()
    check_values(text.encode())
    try:
        tools = msgspec.json.decode(text, type=list[wire.Tool])
    except msgspec.ValidationError:
        found: object = msgspec.json.decode(text)
        check_types(found, list[wire.Tool], struct="ChatRequest", path=("tools",))
        raise InvalidRequest(
            "a tool must have a function with a name"
        ) from None  # a null in the list
    names = tuple(tool.function.name or "" if tool.function else "" for tool in tools)
    if not all(names):
        raise InvalidRequest("a tool must have a function with a name")
    return Tools(text, names)


def only_tools(tools: Tools, allowed: Sequence[str]) -> Tools:
    """Leave out the tools that may not be called, as if they had not been sent.

    Raises:
        InvalidRequest: one that may be called is not there.
    """
    unknown = next((name for name in allowed if name not in tools.names), None)
    if unknown is not None:
        raise InvalidRequest(f"tool_choice: {quoted(unknown)} is not among the tools")
    entries = msgspec.json.decode(tools.text or "[]", type=list[msgspec.Raw])
    wanted = frozenset(allowed)
    kept = [pair for pair in zip(tools.names, entries, strict=True) if pair[0] in wanted]
    if not kept:
        return Tools()
    text = msgspec.json.encode([entry for _, entry in kept]).decode()
    return Tools(text, tuple(name for name, _ in kept))


def tool_choice(value: object, tools: Tools) -> ToolChoice:
    """Read the field `tool_choice`; None is `auto`.

    Raises:
        InvalidRequest: none of the choices, or one that the tools do not allow.
    """
    match value:
        case None | "auto":
            return ToolChoice()
        case "none":
            return ToolChoice("none")
        case "required":
            if not tools.names:
                raise InvalidRequest('tool_choice "required" needs tools')
            return ToolChoice("required")
        case {"type": "function", "function": {"name": str(name)}}:
            if name not in tools.names:
                raise InvalidRequest(f"tool_choice: {quoted(name)} is not among the tools")
            return ToolChoice("required", name)
        case _:
            shown = quoted(value)
            raise InvalidRequest(f"invalid tool_choice: {shown} (must be {_CHOICES})")


def tool_call(call: wire.ToolCall) -> ToolCall:
    """Translate a call of an assistant's message.

    Raises:
        InvalidRequest: the arguments are no JSON object.
    """
    function = call.function or wire.ToolCallFunction()
    return ToolCall(
        name=function.name or "",
        arguments_json=_arguments(bytes(function.arguments).strip().decode("utf-8", "replace")),
        id=call.id or "",
        index=function.index or 0,
    )


def _arguments(text: str) -> str:
    """Arguments as the text of an object. OpenAI's form, a string that holds one, is taken too."""
    if text.startswith('"'):
        text = msgspec.json.decode(text, type=str).strip()
        if text.startswith("{"):
            try:
                msgspec.json.decode(text, type=msgspec.Raw)
            except ValueError:
                raise InvalidRequest(_NO_OBJECT) from None
    if text in ("", "null"):
        return "{}"
    if not text.startswith("{"):
        raise InvalidRequest(_NO_OBJECT)
    check_values(text.encode())
    return text
