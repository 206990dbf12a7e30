"""Parameter schemas as Gemma 4's tool declarations write them: upper-case types, sorted names, few keywords.

Bytes are those of Ollama's `model/renderers/gemma4.go`, which follows the model's own template in nearly everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from olm.chat.renderers.kit.gemma_values import name_list, plain, value_text

__all__ = ["properties_text"]

_QUOTE: Final = '<|"|>'
_STANDARD: Final = frozenset({"description", "type", "properties", "required", "nullable"})


def properties_text(properties: Mapping[str, object], *, in_items: bool = False) -> str:
    """Write the schemas of named properties, sorted; `in_items`: below the `items` of an array.

    Outside of arrays a union of types becomes one string that looks like a Python list: the template of the model
    prints it so.
    """
    written = (
        f"{name}:{{{_property(schema, in_items=in_items)}}}"
        for name, schema in sorted(properties.items())
        if isinstance(schema, dict)
    )
    return ",".join(written)


def _property(schema: Mapping[str, object], *, in_items: bool) -> str:
    parts = []
    description = schema.get("description")
    if isinstance(description, str) and description:
        parts.append(f"description:{_QUOTE}{description}{_QUOTE}")
    types = _type_names(schema, in_items=in_items)
    first = types[0] if types else ""
    choices, items = schema.get("enum"), schema.get("items")
    if first == "STRING" and isinstance(choices, list) and choices:
        parts.append("enum:[" + ",".join(_QUOTE + _bare(c) + _QUOTE for c in choices) + "]")
    if first == "ARRAY" and isinstance(items, dict) and items:
        parts.append("items:{" + _items(items) + "}")
    if schema.get("nullable") is True:
        parts.append("nullable:true")
    if first == "OBJECT":
        parts += _object(schema, in_items=in_items)
    if types:
        parts.append("type:" + _types_text(types))
    return ",".join(parts)


def _object(schema: Mapping[str, object], *, in_items: bool) -> list[str]:
    own = schema.get("properties")
    if not isinstance(own, dict):
        # The template takes every keyword it does not know for a property; Ollama knows fewer of them outside of arrays.
        own = {
            key: value
            for key, value in schema.items()
            if key not in _STANDARD and (in_items or key == "items")
        }
    parts = ["properties:{" + properties_text(own, in_items=in_items) + "}"]
    if required := name_list(schema.get("required"), _QUOTE):
        parts.append("required:" + required)
    return parts


def _items(items: Mapping[str, object]) -> str:
    parts = []
    for key, value in sorted(items.items()):
        if value is None:
            continue
        if key == "properties":
            inner = properties_text(value, in_items=True) if isinstance(value, dict) else ""
            parts.append("properties:{" + inner + "}")
        elif key == "required":
            parts.append("required:" + (name_list(value, _QUOTE) or "[]"))
        elif key == "type":
            if types := _upper(value):
                parts.append("type:" + _types_text(types))
        else:
            parts.append(f"{key}:{value_text(value, _QUOTE, quote_keys=True)}")
    return ",".join(parts)


def _types_text(types: list[str]) -> str:
    return name_list(types, _QUOTE) if len(types) > 1 else _QUOTE + types[0] + _QUOTE


def _type_names(schema: Mapping[str, object], *, in_items: bool) -> list[str]:
    types = _upper(schema.get("type")) or ([] if in_items else _union(schema.get("anyOf")))
    if in_items or len(types) < 2:
        return types
    return ["[" + ", ".join(f"'{name}'" for name in types) + "]"]


def _upper(value: object) -> list[str]:
    if isinstance(value, str):
        return [value.upper()]
    found = value if isinstance(value, list) else []
    return [name.upper() for name in found if isinstance(name, str)]


def _union(branches: object) -> list[str]:
    """Name the types of an `anyOf` whose branches say nothing but their type; no other union can be written."""
    if not isinstance(branches, list):
        return []
    names: list[str] = []
    for branch in branches:
        if not isinstance(branch, dict) or set(branch) != {"type"}:
            return []
        names += _upper(branch["type"])
    return list(dict.fromkeys(names))


def _bare(value: object) -> str:
    return value if isinstance(value, str) else plain(value)
