"""JSON as text in the spellings that prompts use: Go's, Python's and JavaScript's differ in blanks and escapes.

A model saw one of them in training, so a renderer must write exactly that one. Values keep their order of keys.
"""

from __future__ import annotations

import json

import msgspec

__all__ = ["compact_json", "go_json", "spaced_json"]

_GO_ESCAPES = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


def compact_json(value: object) -> str:
    """Write without blanks and without escaping what need not be: JavaScript's JSON.stringify, Jinja's tojson(separators)."""
    return msgspec.json.encode(value).decode()


def go_json(value: object) -> str:
    """Write as Go's json.Marshal does: compact, with `<`, `>` and `&` escaped."""
    return compact_json(value).translate(_GO_ESCAPES)


def spaced_json(value: object) -> str:
    """Write with a blank after colons and commas, as Python's json.dumps(ensure_ascii=False) and Jinja's tojson do."""
    return json.dumps(value, ensure_ascii=False)
