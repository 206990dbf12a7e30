"""Messages with their media marks in place, arguments of calls as values, fields of tools as Ollama's JSON has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from olm.chat.jsontext import go_json
from olm.chat.media import with_marks
from olm.chat.tools import Tool
from olm.chat.types import ChatMessage, ToolCall
from olm.errors import InvalidRequest

__all__ = [
    "arguments_of",
    "function_fields",
    "go_text",
    "marked",
    "parameter_fields",
    "text_or",
    "value_pairs",
]


def marked(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Copy a conversation with every picture and sound marked in the content of its message."""
    copies, first = [], 0
    for message in messages:
        if message.images:
            copies.append(msgspec.structs.replace(message, content=with_marks(message, first)))
            first += len(message.images)
        else:
            copies.append(message)
    return copies


def arguments_of(call: ToolCall) -> Mapping[str, object]:
    """Read the arguments of a call in a conversation, in their order.

    Go keeps numbers of unknown type as float64 and prints whole ones without a point, so `1.0` comes out as `1`.

    Raises:
        InvalidRequest: they are no JSON object.
    """
    try:
        arguments = msgspec.json.decode(call.arguments_json, type=dict[str, object])
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise InvalidRequest(
            f"the arguments of the call of {call.name} must be a JSON object: {exc}"
        ) from exc
    return {name: _as_go_prints(value) for name, value in arguments.items()}


def _as_go_prints(value: object) -> object:
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 1e21 else value
    if isinstance(value, dict):
        return {key: _as_go_prints(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_go_prints(item) for item in value]
    return value


def text_or(write: Callable[[object], str], value: object) -> str:
    """Write text bare and every other value by `write`."""
    return value if isinstance(value, str) else write(value)


def go_text(value: object) -> str:
    """Write a value as Go prints it: text bare, everything else as JSON."""
    return text_or(go_json, value)


def value_pairs(call: ToolCall, write: Callable[[object], str], line_end: str = "") -> str:
    """Write the arguments of a call as GLM and Laguna do: a tag for each key and one for its value."""
    return "".join(
        f"<arg_key>{key}</arg_key>{line_end}<arg_value>{text_or(write, value)}</arg_value>{line_end}"
        for key, value in arguments_of(call).items()
    )


def function_fields(tool: Tool) -> dict[str, object]:
    """List the fields of a tool's function as Go's marshalling of Ollama's structs gives them; no empty description.

    `parameters` is always there, and `properties` in it is null when a client gave none (`api/types.go`, commit fb30760).
    """
    fields = {**tool.function, "parameters": parameter_fields(tool)}
    if not fields.get("description"):
        fields.pop("description", None)
    return fields


def parameter_fields(tool: Tool) -> dict[str, object]:
    """List the fields of a tool's `parameters` so, in Ollama's order."""
    found = tool.function.get("parameters")
    given = found if isinstance(found, dict) else {}
    ordered = {key: given[key] for key in ("type", "$defs", "items", "required") if key in given}
    ordered = {"type": "", **ordered, "properties": given.get("properties")}
    return {**ordered, **{key: value for key, value in given.items() if key not in ordered}}
