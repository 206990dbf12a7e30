"""The functions that Ollama adds to templates (`template/template.go` and `api/types.go`, commit fb30760).

`json` is Go's json.Marshal: keys of maps sorted, fields of structs in their order, `<`, `>` and `&` escaped.
"""

from __future__ import annotations

import base64
import datetime as dt
import math
from collections.abc import Callable, Mapping
from typing import Final

from olm.chat.jsontext import go_json
from olm.template.numerals import exponent_text, shortest_digits
from olm.template.quoting import to_bytes
from olm.template.values import Function, FunctionError, GoStruct, go_type_of, type_name

__all__ = ["json_text", "ollama_functions"]

_TYPESCRIPT: Final = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
    "null": "null",
}
_PROPERTY: Final = "api.ToolProperty"


def _local_today() -> dt.date:
    return dt.datetime.now().astimezone().date()


def ollama_functions(today: Callable[[], dt.date] = _local_today) -> Mapping[str, Function]:
    """Give Ollama's functions by name. `today` is the local date; templates print it as YYYY-MM-DD, whatever they ask."""
    return {
        "json": Function(_json, ("any",)),
        "currentDate": Function(lambda *_: today().isoformat(), rest="string"),
        "yesterdayDate": Function(
            lambda *_: (today() - dt.timedelta(days=1)).isoformat(), rest="string"
        ),
        "toTypeScriptType": Function(_typescript, ("any",)),
    }


def _json(value: object) -> str:
    try:
        return json_text(value)
    except FunctionError:
        return ""  # Ollama drops the error


def json_text(value: object) -> str:
    """Write a template's value as Go's json.Marshal does. What a `GoType.json` gives keeps its order of keys.

    Raises:
        FunctionError: JSON has no such value, as an infinite number or a function.
    """
    return _text(value, is_sorted=True)


def _text(value: object, *, is_sorted: bool) -> str:
    go_type = go_type_of(value)
    if go_type is not None and go_type.json is not None:
        return _text(go_type.json(value), is_sorted=False)
    if isinstance(value, dict):
        keys = sorted(value) if is_sorted else value
        return _object({key: value[key] for key in keys}, is_sorted=is_sorted)
    if isinstance(value, GoStruct):
        return _object(
            {name: value.go_field(name) for name in value.go_type.fields}, is_sorted=is_sorted
        )
    if isinstance(value, list | tuple):
        return f"[{','.join(_text(item, is_sorted=is_sorted) for item in value)}]"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, bytes):
        return go_json(base64.b64encode(value).decode())
    if isinstance(value, str):
        return go_json(to_bytes(value).decode("utf-8", "replace"))
    if value is None or isinstance(value, bool):
        return go_json(value)
    if isinstance(value, int):
        return str(int(value))
    raise FunctionError(f"json: unsupported type: {type_name(value)}")


def _object(fields: Mapping[str, object], *, is_sorted: bool) -> str:
    items = (
        f"{_text(key, is_sorted=True)}:{_text(value, is_sorted=is_sorted)}"
        for key, value in fields.items()
    )
    return f"{{{','.join(items)}}}"


def _number(value: float) -> str:
    # As JavaScript does it: an exponent only below 1e-6 and from 1e21 on, without a leading zero.
    if not math.isfinite(value):
        raise FunctionError(f"json: unsupported value: {value}")
    sign = "-" if math.copysign(1.0, value) < 0 else ""
    digits, exponent = shortest_digits(abs(value))
    return sign + exponent_text(digits, exponent, least=-6, most=21).replace("e-0", "e-")


def _typescript(value: object) -> str:
    if not isinstance(value, GoStruct) or value.go_type.name != _PROPERTY:
        return "any"
    choices, types = value.go_field("AnyOf"), value.go_field("Type")
    if isinstance(choices, list | tuple) and choices:
        return " | ".join(map(_typescript, choices))
    if isinstance(types, list | tuple) and types:
        return " | ".join(_TYPESCRIPT.get(str(name), "any") for name in types)
    return "any"
