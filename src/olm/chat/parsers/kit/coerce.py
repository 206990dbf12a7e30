"""Values of parameters that a model writes as bare text: which JSON value each is by its schema, at once or as it comes.

For families whose calls hold text between tags instead of JSON (qwen3-coder, glm, laguna, glimmer). The rules are those
of Ollama (`model/parsers/qwen3coder.go` parseValue; spec/ollama §10.1), which follow the reference parser of the model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from olm.chat.jsontext import compact_json

__all__ = ["StreamedArguments", "StreamedText", "allowed_types", "coerce", "coerce_json", "is_text"]

_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_INT64_END: Final = 2**63


def allowed_types(schema: Mapping[str, object] | None) -> frozenset[str]:
    """Name the JSON types that a schema allows: its `type`, or those of its `anyOf`. Empty when it does not say."""
    if schema is None:
        return frozenset()
    union = schema.get("anyOf")
    if isinstance(union, list) and union:
        members = [member for member in union if isinstance(member, dict)]
        return frozenset().union(*(_own_types(member) for member in members))
    return _own_types(schema)


def _own_types(schema: Mapping[str, object]) -> frozenset[str]:
    own = schema.get("type")
    names = own if isinstance(own, list) else [own]
    return frozenset(name for name in names if isinstance(name, str))


def is_text(schema: Mapping[str, object] | None) -> bool:
    """Say whether the value can only be text (or null), so that it may be streamed; an unknown schema is text, too."""
    return allowed_types(schema) <= {"string", "null"}


def coerce(raw: str, schema: Mapping[str, object] | None) -> object:
    """Read a parameter as the most special JSON value that its schema allows; what fits none stays a string.

    One newline at each end belongs to the tags. `null` in any case of letters is null whatever the schema says, and
    a parameter that can only be a boolean is false unless it says true: both as in Ollama.
    """
    text = _unwrapped(raw)
    if text.lower() == "null":
        return None
    types = allowed_types(schema)
    if "boolean" in types:
        if text.lower() in {"true", "false"}:
            return text.lower() == "true"
        if len(types) == 1:
            return False
    if types & {"integer", "number"}:
        number = _number(text, whole="number" not in types)
        if number is not None:
            return number
    if types & {"array", "object"}:
        found = _container(text, types)
        if found is not None:
            return found
    return text


def coerce_json(raw: str, schema: Mapping[str, object] | None) -> str:
    """Do as `coerce`, and write the value as compact JSON."""
    return compact_json(coerce(raw, schema))


def _unwrapped(raw: str) -> str:
    return raw.removeprefix("\n").removesuffix("\n")


def _number(text: str, *, whole: bool) -> int | float | None:
    """Read a number of 64 bits; one without a fraction becomes an integer, as the reference parser does."""
    if _INTEGER.fullmatch(text):
        # A wall of digits is no number of anybody's, and costs quadratic time to convert.
        value = int(text) if len(text) < 32 else _INT64_END
        if -_INT64_END <= value < _INT64_END:
            return value
    if whole or not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) < _INT64_END else number


def _container(text: str, types: frozenset[str]) -> object:
    try:
        value: object = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return None
    fits = (isinstance(value, list) and "array" in types) or (
        isinstance(value, dict) and "object" in types
    )
    return value if fits else None


class StreamedText:
    """Writes a text parameter as a JSON string while it comes: the parts add up to what `coerce_json` makes of the whole.

    The last newline is held back, and so is what may yet be `null`.
    """

    __slots__ = ("_held", "_is_started")

    def __init__(self) -> None:
        self._held = ""
        self._is_started = False

    def push(self, text: str) -> str:
        """Take more of the parameter; returns more of the JSON."""
        body, begun = self._held + text, ""
        if not self._is_started:
            inner = body.removeprefix("\n")
            if "null\n".startswith(inner.lower()):
                self._held = body
                return ""
            self._is_started, body, begun = True, inner, '"'
        self._held = "\n" if body.endswith("\n") else ""
        return begun + _escaped(body.removesuffix("\n"))

    def finish(self) -> str:
        """End the parameter; returns the rest of the JSON."""
        return '"' if self._is_started else coerce_json(self._held, None)


def _escaped(text: str) -> str:
    return compact_json(text)[1:-1]


class StreamedArguments:
    """Writes the arguments of a call as JSON while their parameters come as text, one after the other.

    Args:
        properties: the schemas of the parameters by name.
    """

    __slots__ = ("_parts", "_properties", "_schema", "_text", "has_any")

    def __init__(self, properties: Mapping[str, Mapping[str, object]]) -> None:
        self._properties = properties
        self.has_any = False
        """Whether a parameter has begun."""
        self._schema: Mapping[str, object] | None = None
        self._text: StreamedText | None = None
        self._parts: list[str] = []

    def start(self, key: str) -> str:
        """Begin a parameter; returns more of the JSON, as all methods do."""
        opening = "," if self.has_any else "{"
        self.has_any = True
        self._schema = self._properties.get(key)
        self._text = StreamedText() if is_text(self._schema) else None
        self._parts = []
        return f"{opening}{compact_json(key)}:"

    def push(self, text: str) -> str:
        """Take more of the parameter's text."""
        if self._text is not None:
            return self._text.push(text)
        self._parts.append(text)
        return ""

    def end(self) -> str:
        """End the parameter."""
        if self._text is not None:
            return self._text.finish()
        return coerce_json("".join(self._parts), self._schema)

    def finish(self) -> str:
        """End the arguments; without any the JSON is empty."""
        return "}" if self.has_any else ""
