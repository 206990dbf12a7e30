"""`eq ne lt le gt ge` of templates (Go 1.26, text/template/funcs.go): no number is equal to one of another kind."""

from __future__ import annotations

from typing import Final

from olm.template.formatting import format_value
from olm.template.numerals import PLAIN
from olm.template.quoting import to_bytes
from olm.template.values import INVALID, Function, FunctionError, GoStruct, type_name

__all__ = ["eq", "ge", "gt", "le", "lt", "ne"]

_BAD_TYPE: Final = "invalid type for comparison"


def eq(first: object, *others: object) -> bool:
    """Say whether the first value equals any of the others.

    Raises:
        FunctionError: nothing to compare with, or types that cannot be compared.
    """
    if not others:
        raise FunctionError("missing argument for comparison")
    return any(_equal(first, other) for other in others)


def ne(first: object, second: object) -> bool:
    """Say whether two values differ. Raises as `eq`."""
    return not _equal(first, second)


def lt(first: object, second: object) -> bool:
    """Say whether the first number or string comes before the second.

    Raises:
        FunctionError: other types, or two different ones.
    """
    kinds = _kind(first), _kind(second)
    if "" in kinds:
        raise FunctionError(_BAD_TYPE)
    if kinds[0] != kinds[1]:
        raise FunctionError(_incompatible(first, second))
    if isinstance(first, str) and isinstance(second, str):
        return to_bytes(first) < to_bytes(second)
    if (
        kinds[0] == "bool"
        or not isinstance(first, int | float)
        or not isinstance(second, int | float)
    ):
        raise FunctionError(_BAD_TYPE)
    return first < second


def le(first: object, second: object) -> bool:
    """Say whether the first comes before the second or equals it. Raises as `lt`."""
    return lt(first, second) or _equal(first, second)


def gt(first: object, second: object) -> bool:
    """Say whether the first comes after the second. Raises as `lt`."""
    return not le(first, second)


def ge(first: object, second: object) -> bool:
    """Say whether the first does not come before the second. Raises as `lt`."""
    return not lt(first, second)


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "string"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    return "float" if isinstance(value, float) else ""


def _incompatible(first: object, second: object) -> str:
    return f"incompatible types for comparison: {type_name(first)} and {type_name(second)}"


def _shape(value: object) -> type:
    # What Go calls the kind of a value that is not basic.
    for kind in (dict, GoStruct, Function):
        if isinstance(value, kind):
            return kind
    return list


def _equal(first: object, second: object) -> bool:
    if type(first) is str and type(second) is str:
        return first == second
    first = None if first is INVALID else first
    second = None if second is INVALID else second
    kind = _kind(first)
    if kind != _kind(second):
        if first is None or second is None:
            return False
        raise FunctionError(_incompatible(first, second))
    if kind:
        return first == second
    if first is None or second is None:
        return first is second
    return _equal_shapes(first, second)


def _equal_shapes(first: object, second: object) -> bool:
    if _shape(first) is not _shape(second):
        raise FunctionError(
            f"non-comparable types {format_value(first, 's', PLAIN)}: {type_name(first)},"
            f" {type_name(second)}: {format_value(second, 'v', PLAIN)}"
        )
    if not isinstance(second, GoStruct):
        raise FunctionError(
            f"non-comparable type {format_value(second, 's', PLAIN)}: {type_name(second)}"
        )
    if not isinstance(first, GoStruct) or first.go_type is not second.go_type:
        return False
    if first.go_type.is_pointer:
        return first is second
    return all(_equal(first.go_field(name), second.go_field(name)) for name in first.go_type.fields)
