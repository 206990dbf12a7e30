"""Number and character constants, held under every Go type that can hold them (Go 1.26, parse/node.go, strconv)."""

from __future__ import annotations

import re
from typing import Final

from olm.template.nodes import NumberNode, Position
from olm.template.quoting import quote, unquote_char

__all__ = ["character_node", "number_node"]

_OLD_OCTAL: Final = re.compile(r"([+-]?)0_?([0-9][0-9_]*)")
_MIN_INT: Final = -(1 << 63)
_MAX_INT: Final = (1 << 63) - 1
_MAX_UINT: Final = (1 << 64) - 1


def character_node(text: str, pos: Position) -> NumberNode:
    """Read `'x'`: it is a number.

    Raises:
        ValueError: with Go's words.
    """
    code = unquote_char(text)
    return NumberNode(text=text, int_value=code, uint_value=code, float_value=float(code), pos=pos)


def number_node(text: str, pos: Position) -> NumberNode:
    """Read an integer or a float constant. Complex ones are refused: nothing that olm renders has any.

    Raises:
        ValueError: with Go's words.
    """
    if text.endswith("i"):
        raise ValueError(f"complex constants are not supported: {quote(text)}")
    whole = _integer(text)
    if whole is not None and _MIN_INT <= whole <= _MAX_UINT:
        signed = text[0] in "+-"
        int_value = whole if whole <= _MAX_INT else None
        uint_value = whole if not signed or whole == 0 else None
        if int_value is not None or uint_value is not None:
            return NumberNode(
                text=text,
                int_value=int_value,
                uint_value=uint_value,
                float_value=float(whole),
                pos=pos,
            )
    value = _float(text)
    if value is None:
        raise ValueError(f"illegal number syntax: {quote(text)}")
    if not any(char in ".eEpP" for char in text):
        raise ValueError(f"integer overflow: {quote(text)}")
    integral = int(value) if value.is_integer() else None
    return NumberNode(
        text=text,
        int_value=integral if integral is not None and _MIN_INT <= integral <= _MAX_INT else None,
        uint_value=integral if integral is not None and 0 <= integral <= _MAX_UINT else None,
        float_value=value,
        pos=pos,
    )


def _integer(text: str) -> int | None:
    old = _OLD_OCTAL.fullmatch(text)
    try:
        return int(old[1] + old[2], 8) if old is not None else int(text, 0)
    except ValueError:
        return None


def _float(text: str) -> float | None:
    # ParseFloat takes hexadecimal only with an exponent, and reports what is too large as an error.
    try:
        if text.lstrip("+-")[:2].lower() == "0x":
            value = float.fromhex(text.replace("_", "")) if "p" in text.lower() else None
        else:
            value = float(text)
    except (ValueError, OverflowError):
        return None
    return None if value is None or value in (float("inf"), float("-inf")) else value
