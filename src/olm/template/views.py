"""Messages, tool calls and tools as Go templates see them: fields with Go's names, printed as JSON where Ollama does.

What a client left out is Go's zero. Arguments are maps of float64s, as Go reads them from JSON, and print in the order of
their keys; schemas keep the order of Go's fields, with keywords behind them that Ollama drops (`template/template.go`,
`api/types.go`, commit fb30760). The parts of a tool are looked up when a template asks for them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from olm.chat.tools import Tool
from olm.chat.types import ChatMessage, ToolCall
from olm.template.ollama import json_text
from olm.template.values import NO_FIELD, GoList, GoMap, GoStruct, GoType

__all__ = ["message_view", "tools_view"]

_EXACT_DIGITS: Final = 15
"""Whole numbers of so many digits are the same as float64; longer ones stay what they are."""


def _list_text(value: object) -> str:
    assert isinstance(value, list), "the type is that of lists"
    return json_text(value) if value else "null"


def _types_text(value: object) -> str:
    assert isinstance(value, list), "the type is that of lists"
    return str(value[0]) if len(value) == 1 else f"[{' '.join(map(str, value))}]" if value else ""


_MESSAGE: Final = GoType(
    "template.templateMessage",
    ("Role", "Content", "Thinking", "Images", "ToolCalls", "ToolName", "ToolCallID"),
    is_pointer=True,
)
_CALL: Final = GoType("template.templateToolCall", ("ID", "Function"))
_CALL_FUNCTION: Final = GoType("template.templateToolCallFunction", ("Index", "Name", "Arguments"))
_CALL_ARGUMENTS: Final = GoType("template.templateArgs", text=json_text)
_TYPES: Final = GoType(
    "api.PropertyType",
    text=_types_text,
    json=lambda value: value[0] if isinstance(value, list) and len(value) == 1 else list(value),  # type: ignore[call-overload]  # a GoList
)
_TOOLS: Final = GoType("template.templateTools", text=_list_text)


class _Schema(GoStruct):
    """A part of a tool: an object of its JSON, under Go's names. `raw` is what it prints."""

    __slots__ = ("raw",)

    def __init__(self, go_type: GoType, raw: Mapping[str, object]) -> None:
        super().__init__(go_type, {})
        self.raw: Final = raw

    def go_field(self, name: str) -> object:
        if name not in self.go_type.fields:
            return NO_FIELD
        return _field(name, self.raw.get(_KEYS.get(name, name.lower())))


def _raw(value: object) -> object:
    assert isinstance(value, _Schema), "the types are those of schemas"
    return value.raw


def _schema_type(name: str, *fields: str) -> GoType:
    return GoType(name, fields, text=lambda value: json_text(value), json=_raw)


_KEYS: Final = {"AnyOf": "anyOf", "Defs": "$defs"}
_TOOL: Final = _schema_type("template.templateTool", "Type", "Items", "Function")
_FUNCTION: Final = _schema_type(
    "template.templateToolFunction", "Name", "Description", "Parameters"
)
_PARAMETERS: Final = _schema_type(
    "template.templateToolFunctionParameters", "Type", "Defs", "Items", "Required", "Properties"
)
_PROPERTY: Final = _schema_type(
    "api.ToolProperty", "AnyOf", "Type", "Items", "Description", "Enum", "Properties", "Required"
)
_PROPERTIES: Final = GoType(
    "template.templateProperties", text=json_text, zero=_Schema(_PROPERTY, {})
)


def message_view(message: ChatMessage) -> GoStruct:
    """Show a message as `.Messages` holds it."""
    return GoStruct(
        _MESSAGE,
        {
            "Role": message.role,
            "Content": message.content,
            "Thinking": message.thinking,
            "Images": message.images,
            "ToolCalls": [_call_view(call) for call in message.tool_calls],
            "ToolName": message.tool_name,
            "ToolCallID": message.tool_call_id,
        },
    )


def _call_view(call: ToolCall) -> GoStruct:
    arguments = GoMap(_CALL_ARGUMENTS, _arguments(call.arguments_json))
    function = {"Index": call.index, "Name": call.name, "Arguments": arguments}
    return GoStruct(_CALL, {"ID": call.id, "Function": GoStruct(_CALL_FUNCTION, function)})


def _arguments(text: str) -> dict[str, object]:
    """Read arguments; what is no object, which the API does not let in, is none."""
    try:
        value: object = json.loads(text, parse_int=_number)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _number(digits: str) -> float:
    return float(digits) if len(digits) <= _EXACT_DIGITS else int(digits)


def tools_view(tools: Sequence[Tool]) -> GoList:
    """Show tools as `.Tools`."""
    return GoList(_TOOLS, (_Schema(_TOOL, _marshalled(tool)) for tool in tools))


def _marshalled(tool: Tool) -> dict[str, object]:
    """Lay a tool out as Go marshals it: fields that are not optional are there even if the client left them out."""
    function, given = tool.function, tool.parameters
    properties = given.get("properties")
    is_map = isinstance(properties, dict)
    laid_out = function.get("parameters")
    parameters = {
        "type": "",
        **(laid_out if isinstance(laid_out, dict) else {}),
        "properties": None,
    }
    if is_map:
        assert isinstance(laid_out, dict), "it is what `given` is, in order"
        ordered = laid_out["properties"]
        assert isinstance(ordered, dict), "read_tools has laid it out"
        parameters["properties"] = {key: ordered[key] for key in sorted(ordered)}
    return {
        **tool.whole,
        "function": {"name": "", "description": "", **function, "parameters": parameters},
    }


def _field(name: str, value: object) -> object:
    """Give a member of a schema the type that templates expect of it; what the client got wrong is zero."""
    match name, value:
        case "Function", dict():
            return _Schema(_FUNCTION, value)
        case "Parameters", dict():
            return _Schema(_PARAMETERS, value)
        case "Properties", dict():
            return GoMap(_PROPERTIES, {key: _property(item) for key, item in value.items()})
        case "AnyOf", list():
            return [_property(item) for item in value]
        case "Type", str() | list():
            return GoList(_TYPES, [value] if isinstance(value, str) else value)
        case (("AnyOf" | "Enum" | "Required"), _):
            return value if isinstance(value, list) else []
        case "Type", _:
            return GoList(_TYPES, [])
        case (("Name" | "Description"), _):
            return value if isinstance(value, str) else ""
        case (("Properties"), _):
            return GoMap(_PROPERTIES, {})
        case _:
            return value


def _property(value: object) -> _Schema:
    return _Schema(_PROPERTY, value if isinstance(value, dict) else {})
