"""What a request says about the form of its answer, as a constraint. Pure.

Ollama has `format` (`"json"` or a JSON schema). `structured_outputs` is vLLM's name (its `StructuredOutputsParams`), and
`grammar` llama-server's; both are olm's additions. Whether a schema or grammar is a good one, the worker says.
"""

from __future__ import annotations

import json
from typing import Final

import msgspec

from olm.api import schemas as wire
from olm.api.gojson import check_values
from olm.chat.types import Constraint
from olm.errors import InvalidRequest, OlmError

__all__ = ["constraint"]

_FORMS: Final = '"json", "regex", "choice", "lark", "gbnf", or "grammar"'
_ABSENT: Final = (b"", b"null", b'""')


def constraint(
    format_: msgspec.Raw, outputs: wire.StructuredOutputs | None, grammar: str | None
) -> Constraint | None:
    """Find the one constraint of a request, None when there is none.

    Args:
        format_: the field `format`.
        outputs: the field `structured_outputs`.
        grammar: the field `grammar`, in GBNF.

    Raises:
        OlmError: a `format` that is none, in Ollama's words and with its status, 500.
        InvalidRequest: more than one constraint, or a malformed one.
    """
    found = [
        wanted
        for wanted in (
            _format(format_),
            _structured(outputs) if outputs is not None else None,
            Constraint("gbnf", grammar) if grammar else None,
        )
        if wanted is not None
    ]
    if len(found) > 1:
        raise InvalidRequest("format, structured_outputs and grammar cannot be combined")
    return found[0] if found else None


def _format(raw: msgspec.Raw) -> Constraint | None:
    text = bytes(raw).strip()
    if text in _ABSENT:
        return None
    if text == b'"json"':
        return Constraint("json")
    if not text.startswith(b"{"):
        shown = json.dumps(text.decode("utf-8", "replace"), ensure_ascii=False)
        raise OlmError(
            f'invalid format: {shown}; expected "json" or a valid JSON Schema object', status=500
        )
    return _schema(text)


def _structured(outputs: wire.StructuredOutputs) -> Constraint:
    found = [
        wanted
        for wanted in (
            _json(outputs),
            Constraint("regex", outputs.regex) if outputs.regex else None,
            _choice(outputs.choice) if outputs.choice else None,
            Constraint("lark", outputs.lark) if outputs.lark else None,
            Constraint("gbnf", outputs.gbnf) if outputs.gbnf else None,
            _grammar(outputs.grammar) if outputs.grammar else None,
        )
        if wanted is not None
    ]
    if len(found) != 1:
        raise InvalidRequest(f"structured_outputs must have exactly one of {_FORMS}")
    return found[0]


def _json(outputs: wire.StructuredOutputs) -> Constraint | None:
    """`json` is a schema, as an object or as text; vLLM's `json_object` is any object."""
    text = bytes(outputs.json).strip()
    if text in _ABSENT:
        return Constraint("json") if outputs.json_object else None
    if text.startswith(b'"'):
        text = msgspec.json.decode(text.decode("utf-8", "replace"), type=str).strip().encode()
    if text.startswith(b"{"):
        try:
            msgspec.json.decode(text, type=msgspec.Raw)
        except ValueError as exc:
            raise InvalidRequest(f"structured_outputs.json is not JSON: {exc}") from None
        return _schema(text)
    raise InvalidRequest("structured_outputs.json must be a JSON schema, as an object or as text")


def _schema(text: bytes) -> Constraint:
    check_values(text)
    return Constraint("json_schema", text.decode("utf-8", "replace"))


def _choice(choices: list[str]) -> Constraint:
    if not all(choices):
        raise InvalidRequest("structured_outputs.choice must not have an empty text")
    return Constraint("choice", msgspec.json.encode(choices).decode())


def _grammar(text: str) -> Constraint:
    """`grammar` is either of two languages, as in vLLM; only GBNF writes its rules with `::=`."""
    lines = (line.split("#", 1)[0].split("//", 1)[0] for line in text.splitlines())
    return Constraint("gbnf" if any("::=" in line for line in lines) else "lark", text)
