"""Go's way with JSON where it differs from msgspec's: error texts, names without regard to case, lenient text.

`decode_slowly` is the second chance of `body.decode`: it reads the first JSON value of a body, checks it against a
wire struct as encoding/json would, and gives it back as JSON that msgspec takes. Pure.
Source: Go 1.24 `encoding/json` (`scanner.go`, `decode.go`).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from functools import cache
from typing import Final, TypeVar

import msgspec
from msgspec import inspect

from olm.errors import InvalidRequest

T = TypeVar("T")

__all__ = ["check_types", "check_values", "decode_slowly", "field_names", "syntax_error"]

MAX_DEPTH: Final = 128
"""Deepest JSON that is handed on as text (tools, schemas, arguments): real ones stay under 40."""

_SPACE: Final = " \t\r\n"
_LITERALS: Final = ("true", "false", "null")
_TOKENS: Final = re.compile(
    rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]|[eE]\+?[0-9]{3,}+|(?<![0-9])[0-9]{309,}+', re.DOTALL
)
_STRINGS_AND_BRACKETS: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_MAX_DIGITS: Final = 400


class _OutOfRange(ValueError):
    """A number that no float64 holds, or a constant that JSON does not have."""


def decode_slowly(body: bytes, kind: type[msgspec.Struct]) -> bytes:
    """Read, check and rewrite a body for a wire struct.

    Returns:
        JSON with exact field names, without nulls, with whole Unicode.

    Raises:
        InvalidRequest: in Go's words.
    """
    value = _parse(body.decode("utf-8", "replace"))
    if value is None:
        value = {}  # Go leaves the struct as it is
    struct = inspect.type_info(kind)
    assert isinstance(struct, inspect.StructType), "wire types are structs"
    return msgspec.json.encode(_Fitter(kind.__name__).fit(value, struct, ()))


@cache
def field_names(kind: type[msgspec.Struct]) -> frozenset[str]:
    """All field names of a wire struct and of those in it; Ollama's have no capitals."""
    found: set[str] = set()
    seen: set[type] = set()

    def walk(part: inspect.Type) -> None:
        match part:
            case inspect.StructType(cls=cls, fields=fields) if cls not in seen:
                seen.add(cls)
                for field in fields:
                    found.add(field.encode_name)
                    walk(field.type)
            case inspect.ListType(item_type=item) | inspect.DictType(value_type=item):
                walk(item)
            case inspect.UnionType(types=options):
                for option in options:
                    walk(option)

    walk(inspect.type_info(kind))
    return frozenset(found)


def check_types(value: object, kind: object, *, struct: str, path: tuple[str, ...]) -> None:
    """Check a decoded value against a wire type that stands at `path` of a request.

    Raises:
        InvalidRequest: in Go's words.
    """
    _Fitter(struct).fit(value, inspect.type_info(kind), path)


def check_values(raw: bytes) -> None:
    """Refuse JSON text that is nested deeper than `MAX_DEPTH` or has a number that no float64 holds.

    Raises:
        InvalidRequest: `exceeded max depth`, or Go's words for the number.
    """
    may_overflow = False
    depth = 0
    for match in _TOKENS.finditer(raw):
        first = match[0][:1]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise InvalidRequest("exceeded max depth")
        elif first in b"]}":
            depth -= 1
        elif first != b'"':
            may_overflow = True
    if may_overflow:
        _parse(raw.decode("utf-8", "replace"))


def _parse(text: str) -> object:
    decoder = json.JSONDecoder(parse_constant=_no_constant, parse_float=_number, parse_int=_number)
    start = len(text) - len(text.lstrip(_SPACE))
    try:
        # Go's Decoder reads one value; what follows it is left in the stream and never looked at.
        return decoder.raw_decode(text, start)[0]
    except RecursionError:
        raise InvalidRequest("exceeded max depth") from None
    except json.JSONDecodeError as exc:
        raise InvalidRequest(syntax_error(text, exc)) from None
    except _OutOfRange as exc:
        raise InvalidRequest(str(exc)) from None


def _no_constant(name: str) -> object:
    where = "in numeric literal" if name[0] == "-" else "looking for beginning of value"
    raise _OutOfRange(f"invalid character '{name.lstrip('-')[0]}' {where}")


def _number(literal: str) -> int | float:
    if literal.lstrip("-").isdigit() and len(literal) < _MAX_DIGITS:
        return int(literal)
    number = float(literal)
    if number in (float("inf"), float("-inf")):
        raise _OutOfRange(
            f"json: cannot unmarshal number {literal[:40]} into Go value of type float64"
        )
    return number


