"""Values and tool declarations in the syntax of Gemma's function calling, which is JSON without quoted keys.

Shared by `gemma4` and `functiongemma`, whose string delimiters differ. The other direction: `parsers.gemma_arguments`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from olm.chat.tools import Tool

__all__ = ["declaration", "name_list", "plain", "value_text"]


def value_text(value: object, quote: str, *, quote_keys: bool = False) -> str:
    """Write a JSON value: strings between `quote`, keys in order of their bytes."""
    if isinstance(value, str):
        return quote + value + quote
    if isinstance(value, Mapping):
        mark = quote if quote_keys else ""
        members = (
            f"{mark}{key}{mark}:{value_text(value[key], quote, quote_keys=quote_keys)}"
            for key in sorted(value)
        )
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        items = (value_text(item, quote, quote_keys=quote_keys) for item in value)
        return "[" + ",".join(items) + "]"
    return plain(value)


def plain(value: object) -> str:
    """Write a scalar without quotes; whole numbers have no point."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return str(int(value))
    return str(value)


def name_list(names: object, quote: str) -> str:
    """Write the strings of a list, as `required` holds them; empty text when there are none."""
    found = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    return "[" + ",".join(quote + name + quote for name in found) + "]" if found else ""


def declaration(
    tool: Tool, quote: str, write_properties: Callable[[Mapping[str, object]], str]
) -> str:
    """Declare a function: name, description, and its parameters as far as it has some."""
    text = f"declaration:{tool.name}{{description:{quote}{tool.description}{quote}"
    properties, kind = tool.parameters.get("properties"), tool.parameters.get("type")
    if isinstance(properties, dict) or kind:
        parts = []
        if isinstance(properties, dict) and properties:
            parts.append("properties:{" + write_properties(properties) + "}")
        if required := name_list(tool.parameters.get("required"), quote):
            parts.append("required:" + required)
        if isinstance(kind, str) and kind:
            parts.append(f"type:{quote}{kind.upper()}{quote}")
        text += ",parameters:{" + ",".join(parts) + "}"
    return text + "}"
