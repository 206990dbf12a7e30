"""Go's fmt for the values of `values`: `print`, `println`, `printf`, and what an action prints (Go 1.26, fmt/print.go).

Like Go's, these never fail over a wrong verb: the text says what was wrong, as in `%!d(string=x)`. What they do refuse is
a text longer than the caller allows. Digits are in `numerals`, quoted strings in `quoting`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from olm.template.numerals import PLAIN, Spec, float_text, integer_text, padded, rune_text
from olm.template.quoting import can_backquote, from_bytes, quote, to_bytes
from olm.template.values import (
    INVALID,
    Byte,
    Function,
    FunctionError,
    GoStruct,
    text_of,
    type_name,
)

__all__ = ["format_value", "go_print", "go_printf", "go_println", "shown"]

_MAX_NUMBER: Final = 1_000_000
"""The largest width, precision or argument number, Go's own bound."""
_FLAGS: Final = {"#": "sharp", "0": "zero", "+": "plus", "-": "minus", " ": "space"}
_PARTS: Final = re.compile(r"%([#0+\- ]*)")
_LITERAL: Final = re.compile(r"[^%]+")


def shown(value: object) -> str:
    """Give the text that an action prints: `%v`, but `<no value>` for nothing."""
    if type(value) is str:
        return value
    if value is INVALID or value is None:
        return "<no value>"
    if isinstance(value, GoStruct) and value.go_type.text is None:
        return _struct(
            value, "v", PLAIN, 0
        )  # an action looks through a pointer, so there is no `&`
    return format_value(value, "v", PLAIN)


def go_print(args: Sequence[object], limit: int) -> str:
    """Write like `fmt.Sprint`: a blank between two neighbours that are no strings. `limit` is in characters.

    Raises:
        FunctionError: the text is longer than `limit`.
    """
    out = _Output(limit)
    was_string = True
    for index, arg in enumerate(args):
        is_string = isinstance(arg, str)
        if index and not is_string and not was_string:
            out.write(" ")
        out.write(format_value(arg, "v", PLAIN))
        was_string = is_string
    return out.text()


def go_println(args: Sequence[object], limit: int) -> str:
    """Write like `fmt.Sprintln`: a blank between all arguments and a newline at the end. Raises as `go_print`."""
    out = _Output(limit)
    for index, arg in enumerate(args):
        text = format_value(arg, "v", PLAIN)
        out.write(f" {text}" if index else text)
    out.write("\n")
    return out.text()


def go_printf(text: str, args: Sequence[object], limit: int) -> str:
    """Write like `fmt.Sprintf`. Raises as `go_print`."""
    return _Formatter(text, args, limit).run()


class _Output:
    """Text that grows up to a limit, which is checked before anything is joined."""

    def __init__(self, limit: int) -> None:
        self.limit: Final = limit
        self.room = limit
        self._pieces: list[str] = []

    def write(self, text: str) -> None:
        self.need(len(text))
        self.room -= len(text)
        self._pieces.append(text)

    def need(self, n_chars: int) -> None:
        if n_chars > self.room:
            raise FunctionError(f"text is longer than {self.limit} bytes")

    def text(self) -> str:
        return "".join(self._pieces)


# Values


def format_value(value: object, verb: str, spec: Spec, *, depth: int = 0) -> str:
    """Write one value under one verb. `depth` is 0 for an argument itself, more inside lists, maps and structs."""
    if isinstance(value, str) and verb in "vs" and spec is PLAIN:
        return value
    if value is None or value is INVALID:
        return _nil(verb, spec, depth)
    if not depth and verb == "T":
        return padded(_cut(type_name(value), spec), spec)
    if verb in "vsxXq" and not spec.sharp_v:
        text = text_of(value)
        if text is not None:
            return _string(text, verb, spec) or ""
    written = _WRITERS[_kind(value)](value, verb, spec, depth)
    if written is None:
        return _bad_verb(value, verb, spec)
    is_pointer = not depth and isinstance(value, GoStruct) and value.go_type.is_pointer
    return f"&{written}" if is_pointer else written


def _nil(verb: str, spec: Spec, depth: int) -> str:
    if depth:
        return "interface {}(nil)" if spec.sharp_v else "<nil>"
    return padded("<nil>", spec) if verb in "vT" else f"%!{verb}(<nil>)"


def _bad_verb(value: object, verb: str, spec: Spec) -> str:
    kind = _kind(value)
    written = _WRITERS[kind](value, "v", spec, 0)
    return f"%!{verb}({type_name(value)}={written})"


def _kind(value: object) -> type:
    for kind in _WRITERS:
        if isinstance(value, kind):
            return kind
    raise TypeError(f"templates have no values of type {type(value).__name__}")