# --- syntax ---------------------------------------------------------------------------------------------------------


def syntax_error(text: str, exc: json.JSONDecodeError) -> str:
    """Say in the words of Go's scanner what Python's decoder met."""
    at = exc.pos
    if exc.msg.startswith("Unterminated string"):
        return "unexpected EOF"
    if exc.msg.startswith("Invalid \\u"):
        at = _first_non_hex(text, at)
        where = "in \\u hexadecimal character escape"
    elif exc.msg.startswith("Invalid \\escape"):
        at = at + 1 if text[at : at + 1] == "\\" else at
        where = "in string escape code"
    elif exc.msg.startswith("Invalid control"):
        where = "in string literal"
    else:
        while at < len(text) and text[at] in _SPACE:
            at += 1
        where = _where(text, at, exc.msg)
        at = _inside_literal(text, at) if "literal" in where else at
    if at >= len(text):
        return "unexpected EOF"
    return f"invalid character {_quote(text[at])} {where}"


def _where(text: str, at: int, message: str) -> str:
    number = re.search(r"-?\d*(\.\d*)?([eE][+-]?)?$", text[max(0, at - 40) : at])
    tail = number[0] if number else ""
    following = text[at : at + 1]
    if message.startswith("Expecting property name"):
        return "looking for beginning of object key string"
    if message.startswith("Expecting ':'"):
        return "after object key"
    if message.startswith("Expecting ','"):
        if following == "." and tail[-1:].isdigit():
            return "after decimal point in numeric literal"
        if following in ("e", "E") and tail[-1:].isdigit():
            return "in exponent of numeric literal"
        return f"after {_container(text, at)}"
    if following == "-":
        return "in numeric literal"
    for literal in _LITERALS:
        if following == literal[0]:
            same = _common(text[at:], literal)
            return f"in literal {literal} (expecting '{literal[same]}')"
    return "looking for beginning of value"


def _inside_literal(text: str, at: int) -> int:
    """Move on to the character that breaks a literal or a number."""
    if text[at : at + 1] in ("-", "."):
        return at + 1
    if text[at : at + 1] in ("e", "E"):
        return at + (2 if text[at + 1 : at + 2] in ("+", "-") else 1)
    for literal in _LITERALS:
        if text[at : at + 1] == literal[0]:
            return at + _common(text[at:], literal)
    return at


def _common(text: str, literal: str) -> int:
    n = 0
    while n < len(literal) - 1 and text[n : n + 1] == literal[n]:
        n += 1
    return n


def _first_non_hex(text: str, at: int) -> int:
    start = text.find("u", at) + 1
    while start < len(text) and text[start] in "0123456789abcdefABCDEF":
        start += 1
    return start


def _container(text: str, at: int) -> str:
    opened: list[str] = []
    for match in _STRINGS_AND_BRACKETS.finditer(text, 0, at):
        if match[0] in "[{":
            opened.append(match[0])
        elif match[0] in "]}" and opened:
            opened.pop()
    return "array element" if opened and opened[-1] == "[" else "object key:value pair"


