"""The fields of a tool's function as Go's marshalling of Ollama's structs gives them, for prompts that hold them as JSON.

`parameters` is always there, and `properties` in it is null when a client gave none (`api/types.go`, commit fb30760).
"""

from __future__ import annotations

from olm.chat.tools import Tool

__all__ = ["function_fields", "parameter_fields"]


def function_fields(tool: Tool) -> dict[str, object]:
    """List the fields of `function`; an empty description is left away."""
    fields = {**tool.function, "parameters": parameter_fields(tool)}
    if not fields.get("description"):
        fields.pop("description", None)
    return fields


def parameter_fields(tool: Tool) -> dict[str, object]:
    """List the fields of `parameters`, in Ollama's order."""
    found = tool.function.get("parameters")
    given = found if isinstance(found, dict) else {}
    ordered = {key: given[key] for key in ("type", "$defs", "items", "required") if key in given}
    ordered = {"type": "", **ordered, "properties": given.get("properties")}
    return {**ordered, **{key: value for key, value in given.items() if key not in ordered}}