def _boolean(value: object, verb: str, spec: Spec, depth: int) -> str | None:
    return padded("true" if value else "false", spec) if verb in "tv" else None


def _integer(value: object, verb: str, spec: Spec, depth: int) -> str | None:
    assert isinstance(value, int), "the table of writers says so"
    if verb == "v":
        if spec.sharp_v and isinstance(value, Byte):
            return integer_text(value, "x", attrs.evolve(spec, sharp=True))
        verb = "d"
    text = integer_text(value, verb, spec)
    return rune_text(value, verb, spec) if text is None else text


def _float(value: object, verb: str, spec: Spec, depth: int) -> str | None:
    assert isinstance(value, float), "the table of writers says so"
    return float_text(value, verb, spec)


def _cut(text: str, spec: Spec) -> str:
    return text if spec.precision is None else text[: spec.precision]


def _string(value: object, verb: str, spec: Spec, depth: int = 0) -> str | None:
    assert isinstance(value, str), "the table of writers says so"
    if verb in "xX":
        return _hex_text(to_bytes(value), verb, spec)
    if verb == "q" or (verb == "v" and spec.sharp_v):
        return _quoted(value, spec)
    return padded(_cut(value, spec), spec) if verb in "sv" else None


def _quoted(text: str, spec: Spec) -> str:
    text = _cut(text, spec)
    if spec.sharp and can_backquote(text):
        return padded(f"`{text}`", spec)
    return padded(quote(text, ascii_only=spec.plus), spec)


def _hex_text(data: bytes, verb: str, spec: Spec) -> str:
    data = data if spec.precision is None else data[: spec.precision]
    prefix = "0x" if spec.sharp else ""
    digits = " ".join(f"{prefix}{byte:02x}" for byte in data) if spec.space else prefix + data.hex()
    return padded(digits.upper() if verb == "X" else digits, spec) if data else padded("", spec)


def _bytes(value: object, verb: str, spec: Spec, depth: int) -> str | None:
    assert isinstance(value, bytes), "the table of writers says so"
    if verb in "sq":
        return _string(from_bytes(value), verb, spec)
    if verb in "xX":
        return _hex_text(value, verb, spec)
    if verb == "v" and spec.sharp_v:
        name = "[]uint8" if depth else "[]byte"
        return f"{name}{{{', '.join(f'0x{byte:x}' for byte in value)}}}"
    return _list([Byte(byte) for byte in value], verb, spec, depth)


def _list(value: object, verb: str, spec: Spec, depth: int) -> str | None:
    assert isinstance(value, list | tuple), "the table of writers says so"
    items = [format_value(item, verb, spec, depth=depth + 1) for item in value]
    return f"{type_name(value)}{{{', '.join(items)}}}" if spec.sharp_v else f"[{' '.join(items)}]"


def _map(value: object, verb: str, spec: Spec, depth: int) -> str | None:
    assert isinstance(value, dict), "the table of writers says so"
    items = [
        f"{format_value(key, verb, spec, depth=depth + 1)}:{format_value(value[key], verb, spec, depth=depth + 1)}"
        for key in sorted(value)
    ]
    return (
        f"{type_name(value)}{{{', '.join(items)}}}" if spec.sharp_v else f"map[{' '.join(items)}]"
    )


def _struct(value: object, verb: str, spec: Spec, depth: int) -> str:
    assert isinstance(value, GoStruct), "the table of writers says so"
    named = spec.plus_v or spec.sharp_v
    items = [
        (f"{name}:" if named else "")
        + format_value(value.go_field(name), verb, spec, depth=depth + 1)
        for name in value.go_type.fields
    ]
    return (
        f"{value.go_type.name}{{{', '.join(items)}}}" if spec.sharp_v else f"{{{' '.join(items)}}}"
    )


def _function(value: object, verb: str, spec: Spec, depth: int) -> str | None:
    return "func" if verb == "v" else None


_WRITERS: Final[dict[type, Callable[[object, str, Spec, int], str | None]]] = {
    str: _string,
    bool: _boolean,
    int: _integer,
    float: _float,
    dict: _map,
    GoStruct: _struct,
    list: _list,
    tuple: _list,
    bytes: _bytes,
    Function: _function,
}


# Formats


