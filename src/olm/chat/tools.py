"""Tools as values: read once from a request's JSON, with every schema keyword kept, and laid out as templates expect.

The order of fields is Ollama's (`api/types.go`, commit fb30760); keywords that Ollama drops follow those it knows.
How a family writes tools into a prompt is its renderer's business.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import attrs
import msgspec

from olm.errors import InvalidRequest

__all__ = ["Tool", "laid_out", "read_tools"]

_TOOL: Final = ("type", "items", "function")
_FUNCTION: Final = ("name", "description", "parameters")
_PARAMETERS: Final = ("type", "$defs", "items", "required", "properties")
_PROPERTY: Final = ("anyOf", "type", "items", "description", "enum", "properties", "required")


@attrs.frozen
class Tool:
    """One function that the model may call.

    Attributes:
        parameters: its JSON schema, the client's own keys in the client's order; empty when there is none.
        whole: the tool as a JSON object in Ollama's order of fields, foreign keywords kept, what renderers print.
    """

    name: str
    description: str
    parameters: Mapping[str, object]
    whole: Mapping[str, object]

    @property
    def function(self) -> Mapping[str, object]:
        """The `function` object of `whole`."""
        function = self.whole["function"]
        assert isinstance(function, dict), "laid_out() made it"
        return function

    @property
    def properties(self) -> Mapping[str, Mapping[str, object]]:
        """The schemas of the parameters by name; those that are no objects are left away."""
        found = self.parameters.get("properties")
        if not isinstance(found, dict):
            return {}
        return {name: schema for name, schema in found.items() if isinstance(schema, dict)}


def read_tools(tools_json: str) -> tuple[Tool, ...]:
    """Read a JSON array of tools in OpenAI's form, which is Ollama's; empty text is no tools.

    Raises:
        InvalidRequest: no array of objects, or a tool without a function's name.
    """
    if not tools_json:
        return ()
    try:
        items = msgspec.json.decode(tools_json, type=list[dict[str, object]])
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise InvalidRequest(f"tools must be a list of JSON objects: {exc}") from exc
    return tuple(_tool(item) for item in items)


def _tool(item: Mapping[str, object]) -> Tool:
    function = item.get("function")
    if not isinstance(function, dict):
        raise InvalidRequest("a tool must have a function with a name")
    name, description = function.get("name"), function.get("description")
    if not isinstance(name, str) or not name:
        raise InvalidRequest("a tool must have a function with a name")
    parameters = function.get("parameters")
    return Tool(
        name=name,
        description=description if isinstance(description, str) else "",
        parameters=parameters if isinstance(parameters, dict) else {},
        whole=laid_out(item),
    )


def laid_out(item: Mapping[str, object]) -> dict[str, object]:
    """Order the fields of a tool as Ollama writes them, in and below `function`; everything else stays behind them."""
    tool = _ordered({"type": "function", **item}, _TOOL)
    function = tool["function"]
    assert isinstance(function, dict), "the caller has checked it"
    function = _ordered(function, _FUNCTION)
    parameters = function.get("parameters")
    if isinstance(parameters, dict):
        function["parameters"] = _parameters(parameters)
    tool["function"] = function
    return tool


def _parameters(schema: Mapping[str, object]) -> dict[str, object]:
    ordered = _ordered(schema, _PARAMETERS)
    properties = ordered.get("properties")
    if isinstance(properties, dict):
        ordered["properties"] = {name: _property(value) for name, value in properties.items()}
    return ordered


def _property(schema: object) -> object:
    return _ordered(schema, _PROPERTY) if isinstance(schema, dict) else schema


def _ordered(item: Mapping[str, object], first: Collection[str]) -> dict[str, object]:
    known = {key: item[key] for key in first if item.get(key) is not None}
    return {**known, **{key: value for key, value in item.items() if key not in first}}
