"""The values that templates see: which Python values stand for which Go values, and what is not Python's.

| Python | Go |
|---|---|
| str, bool, int, float | string, bool, int, float64 |
| Byte | uint8 (what indexing a string gives) |
| bytes | []uint8 |
| list, tuple; GoList | []interface {}; a named slice type |
| dict; GoMap | map[string]interface {}; a named map type |
| GoStruct | a struct, or a pointer to one |
| Function | a function |
| None | a nil interface, as JSON's null |
| INVALID | no value at all: a missing key, what a pipeline makes of nil |

Templates reach into values only by keys, declared fields and declared methods, never by Python's attributes.
Printing is in `formatting`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal

import attrs

from olm.template.quoting import to_bytes

__all__ = [
    "INVALID",
    "NO_FIELD",
    "Byte",
    "Function",
    "FunctionError",
    "GoList",
    "GoMap",
    "GoStruct",
    "GoType",
    "Invalid",
    "NoField",
    "Parameter",
    "go_type_of",
    "is_true",
    "string_size",
    "text_of",
    "type_name",
]


class Invalid(enum.Enum):
    """The type of INVALID."""

    INVALID = "<no value>"


class NoField(enum.Enum):
    """The type of NO_FIELD."""

    NO_FIELD = enum.auto()


INVALID: Final = Invalid.INVALID
"""Go's invalid reflect.Value: prints as `<no value>`, and any field of it is INVALID again."""

NO_FIELD: Final = NoField.NO_FIELD
"""What `go_field` answers when the type has no such field."""

Parameter = Literal["any", "value", "string", "int", "float", "bool"]
"""What a function wants: `any` is Go's interface{} (INVALID comes as None), `value` its reflect.Value (INVALID stays)."""


class FunctionError(Exception):
    """What a function says against its arguments; the caller adds the place and raises a TemplateError."""


@attrs.frozen
class Function:
    """A function for templates, with what Go would read from its signature.

    Attributes:
        call: takes the values; raises FunctionError with the words that follow `error calling NAME: `.
        parameters: the fixed ones.
        rest: the kind of any further arguments; None when there may be none.
        type_name: its Go type, for errors about a function that is a value.
    """

    call: Callable[..., object]
    parameters: tuple[Parameter, ...] = ()
    rest: Parameter | None = None
    type_name: str = "func"


@attrs.frozen(eq=False)
class GoType:
    """A named type: make one for a kind of value, not one for each value.

    Attributes:
        name: with its package, `api.Message`.
        fields: of a struct, in the order in which they print.
        methods: by name; the value itself is the first argument, and is not among `parameters`.
        text: what Go's `String()` gives; None when there is none.
        json: what `json` prints: a value of dicts, lists, strings, numbers, booleans and None, or of values like this
            one; its order of keys is kept.
        zero: of a map: what a missing key gives under `missingkey=zero`.
        is_pointer: values are pointers to the struct.
    """

    name: str
    fields: tuple[str, ...] = ()
    methods: Mapping[str, Function] = attrs.Factory(dict)
    text: Callable[[object], str] | None = None
    json: Callable[[object], object] | None = None
    zero: object = None
    is_pointer: bool = False


class GoStruct:
    """A struct. `values` maps Go field names to values; a declared field that is absent is None.

    To wrap a value of olm lazily, derive from this and answer `go_field` from it.
    """

    __slots__ = ("go_type", "values")

    def __init__(self, go_type: GoType, values: Mapping[str, object]) -> None:
        self.go_type: Final = go_type
        self.values: Final = values

    def go_field(self, name: str) -> object:
        """Give the value of a field, or NO_FIELD."""
        found = self.values.get(name, NO_FIELD)
        return None if found is NO_FIELD and name in self.go_type.fields else found


class GoMap(dict[str, object]):
    """A map of a named type."""

    __slots__ = ("go_type",)

    def __init__(self, go_type: GoType, items: Mapping[str, object]) -> None:
        super().__init__(items)
        self.go_type: Final = go_type


class GoList(list[object]):
    """A slice of a named type."""

    __slots__ = ("go_type",)

    def __init__(self, go_type: GoType, items: Iterable[object]) -> None:
        super().__init__(items)
        self.go_type: Final = go_type


class Byte(int):
    """One byte of a string, Go's uint8."""

    __slots__ = ()


def go_type_of(value: object) -> GoType | None:
    """Give the named type of a value; None for Go's own types."""
    return value.go_type if isinstance(value, GoStruct | GoMap | GoList) else None


def text_of(value: object) -> str | None:
    """Give what the value's `String()` says; None when it has none."""
    go_type = go_type_of(value)
    return None if go_type is None or go_type.text is None else go_type.text(value)


_NAMES: Final[tuple[tuple[type | tuple[type, ...], str], ...]] = (
    (str, "string"),
    (bool, "bool"),
    (Byte, "uint8"),
    (int, "int"),
    (float, "float64"),
    (bytes, "[]uint8"),
    (dict, "map[string]interface {}"),
    ((list, tuple), "[]interface {}"),
)


def type_name(value: object) -> str:
    """Name the Go type of a value."""
    go_type = go_type_of(value)
    if go_type is not None:
        return f"*{go_type.name}" if go_type.is_pointer else go_type.name
    if isinstance(value, Function):
        return value.type_name
    for types, name in _NAMES:
        if isinstance(value, types):
            return name
    return "<nil>"


def is_true(value: object) -> bool:
    """Say whether `if` takes the value for true: not the zero of its type; a struct always is."""
    if isinstance(value, GoStruct | Function):
        return True
    return value is not INVALID and bool(value)


def string_size(text: str) -> int:
    """Give the length of a string as Go has it, in bytes."""
    return len(text) if text.isascii() else len(to_bytes(text))
