"""One JSON value amid other text: where it ends, found as it comes, and what it is."""

from __future__ import annotations

import re
from typing import Final

import msgspec

__all__ = ["JsonSpan", "object_or_none"]

_OUTSIDE: Final = re.compile(r'["{}\[\]<]')
_INSIDE: Final = re.compile(r'["\\]')


class JsonSpan:
    """Finds the end of one JSON object, array or string that begins with the first character pushed.

    `is_broken`: a `<` stands outside of a string, where no JSON has one; the value ends before it, as it does for every
    bracket too many. Nothing else is checked.
    """

    __slots__ = ("_depth", "_in_string", "_is_escaped", "is_broken")

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._is_escaped = False
        self.is_broken = False

    def push(self, text: str, at: int = 0) -> int:
        """Take more text from `at` on: returns the place behind the value's end, or -1 while it goes on."""
        while at < len(text):
            if self._is_escaped:
                self._is_escaped = False
                at += 1
                continue
            found = (_INSIDE if self._in_string else _OUTSIDE).search(text, at)
            if found is None:
                return -1
            at = found.end()
            if self._is_end(found.group()):
                return found.start() if self.is_broken else at
        return -1

    def _is_end(self, mark: str) -> bool:
        if mark == "\\":
            self._is_escaped = True
            return False
        if mark == '"':
            self._in_string = not self._in_string
            return not self._in_string and self._depth == 0
        if mark == "<":
            self.is_broken = True
            return True
        self._depth += 1 if mark in "{[" else -1
        return self._depth <= 0


def object_or_none(text: str) -> dict[str, object] | None:
    """Read a JSON object; None for everything else."""
    try:
        value: object = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
