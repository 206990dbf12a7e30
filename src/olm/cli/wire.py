"""Typed looks into decoded JSON. What is absent, null or of another type reads as the empty value.

The server may be older, newer or Ollama's own; a client that shows what it can beats one that crashes on a field.
"""

from __future__ import annotations

__all__ = ["Json", "children", "integer", "mapping", "number", "text", "texts"]

Json = dict[str, object]


def text(data: Json, key: str) -> str:
    """The string at `key`, else the empty string."""
    value = data.get(key)
    return value if isinstance(value, str) else ""


def number(data: Json, key: str) -> float:
    """The number at `key`, else 0."""
    value = data.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def integer(data: Json, key: str) -> int:
    """The number at `key` as an integer, else 0."""
    value = data.get(key)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0


def mapping(data: Json, key: str) -> Json:
    """The object at `key`, else an empty one."""
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def children(data: Json, key: str) -> list[Json]:
    """The objects of the array at `key`; anything else in it is left out."""
    value = data.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def texts(data: Json, key: str) -> list[str]:
    """The strings of the array at `key`; anything else in it is left out."""
    value = data.get(key)
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