class _Formatter:
    """Runs one format. `_next` is the argument that comes next, `_at` the place in the format."""

    def __init__(self, text: str, args: Sequence[object], limit: int) -> None:
        self._text = text
        self._args = args
        self._out = _Output(limit)
        self._at = 0
        self._next = 0
        self._reordered = False
        self._is_good_index = True

    def run(self) -> str:
        while self._at < len(self._text):
            literal = _LITERAL.match(self._text, self._at)
            if literal is not None:
                self._out.write(literal[0])
                self._at = literal.end()
            else:
                self._directive()
        if not self._reordered and self._next < len(self._args):
            extra = (self._described(arg) for arg in self._args[self._next :])
            self._out.write(f"%!(EXTRA {', '.join(extra)})")
        return self._out.text()

    def _described(self, arg: object) -> str:
        return "<nil>" if arg is None else f"{type_name(arg)}={format_value(arg, 'v', PLAIN)}"

    def _directive(self) -> None:
        flags = _PARTS.match(self._text, self._at)
        assert flags is not None, "the text goes on with a percent sign"
        self._at = flags.end()
        self._is_good_index = True
        spec = Spec(**dict.fromkeys(map(_FLAGS.__getitem__, flags[1]), True))
        has_index = self._index()
        spec, has_index = self._width(spec, has_index)
        spec, has_index = self._precision(spec, has_index)
        if not has_index:
            self._index()
        if self._at >= len(self._text):
            self._out.write("%!(NOVERB)")
            return
        verb = self._text[self._at]
        self._at += 1
        self._verb(verb, spec)

    def _verb(self, verb: str, spec: Spec) -> None:
        if verb == "%":
            self._out.write("%")
        elif not self._is_good_index:
            self._out.write(f"%!{verb}(BADINDEX)")
        elif self._next >= len(self._args):
            self._out.write(f"%!{verb}(MISSING)")
        else:
            if verb == "v":
                spec = attrs.evolve(
                    spec, sharp=False, plus=False, sharp_v=spec.sharp, plus_v=spec.plus
                )
            arg = self._args[self._next]
            self._out.need(((spec.width or 0) + (spec.precision or 0)) * _leaves(arg))
            self._out.write(format_value(arg, verb, PLAIN if spec == PLAIN else spec))
            self._next += 1

    def _width(self, spec: Spec, has_index: bool) -> tuple[Spec, bool]:
        if not self._text.startswith("*", self._at):
            width = self._number()
            self._is_good_index &= not (has_index and width is not None)
            return attrs.evolve(spec, width=width), has_index
        width = self._star("%!(BADWIDTH)")
        if width is not None and width < 0:
            return attrs.evolve(spec, width=-width, minus=True, zero=False), False
        return attrs.evolve(spec, width=width), False

    def _precision(self, spec: Spec, has_index: bool) -> tuple[Spec, bool]:
        if not (self._text.startswith(".", self._at) and self._at + 1 < len(self._text)):
            return spec, has_index
        self._at += 1
        self._is_good_index &= not has_index
        has_index = self._index()
        if not self._text.startswith("*", self._at):
            return attrs.evolve(spec, precision=self._number() or 0), has_index
        precision = self._star("%!(BADPREC)", least=0)
        return attrs.evolve(spec, precision=precision), False

    def _star(self, complaint: str, *, least: int = -_MAX_NUMBER) -> int | None:
        self._at += 1
        number = None
        if self._next < len(self._args):
            arg = self._args[self._next]
            self._next += 1
            number = int(arg) if isinstance(arg, int) and not isinstance(arg, bool) else None
        if number is None or not least <= number <= _MAX_NUMBER:
            self._out.write(complaint)
            return None
        return number

    def _number(self) -> int | None:
        # A number beyond Go's bound swallows the rest of the format, so that no verb is left.
        start = self._at
        number = 0
        while self._at < len(self._text) and "0" <= self._text[self._at] <= "9":
            if number > _MAX_NUMBER:
                self._at = len(self._text)
                return None
            number = number * 10 + int(self._text[self._at])
            self._at += 1
        return number if self._at > start else None

    def _index(self) -> bool:
        # `[3]`: the number of an argument, counted from 1.
        if not self._text.startswith("[", self._at):
            return False
        self._reordered = True
        end = self._text.find("]", self._at)
        if end < 0:
            self._at += 1
            self._is_good_index = False
            return False
        digits = self._text[self._at + 1 : end]
        self._at = end + 1
        number = (
            int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 8 else None
        )
        if number is not None and 1 <= number <= len(self._args):
            self._next = number - 1
            return True
        self._is_good_index = False
        return number is not None


def _leaves(value: object) -> int:
    # How often a width is paid: it holds for every value inside a list, map or struct.
    if isinstance(value, dict):
        return len(value) + sum(map(_leaves, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_leaves, value))
    if isinstance(value, GoStruct):
        return sum(_leaves(value.go_field(name)) for name in value.go_type.fields)
    return len(value) if isinstance(value, bytes) else 1
