"""Vectors as JSON numbers the way Go writes float32: the shortest digits that read back as the same float32.

msgspec would write the double (0.010000000707805157 for 0.01f): twice the bytes, and other numbers for a client that
reads doubles. Pure; about 0.5 µs a value.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

from olm.errors import InvalidRequest

__all__ = ["float32_row"]

_FORMATS = ("%.6g", "%.7g", "%.8g", "%.9g")  # nine digits always suffice for a float32


def float32_row(values: Sequence[float]) -> bytes:
    """Write one vector as a JSON array.

    Raises:
        InvalidRequest: `embedding contains NaN or Inf values`, as Ollama says.
    """
    wanted = array("f", values)
    if not all(map(math.isfinite, wanted)):
        raise InvalidRequest("embedding contains NaN or Inf values")
    texts = _write(wanted, _FORMATS[0])
    for form in _FORMATS[1:]:
        read = array("f", map(float, texts))
        wrong = [i for i, (a, b) in enumerate(zip(read, wanted, strict=True)) if a != b]
        if not wrong:
            break
        for i, text in zip(wrong, _write([wanted[i] for i in wrong], form), strict=True):
            texts[i] = text
    return f"[{','.join(_go(t) if 'e' in t else t for t in texts)}]".encode()


def _write(values: Sequence[float], form: str) -> list[str]:
    if not values:
        return []
    return (" ".join((form,) * len(values)) % tuple(values)).split(" ")


def _go(text: str) -> str:
    """Go keeps plain digits from 1e-6 up to 1e21, and writes `e-7`, not `e-07`, below."""
    mantissa, _, exponent = text.partition("e")
    power = int(exponent)
    if power >= 21:
        return f"{mantissa}e+{power}"
    if power < -6:
        return f"{mantissa}e-{-power}"
    sign = "-" if mantissa.startswith("-") else ""
    digits = mantissa.lstrip("-").replace(".", "")
    if power < 0:
        return f"{sign}0.{'0' * (-power - 1)}{digits}"
    return f"{sign}{digits.ljust(power + 1, '0')}"
