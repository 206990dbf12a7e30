"""Rules for calls in Gemma's syntax in llguidance's Lark: what `gemma_arguments` reads, held to the schemas of the tools.

Names stand in the order of their bytes, as prompts show them. Types, enumerations and required names are enforced, what
else a schema says about values is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from olm.chat.parsers.kit.gemma_calls import GemmaSyntax
from olm.chat.parsers.kit.lark import call_rules, literal, members, required_of
from olm.chat.renderers.kit.gemma_values import value_text
from olm.chat.tools import Tool

__all__ = ["gemma_lark"]

_MAX_DEPTH: Final = 16
"""Schemas that refer to themselves are not followed deeper: below that any value will do."""
_SCALARS: Final = {
    "integer": "call_integer",
    "number": "call_number",
    "boolean": '("true" | "false")',
    "null": '"null"',
    "string": "call_text",
}
# Text is cut at every `<`, so that the lexer never has to go back from what only looked like a delimiter.
_SHARED: Final = """call_text: {quote} (call_plain | call_angle)* {quote}
call_plain: /[^<]+/
call_angle: /<[^<{second}]/
call_integer: /-?(0|[1-9][0-9]*)/
call_number: /-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?/
call_value: call_text | call_number | "true" | "false" | "null" | call_list | call_object
call_list: "[" (call_value ("," call_value)*)? "]"
call_object: "{{" (call_key ":" call_value ("," call_key ":" call_value)*)? "}}"
call_key: /[A-Za-z_][A-Za-z0-9_]*/
"""


def gemma_lark(syntax: GemmaSyntax, tools: Sequence[Tool], parallel: bool) -> str:
    """Write the rules for a family (see `CallSyntax.lark`)."""
    rules = _Rules(syntax.quote)
    calls = [
        f"{literal(syntax.begin)} {literal('call:' + tool.name)} {rules.arguments(tool)}"
        f" {literal(syntax.end)}"
        for tool in tools
    ]
    shared = _SHARED.format(quote=literal(syntax.quote), second=syntax.quote[1])
    return call_rules(calls, parallel=parallel, extra=[*rules.extra, shared])


class _Rules:
    """Collects the rules of schemas."""

    def __init__(self, quote: str) -> None:
        self._quote = quote
        self.extra: list[str] = []

    def arguments(self, tool: Tool) -> str:
        """Write the object of a call's arguments; a tool that names none takes none."""
        return self._object({**tool.parameters, "properties": tool.properties}, 0)

    def _value(self, schema: object, depth: int) -> str:
        if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
            return "call_value"
        if "const" in schema:
            return literal(value_text(schema["const"], self._quote))
        for key in ("enum", "anyOf", "oneOf"):
            found = schema.get(key)
            if isinstance(found, list) and found:
                written = (
                    literal(value_text(item, self._quote))
                    if key == "enum"
                    else self._value(item, depth + 1)
                    for item in found
                )
                return "(" + " | ".join(written) + ")"
        kind = schema.get("type")
        kinds = kind if isinstance(kind, list) else [kind]
        return "(" + " | ".join(self._of_type(name, schema, depth) for name in kinds) + ")"

    def _of_type(self, kind: object, schema: Mapping[str, object], depth: int) -> str:
        if kind == "array":
            item = self._value(schema.get("items"), depth + 1)
            return f'"[" ({item} ("," {item})*)? "]"'
        if kind == "object":
            return self._object(schema, depth) if schema.get("properties") else "call_object"
        return _SCALARS.get(kind, "call_value") if isinstance(kind, str) else "call_value"

    def _object(self, schema: Mapping[str, object], depth: int) -> str:
        properties, needed = schema.get("properties"), required_of(schema)
        if not isinstance(properties, Mapping) or not properties:
            return '"{" "}"'
        names = sorted(properties)
        written = [
            f"{literal(name + ':')} {self._value(properties[name], depth + 1)}" for name in names
        ]
        return '"{" ' + members(self.extra, written, [n in needed for n in names], '","') + ' "}"'
