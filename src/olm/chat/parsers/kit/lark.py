"""Writing the rules of tool calls in llguidance's Lark, for the `calls` of a `CallSyntax`. Pure text.

Names of JSON members and their order are those of the schema given, so a call is held to what its parser reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from olm.chat.jsontext import compact_json
from olm.chat.tools import Tool

__all__ = [
    "call_rules",
    "json_call",
    "json_object",
    "json_value",
    "literal",
    "members",
    "parameters_schema",
    "required_of",
    "section_rules",
    "text_choices",
]

_OPEN: Final = frozenset(
    {"additionalProperties", "patternProperties", "allOf", "anyOf", "oneOf", "$ref"}
)


def literal(text: str) -> str:
    """Write a string literal."""
    return json.dumps(text, ensure_ascii=False)


def json_value(schema: Mapping[str, object], root: Mapping[str, object] | None = None) -> str:
    """Write `%json` of a schema that stands somewhere in `root`, whose `$defs` it may refer to."""
    definitions = {
        key: value
        for key in ("$defs", "definitions")
        if (value := (root or {}).get(key)) is not None
    }
    return f"%json {compact_json({**definitions, **schema})}"


def parameters_schema(tool: Tool) -> dict[str, object]:
    """Return the schema of a tool's arguments: an object even if the client did not say so.

    Where it just lists properties, members of other names are ruled out: a model that invents some does not mean to.
    """
    is_plain = bool(tool.properties) and not _OPEN & tool.parameters.keys()
    closed = {"additionalProperties": False} if is_plain else {}
    return {**closed, **tool.parameters, "type": "object"}


def required_of(schema: Mapping[str, object]) -> frozenset[str]:
    """Name the members that a schema requires."""
    required = schema.get("required")
    names = required if isinstance(required, list) else []
    return frozenset(name for name in names if isinstance(name, str))


def text_choices(schema: Mapping[str, object]) -> list[str]:
    """List the texts of an `enum` that has nothing else; empty when there is no such."""
    choices = schema.get("enum")
    texts = choices if isinstance(choices, list) else []
    return texts if all(isinstance(text, str) for text in texts) else []


def json_object(members: Mapping[str, Mapping[str, object]], root: Mapping[str, object]) -> str:
    """Write `%json` of an object with just these members, in this order."""
    schema: dict[str, object] = {
        "type": "object",
        "properties": dict(members),
        "required": list(members),
        "additionalProperties": False,
    }
    return json_value(schema, root)


def json_call(tool: Tool, *, name: str = "name", arguments: str = "arguments") -> str:
    """Write `%json` of a call as an object of a name and arguments."""
    members: dict[str, dict[str, object]] = {
        name: {"const": tool.name},
        arguments: parameters_schema(tool),
    }
    return json_object(members, tool.parameters)


def call_rules(
    calls: Sequence[str], *, parallel: bool, between: str = "", extra: Sequence[str] = ()
) -> str:
    """Write the rule `calls`: one of the calls, or with `parallel` several, with `between` between them.

    Args:
        calls: one right-hand side a tool, from its first marker to its last.
        extra: more rules, whose names begin with `call_`.
    """
    more = f" ({between} call_any)*" if parallel else ""
    rules = [f"call_{number}: {call}" for number, call in enumerate(calls)]
    names = " | ".join(f"call_{number}" for number in range(len(calls)))
    return "\n".join([f"calls: call_any{more}", f"call_any: {names}", *rules, *extra]) + "\n"


def section_rules(
    begin: str,
    calls: Sequence[str],
    end: str,
    *,
    parallel: bool,
    between: str = "",
    extra: Sequence[str] = (),
) -> str:
    """Do as `call_rules` for calls that stand in one section; `begin` and `end` are expressions, too."""
    listed = call_rules(calls, parallel=parallel, between=between, extra=extra)
    return f"calls: {begin} call_list {end}\ncall_list{listed.removeprefix('calls')}"


def _new_rule(rules: list[str], body: str) -> str:
    """Add a rule to `rules` and return its name."""
    name = f"call_part_{len(rules)}"
    rules.append(f"{name}: {body}")
    return name


def members(
    rules: list[str], written: Sequence[str], needed: Sequence[bool], between: str = ""
) -> str:
    """Write arguments that are not JSON one after the other, those not `needed` optional. Costs rules linear in their number.

    Args:
        rules: takes the rules that are made.
        written: the members as right-hand sides.
        between: an expression that stands between two members; empty when nothing does.
    """
    if not written:
        return '""'
    names = [_new_rule(rules, member) for member in written]
    if not between:
        pairs = zip(names, needed, strict=True)
        return " ".join(name if is_needed else f"{name}?" for name, is_needed in pairs)
    tails = [""]
    for name, is_needed in zip(names[:0:-1], needed[:0:-1], strict=True):
        here = f"{between} {name}" if is_needed else f"({between} {name})?"
        tails.append(_new_rule(rules, f"{here} {tails[-1]}"))
    tails.reverse()
    firsts: list[str] = []
    for name, is_needed, tail in zip(names, needed, tails, strict=True):
        firsts.append(f"{name} {tail}")
        if is_needed:
            return "(" + " | ".join(firsts) + ")"
    return "(" + " | ".join(firsts) + ")?"
