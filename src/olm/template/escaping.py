"""The texts of `html`, `js` and `urlquery` (Go 1.26, text/template/funcs.go and net/url)."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote_plus

from olm.template.quoting import to_bytes

__all__ = ["html_text", "js_text", "query_text"]

_HTML: Final = str.maketrans(
    {"\0": "\ufffd", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"}
)
_JS: Final = {
    "\\": "\\\\",
    "'": "\\'",
    '"': '\\"',
    "<": "\\u003C",
    ">": "\\u003E",
    "&": "\\u0026",
    "=": "\\u003D",
}
_JS_SPECIAL: Final = re.compile(r"""[\\'"<>&=\x00-\x1f\x80-\U0010ffff]""")


def html_text(text: str) -> str:
    """Escape for HTML."""
    return text.translate(_HTML)


def js_text(text: str) -> str:
    """Escape for a string in JavaScript."""
    return _JS_SPECIAL.sub(_js_char, text)


def _js_char(found: re.Match[str]) -> str:
    char = found[0]
    if char in _JS:
        return _JS[char]
    if char < " ":
        return f"\\u00{ord(char):02X}"
    if "\udc80" <= char <= "\udcff":
        return char  # a byte that is no UTF-8 stays one
    return char if char.isprintable() else f"\\u{ord(char):04X}"


def query_text(text: str) -> str:
    """Escape for the query of a URL."""
    return quote_plus(to_bytes(text))
