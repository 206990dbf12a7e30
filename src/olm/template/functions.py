"""The functions that every template has (Go 1.26, text/template/funcs.go). `and` and `or` are here by name only: they skip
arguments, so `closures` runs them itself; `call` too, since its errors name its argument.

Functions that write text take a limit, so that a template cannot fill the memory with one string.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from olm.template import comparing
from olm.template.escaping import html_text, js_text, query_text
from olm.template.formatting import go_print, go_printf, go_println, shown
from olm.template.quoting import from_bytes, to_bytes
from olm.template.values import (
    INVALID,
    Byte,
    Function,
    FunctionError,
    GoList,
    GoMap,
    GoStruct,
    is_true,
    string_size,
    type_name,
)

__all__ = ["builtins", "run_elsewhere"]


def builtins(limit: int) -> Mapping[str, Function]:
    """Give the functions by name. `limit` is the longest text that one call may make, in characters."""

    def escaper(escape: Callable[[str], str]) -> Function:
        return Function(lambda *args: escape(go_print([*map(_something, args)], limit)), rest="any")

    def printer(write: Callable[[Sequence[object], int], str]) -> Function:
        return Function(lambda *args: write(args, limit), rest="any")

    return {
        "and": Function(run_elsewhere, ("value",), "value"),
        "or": Function(run_elsewhere, ("value",), "value"),
        "call": Function(run_elsewhere, ("value",), "value"),
        "not": Function(lambda value: not is_true(value), ("value",)),
        "len": Function(_length, ("value",)),
        "index": Function(_index, ("value",), "value"),
        "slice": Function(_slice, ("value",), "value"),
        "print": printer(go_print),
        "println": printer(go_println),
        "printf": Function(lambda text, *args: go_printf(text, args, limit), ("string",), "any"),
        "html": escaper(html_text),
        "js": escaper(js_text),
        "urlquery": escaper(query_text),
        "eq": Function(comparing.eq, ("value",), "value"),
        "ne": Function(comparing.ne, ("value", "value")),
        "lt": Function(comparing.lt, ("value", "value")),
        "le": Function(comparing.le, ("value", "value")),
        "gt": Function(comparing.gt, ("value", "value")),
        "ge": Function(comparing.ge, ("value", "value")),
    }


def run_elsewhere(*_args: object) -> NoReturn:
    """Stand for a function that `closures` runs itself; never called."""
    raise AssertionError("closures.py runs this function itself")


def _something(value: object) -> object:
    # Where text is escaped, nil and pointers print as they do in an action.
    return shown(value) if value is None or isinstance(value, GoStruct) else value


def _length(item: object) -> int:
    if item is INVALID:
        raise FunctionError("reflect: call of reflect.Value.Type on zero Value")
    if item is None:
        raise FunctionError("len of nil pointer")
    if isinstance(item, str):
        return string_size(item)
    if isinstance(item, list | tuple | dict | bytes):
        return len(item)
    raise FunctionError(f"len of type {type_name(item)}")


def _offset(index: object, size: int) -> int:
    if index is INVALID or index is None:
        raise FunctionError("cannot index slice/array with nil")
    if not isinstance(index, int) or isinstance(index, bool):
        raise FunctionError(f"cannot index slice/array with type {type_name(index)}")
    if not 0 <= index <= size:
        raise FunctionError(f"index out of range: {int(index)}")
    return index


def _index(item: object, *indexes: object) -> object:
    if item is INVALID or item is None:
        raise FunctionError("index of untyped nil")
    for index in indexes:
        item = _element(item, index)
    return item


def _element(item: object, index: object) -> object:
    if item is None:
        raise FunctionError("index of nil pointer")
    if isinstance(item, dict):
        if index is INVALID or index is None:
            raise FunctionError("value is nil; should be of type string")
        if not isinstance(index, str):
            raise FunctionError(f"value has type {type_name(index)}; should be string")
        return item.get(index, item.go_type.zero if isinstance(item, GoMap) else None)
    data = to_bytes(item) if isinstance(item, str) else item
    if not isinstance(data, list | tuple | bytes):
        raise FunctionError(f"can't index item of type {type_name(item)}")
    at = _offset(index, len(data))
    if at == len(data):
        # Go lets this one through and then panics in package reflect.
        kind = "string" if isinstance(item, str) else "slice"
        raise FunctionError(f"reflect: {kind} index out of range")
    found = data[at]
    return Byte(found) if isinstance(data, bytes) else found


def _slice(item: object, *indexes: object) -> object:
    if item is INVALID or item is None:
        raise FunctionError("slice of untyped nil")
    if len(indexes) > 3:
        raise FunctionError(f"too many slice indexes: {len(indexes)}")
    data = to_bytes(item) if isinstance(item, str) else item
    if len(indexes) == 3 and isinstance(item, str):
        raise FunctionError("cannot 3-index slice a string")
    if not isinstance(data, list | tuple | bytes):
        raise FunctionError(f"can't slice item of type {type_name(item)}")
    bounds = [_offset(index, len(data)) for index in indexes]
    start, end = (*bounds, *(0, len(data))[len(bounds) :])[:2]
    if start > end:
        raise FunctionError(f"invalid slice index: {start} > {end}")
    if len(bounds) == 3 and end > bounds[2]:
        raise FunctionError(f"invalid slice index: {end} > {bounds[2]}")
    part = data[start:end]
    if isinstance(item, GoList) and not isinstance(part, bytes):
        return GoList(item.go_type, part)
    return from_bytes(part) if isinstance(item, str) and isinstance(part, bytes) else part