def _quote(char: str) -> str:
    """Go's quoteChar: the first byte, quoted as a rune."""
    byte = chr(char.encode("utf-8", "replace")[0])
    special = {"'": "\\'", '"': '"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}
    if byte in special:
        return f"'{special[byte]}'"
    if byte < " " or byte == "\x7f":
        return f"'\\x{ord(byte):02x}'"
    return f"'{byte}'"


# --- types ----------------------------------------------------------------------------------------------------------


class _Fitter:
    """Checks a parsed value against a msgspec type and names what does not fit as Go does."""

    def __init__(self, struct: str) -> None:
        self._struct = struct

    def fit(self, value: object, kind: inspect.Type, path: tuple[str, ...]) -> object:
        """Return the value as msgspec wants it. Raises InvalidRequest."""
        kind = _unwrap(kind)
        match kind:
            case inspect.StructType():
                return self._fit_struct(value, kind, path)
            case inspect.ListType(item_type=item):
                items: list[object] = self._expect(value, list, kind, path)
                return [self._fit_item(entry, item, path) for entry in items]
            case inspect.DictType(value_type=item):
                pairs: dict[str, object] = self._expect(value, dict, kind, path)
                return {
                    _whole(key): self._fit_item(entry, item, path) for key, entry in pairs.items()
                }
            case inspect.StrType():
                return _whole(self._expect(value, str, kind, path))
            case inspect.BytesType():
                return _checked_base64(self._expect(value, str, kind, path))
            case inspect.BoolType():
                return self._expect(value, bool, kind, path)
            case inspect.IntType(ge=low, le=high):
                inside = isinstance(value, int) and (low or value) <= value <= (high or value)
                if isinstance(value, bool) or not inside:
                    raise self._mismatch(value, kind, path, literal=True)
                return value
            case inspect.FloatType():
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise self._mismatch(value, kind, path)
                return value
            case _:
                return _whole_tree(value)

    def _fit_struct(
        self, value: object, kind: inspect.StructType, path: tuple[str, ...]
    ) -> dict[str, object]:
        pairs: dict[str, object] = self._expect(value, dict, kind, path)
        exact = {field.encode_name: field for field in kind.fields}
        folded = {name.casefold(): field for name, field in exact.items()}
        fitted: dict[str, object] = {}
        for key, entry in pairs.items():
            field = exact.get(key) or folded.get(key.casefold())
            if field is None or entry is None:
                continue
            name = field.encode_name
            fitted[name] = self.fit(entry, field.type, (*path, name))
        return fitted

    def _fit_item(self, value: object, kind: inspect.Type, path: tuple[str, ...]) -> object:
        """Fit an element; Go turns a null into the zero value."""
        if value is not None:
            return self.fit(value, kind, path)
        match _unwrap(kind):
            case inspect.StrType() | inspect.BytesType():
                return ""
            case inspect.StructType():
                return {}
            case inspect.IntType() | inspect.FloatType():
                return 0
            case _:
                return None

    def _expect(
        self, value: object, python: type[T], kind: inspect.Type, path: tuple[str, ...]
    ) -> T:
        if isinstance(value, python):
            return value
        raise self._mismatch(value, kind, path)

    def _mismatch(
        self, value: object, kind: inspect.Type, path: tuple[str, ...], *, literal: bool = False
    ) -> InvalidRequest:
        found = _found(value)
        if literal and found == "number":
            found = f"number {value}"
        if not path:
            return InvalidRequest(
                f"json: cannot unmarshal {found} into Go value of type api.{self._struct}"
            )
        where = f"Go struct field {self._struct}.{'.'.join(path)}"
        return InvalidRequest(
            f"json: cannot unmarshal {found} into {where} of type {_go_type(kind)}"
        )


def _unwrap(kind: inspect.Type) -> inspect.Type:
    """The type behind `X | None`."""
    if isinstance(kind, inspect.UnionType):
        rest = [option for option in kind.types if not isinstance(option, inspect.NoneType)]
        assert len(rest) == 1, "wire fields are one type or None"
        return rest[0]
    return kind


def _found(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _go_type(kind: inspect.Type) -> str:
    kind = _unwrap(kind)
    match kind:
        case inspect.StrType():
            return "string"
        case inspect.BoolType():
            return "bool"
        case inspect.IntType():
            return "int"
        case inspect.FloatType():
            return "float64"
        case inspect.BytesType():
            return "api.ImageData"
        case inspect.ListType(item_type=item):
            return f"[]{_go_type(item)}"
        case inspect.DictType(value_type=item):
            return f"map[string]{_go_type(item)}"
        case inspect.StructType():
            return f"api.{kind.cls.__name__}"
        case _:
            return "interface {}"


def _checked_base64(text: str) -> str:
    plain = text.replace("\n", "").replace("\r", "")
    try:
        base64.b64decode(plain, validate=True)
    except (binascii.Error, ValueError):
        bad = re.search(r"[^A-Za-z0-9+/]", plain.rstrip("="))
        at = bad.start() if bad else len(plain) // 4 * 4
        raise InvalidRequest(f"illegal base64 data at input byte {at}") from None
    return plain


def _whole(text: str) -> str:
    """Replace lone surrogates, which JSON can write but UTF-8 cannot, as Go does."""
    return _SURROGATE.sub("\ufffd", text) if _SURROGATE.search(text) else text


def _whole_tree(value: object) -> object:
    if isinstance(value, str):
        return _whole(value)
    if isinstance(value, list):
        return [_whole_tree(item) for item in value]
    if isinstance(value, dict):
        return {_whole(key): _whole_tree(item) for key, item in value.items()}
    return value
