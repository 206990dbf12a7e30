"""Numbers as Go's fmt writes them (Go 1.26, fmt/format.go): integers in all bases, floats with Go's exponents, characters.

`Spec` holds what stands between a `%` and its verb. The verbs themselves are in `formatting`.
"""

from __future__ import annotations

import math
import re
from typing import Final

import attrs

from olm.template.quoting import quote_rune, unicode_name

__all__ = [
    "PLAIN",
    "Spec",
    "exponent_text",
    "float_text",
    "integer_text",
    "padded",
    "rune_text",
    "shortest_digits",
]

_BASES: Final = {
    "b": (2, "b", "0b"),
    "o": (8, "o", "0"),
    "O": (8, "o", "0"),
    "x": (16, "x", "0x"),
    "X": (16, "X", "0X"),
}
_EXPONENT: Final = re.compile(r"([eE][+-]?)0*(\d{2,})$")
_MAX_RUNE: Final = 0x10FFFF


@attrs.frozen
class Spec:
    """Flags, width and precision of one verb. `plus_v` and `sharp_v` are `%+v` and `%#v`, which mean something else."""

    width: int | None = None
    precision: int | None = None
    minus: bool = False
    plus: bool = False
    sharp: bool = False
    space: bool = False
    zero: bool = False
    plus_v: bool = False
    sharp_v: bool = False

    @property
    def fill(self) -> str:
        """What pads on the left: zeros only there."""
        return "0" if self.zero and not self.minus else " "


PLAIN: Final = Spec()
"""A bare `%v`."""


def padded(text: str, spec: Spec, *, fill: str | None = None) -> str:
    """Pad to the width, counted in characters."""
    if not spec.width:
        return text
    if spec.minus:
        return text.ljust(spec.width)
    return text.rjust(spec.width, spec.fill if fill is None else fill)


def integer_text(value: int, verb: str, spec: Spec) -> str | None:
    """Write an integer under `d b o O x X`; None for other verbs."""
    base, style, prefix = _BASES.get(verb, (10, "d", ""))
    if base == 10 and verb != "d":
        return None
    if spec.precision == 0 and value == 0:
        return " " * (spec.width or 0)
    digits = format(abs(value), style)
    sign = "-" if value < 0 else "+" if spec.plus else " " if spec.space else ""
    n_digits = spec.precision or 0
    if spec.precision is None and spec.fill == "0" and spec.width:
        n_digits = spec.width - len(sign)
    digits = digits.zfill(n_digits)
    if spec.sharp and not (base == 8 and digits[0] == "0"):
        digits = prefix + digits
    if verb == "O":
        digits = f"0o{digits}"
    return padded(sign + digits, spec, fill=" ")


def rune_text(value: int, verb: str, spec: Spec) -> str | None:
    """Write an integer as a character under `c q U`; None for other verbs."""
    valid = 0 <= value <= _MAX_RUNE and not 0xD800 <= value <= 0xDFFF
    if verb == "c":
        return padded(chr(value) if valid else "\ufffd", spec)
    if verb == "q":
        return padded(quote_rune(value, ascii_only=spec.plus), spec)
    if verb != "U":
        return None
    unsigned = value % (1 << 64)
    text = f"U+{unsigned:0{max(4, spec.precision or 0)}X}"
    if spec.sharp and valid and chr(value).isprintable():
        text += unicode_name(chr(value))[-4:]
    return padded(text, spec, fill=" ")


def float_text(value: float, verb: str, spec: Spec) -> str | None:
    """Write a float under `v e E f F g G x X`; None for other verbs."""
    if verb not in "veEfFgGxX":
        return None
    sign = "-" if math.copysign(1.0, value) < 0 and not math.isnan(value) else "+"
    if not math.isfinite(value):
        shown = "" if math.isnan(value) and not (spec.plus or spec.space) else sign
        body = "NaN" if math.isnan(value) else "Inf"
        shown = " " if shown == "+" and spec.space and not spec.plus else shown
        return padded(body if shown == "+" and not spec.plus else shown + body, spec, fill=" ")
    digits = _magnitude(abs(value), verb, spec)
    if sign == "+" and not spec.plus:
        sign = " " if spec.space else ""
    if sign and spec.fill == "0" and spec.width and spec.width > len(sign + digits):
        return sign + digits.rjust(spec.width - 1, "0")
    return padded(sign + digits, spec)


def _magnitude(value: float, verb: str, spec: Spec) -> str:
    if verb in "xX":
        return _hexadecimal(value, verb, spec)
    if verb in "vgG":
        text = _shortest(value) if spec.precision is None else _general(value, spec.precision or 1)
        text = (
            _with_zeros(text, 6 if spec.precision is None else spec.precision)
            if spec.sharp
            else text
        )
        return text.upper() if verb == "G" else text
    style = "f" if verb in "fF" else "e"
    text = format(value, f".{6 if spec.precision is None else spec.precision}{style}")
    text = _two_digits(text)
    if spec.sharp and spec.precision == 0:
        text = _with_zeros(text, 0)
    return text.upper() if verb == "E" else text


def _shortest(value: float) -> str:
    return exponent_text(*shortest_digits(value), least=-4, most=6)


def exponent_text(digits: str, exponent: int, *, least: int, most: int) -> str:
    """Write digits with the point where it belongs, or with an exponent below `least` and from `most` on."""
    if exponent < least or exponent >= most:
        tail = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{digits[0]}{tail}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    if exponent < 0:
        return f"0.{'0' * (-exponent - 1)}{digits}"
    whole = digits[: exponent + 1].ljust(exponent + 1, "0")
    return f"{whole}.{digits[exponent + 1 :]}" if len(digits) > exponent + 1 else whole


def shortest_digits(value: float) -> tuple[str, int]:
    """Give the fewest digits that name a positive float, and the power of ten of the first."""
    mantissa, _, exponent = repr(value).partition("e")
    whole, _, rest = mantissa.partition(".")
    digits = (whole + rest).lstrip("0")
    leading = len(whole) if whole.strip("0") else -(len(rest) - len(rest.lstrip("0")))
    stripped = digits.rstrip("0")
    return (stripped, leading - 1 + int(exponent or 0)) if stripped else ("0", 0)


def _general(value: float, precision: int) -> str:
    return _two_digits(format(value, f".{precision}g"))


def _two_digits(text: str) -> str:
    return _EXPONENT.sub(r"\1\2", text)


def _with_zeros(text: str, n_digits: int) -> str:
    # `#`: a decimal point always, and as many significant digits as the precision says.
    mantissa, mark, exponent = text.partition("e")
    significant = len(mantissa.replace(".", "").lstrip("0"))
    if mantissa == "0":
        significant = 1
    if "." not in mantissa:
        mantissa += "."
    return mantissa + "0" * max(0, n_digits - significant) + mark + exponent


def _hexadecimal(value: float, verb: str, spec: Spec) -> str:
    # Only the exact form; a precision would need rounding that no template has asked for.
    mantissa, _, exponent = value.hex().partition("p")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    mantissa = "0x0" if mantissa == "0x" else mantissa
    text = f"{mantissa}p{exponent[0]}{exponent[1:].zfill(2)}"
    return text.upper() if verb == "X" else text
