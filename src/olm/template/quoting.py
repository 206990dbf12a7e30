"""Go's quoted strings and characters, in both directions (Go 1.26, package strconv).

A Go string is bytes. Here it is a `str` in which a byte that is no UTF-8 stands as one surrogate (PEP 383), so cutting a
string in the middle of a letter and joining the halves again loses nothing; `to_bytes` and `from_bytes` cross over.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = [
    "can_backquote",
    "from_bytes",
    "quote",
    "quote_rune",
    "to_bytes",
    "unicode_name",
    "unquote",
    "unquote_char",
]

_NAMED: Final = {
    "a": 7,
    "b": 8,
    "f": 12,
    "n": 10,
    "r": 13,
    "t": 9,
    "v": 11,
    "\\": 92,
    "'": 39,
    '"': 34,
}
_SHORT: Final = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
}
_ESCAPE: Final = re.compile(
    r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|([abfnrtv\\'\"])"
)
_FOREIGN_SURROGATE: Final = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def to_bytes(text: str) -> bytes:
    """Give the bytes that a Go string would hold; surrogates that stand for no byte become U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _FOREIGN_SURROGATE.sub("\ufffd", text).encode("utf-8", "surrogateescape")


def from_bytes(data: bytes) -> str:
    """Give the string that holds these bytes."""
    return data.decode("utf-8", "surrogateescape")


def quote(text: str, *, ascii_only: bool = False) -> str:
    """Write a string as a Go constant in double quotes, as `%q` does; with `ascii_only`, as `%+q`."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return f'"{"".join(_quoted(char, chr(34), ascii_only=ascii_only) for char in text)}"'


def quote_rune(code: int, *, ascii_only: bool = False) -> str:
    """Write a character as a Go constant in single quotes; what is no character becomes U+FFFD."""
    valid = 0 <= code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF
    return f"'{_quoted(chr(code) if valid else chr(0xFFFD), chr(39), ascii_only=ascii_only)}'"


def _quoted(char: str, mark: str, *, ascii_only: bool) -> str:
    if char == mark:
        return f"\\{char}"
    if char in _SHORT:
        return _SHORT[char]
    code = ord(char)
    if char.isprintable() and (code < 0x80 or not ascii_only):
        return char
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def can_backquote(text: str) -> bool:
    """Say whether a string may stand between back quotes unchanged."""
    return all(
        char == "\t"
        or (char >= " " and char not in "`\x7f\ufeff" and not "\ud800" <= char <= "\udfff")
        for char in text
    )


def unicode_name(char: str) -> str:
    """Name a character as Go's `%#U` does: `U+0040 '@'`."""
    shown = f" '{char}'" if char.isprintable() else ""
    return f"U+{ord(char):04X}{shown}"


def unquote(quoted: str) -> str:
    """Read a Go string constant in double or back quotes.

    Raises:
        ValueError: `invalid syntax`, Go's own words.
    """
    if len(quoted) < 2 or quoted[0] != quoted[-1] or quoted[0] not in '"`':
        raise ValueError("invalid syntax")
    body = quoted[1:-1]
    if quoted[0] == "`":
        return body.replace("\r", "")
    if "\\" not in body:
        return body
    data = bytearray()
    at = 0
    while at < len(body):
        piece, at = _next_char(body, at, '"')
        data += piece if isinstance(piece, bytes) else to_bytes(piece)
    return from_bytes(bytes(data))


def unquote_char(quoted: str) -> int:
    """Read a Go character constant in single quotes and give its code.

    Raises:
        ValueError: with Go's own words.
    """
    if len(quoted) < 3:
        raise ValueError("invalid syntax")
    piece, at = _next_char(quoted, 1, "'")
    if quoted[at:] != "'":
        raise ValueError(f"malformed character constant: {quoted}")
    return piece[0] if isinstance(piece, bytes) else ord(piece)


def _next_char(text: str, at: int, mark: str) -> tuple[str | bytes, int]:
    # A letter, or one byte for `\x` and octal escapes, and where the next one starts.
    if text[at] != "\\":
        if text[at] == mark:
            raise ValueError("invalid syntax")
        return text[at], at + 1
    found = _ESCAPE.match(text, at + 1)
    if found is None:
        raise ValueError("invalid syntax")
    byte, short, long, octal, named = found.groups()
    if named is not None:
        if named in "'\"" and named != mark:
            raise ValueError("invalid syntax")
        return chr(_NAMED[named]), found.end()
    if short or long:
        code = int(short or long, 16)
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise ValueError("invalid syntax")
        return chr(code), found.end()
    code = int(byte, 16) if byte else int(octal, 8)
    if code > 0xFF:
        raise ValueError("invalid syntax")
    return bytes((code,)), found.end()
