"""Characters in regular expressions: escapes, Unicode properties, and classes with nesting and `&&`.

How they are strung together is `patterns`' business.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["WORD", "CharSet", "PatternError", "Reader", "escaped_set", "read_class"]


class PatternError(Exception):
    """An expression cannot be read, or not be matched within bounds. Says what it does: "has an unmatched ')'"."""


class Reader:
    """An expression, read from left to right."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0

    @property
    def more(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self._source)

    def peek(self) -> str:
        """The next character, "" at the end."""
        return self._source[self._at : self._at + 1]

    def rest(self, n_chars: int) -> str:
        """What comes next, for messages."""
        return self._source[self._at : self._at + n_chars]

    def next(self) -> str:
        """Take the next character. Raises PatternError at the end."""
        char = self.peek()
        if not char:
            raise PatternError("ends too early")
        self._at += 1
        return char

    def take(self, text: str) -> bool:
        """Take this text if it comes next."""
        if not self._source.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Take what this matches, if it comes next."""
        found = pattern.match(self._source, self._at)
        if found is not None:
            self._at = found.end()
        return found

    def braces(self, forever: int) -> tuple[int, int] | None:
        """Take `{2}`, `{2,}`, `{,3}` or `{2,3}`, if it comes next; other braces are plain characters."""
        found = self.match(_BRACES)
        if found is None:
            return None
        low, comma, high = found.groups()
        first = int(low or 0)
        last = (int(high) if high else forever) if comma else first
        if first > last or (last > 1000 and last != forever):
            raise PatternError(f"has a bad repetition {found[0]!r}")
        return first, last


_BRACES: Final = re.compile(r"\{(?=[\d,]*\d)(\d{0,6})(,?)(\d{0,6})\}")


class CharSet:
    """A set of characters by a test, which is asked once for each character."""

    def __init__(self, test: Callable[[str], bool]) -> None:
        self._test = test
        self._known: dict[str, bool] = {}

    def __contains__(self, char: str) -> bool:
        known = self._known.get(char)
        if known is None:
            known = self._known[char] = self._test(char)
        return known

    def __and__(self, other: CharSet) -> CharSet:
        return CharSet(lambda char: char in self and char in other)

    def __or__(self, other: CharSet) -> CharSet:
        return CharSet(lambda char: char in self or char in other)

    def __invert__(self) -> CharSet:
        return CharSet(lambda char: char not in self)

    def case_folded(self, ignore_case: bool) -> CharSet:
        """With the other cases of its members, if wanted."""
        if not ignore_case:
            return self
        return CharSet(
            lambda char: any(
                form in self for form in {char, char.lower(), char.upper()} if len(form) == 1
            )
        )


def _span(first: str, last: str) -> CharSet:
    if first > last:
        raise PatternError(f"has the empty range {first}-{last}")
    return CharSet(lambda char: first <= char <= last)


def _category(*starts: str) -> CharSet:
    return CharSet(lambda char: unicodedata.category(char).startswith(starts))


_SPACES: Final = frozenset("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | {
    chr(code) for code in range(0x2000, 0x200B)
}
"""Unicode's White_Space; Python's `isspace` has four control characters more."""


def _named(*words: str) -> CharSet:
    """Characters of a script, by how their names begin (Python's tables know no scripts)."""
    return CharSet(lambda char: unicodedata.name(char, "").startswith(words))


WORD: Final = _category("L", "M", "N", "Pc")
"""What `\\w` matches: as Oniguruma has it, with all numbers."""

_ESCAPES: Final[Mapping[str, CharSet]] = {
    "s": CharSet(_SPACES.__contains__),
    "d": _category("Nd"),
    "w": WORD,
    "h": CharSet("0123456789abcdefABCDEF".__contains__),
}

_CONTROLS: Final = {"n": "\n", "r": "\r", "t": "\t", "v": "\v", "f": "\f", "a": "\a", "e": "\x1b"}

_SCRIPTS: Final[Mapping[str, CharSet]] = {
    "han": _named("CJK UNIFIED", "CJK COMPAT", "CJK RADICAL", "KANGXI")
    | CharSet("々〇〡〢〣〤〥〦〧〨〩〸〹〺〻".__contains__),
    "hiragana": _named(
        "HIRAGANA LETTER", "HIRAGANA ITERATION", "HIRAGANA VOICED", "HIRAGANA DIGRAPH"
    ),
    "katakana": _named(
        "KATAKANA LETTER", "KATAKANA ITERATION", "KATAKANA VOICED", "HALFWIDTH KATAKANA"
    ),
    "hangul": _named("HANGUL", "HALFWIDTH HANGUL"),
    "latin": _named("LATIN", "FULLWIDTH LATIN"),
    "cyrillic": _named("CYRILLIC"),
    "greek": _named("GREEK"),
    "arabic": _named("ARABIC"),
    "hebrew": _named("HEBREW"),
    "thai": _named("THAI"),
    "devanagari": _named("DEVANAGARI"),
}

_WORDS: Final[Mapping[str, CharSet]] = {
    "alpha": _category("L", "M", "Nl"),
    "alnum": _category("L", "M", "N"),
    "digit": _category("Nd"),
    "punct": _category("P", "S"),
    "space": _ESCAPES["s"],
    "upper": _category("Lu"),
    "lower": _category("Ll"),
    "letter": _category("L"),
    "number": _category("N"),
    "ascii": CharSet(str.isascii),
}

_PROPERTY: Final = re.compile(r"\{(\^?)([A-Za-z_ ]+)\}")
_HEX: Final = re.compile(r"\{([0-9A-Fa-f]{1,6})\}|([0-9A-Fa-f]{4})")
_SHORT_HEX: Final = re.compile(r"\{([0-9A-Fa-f]{1,6})\}|([0-9A-Fa-f]{2})")
_POSIX: Final = re.compile(r":(\^?)([a-z]+):\]")


@functools.cache
def _property(name: str) -> CharSet:
    if re.fullmatch(r"[CLMNPSZ][a-z]?", name):
        return _category(name)
    plain = name.replace("_", "").replace(" ", "").lower()
    found = _SCRIPTS.get(plain) or _WORDS.get(plain)
    if found is None:
        raise PatternError(f"has the unknown property \\p{{{name}}}")
    return found


def escaped_set(reader: Reader) -> CharSet:
    """What a backslash, just taken, stands for. Raises PatternError for what no pre-tokenizer uses."""
    found = _escape(reader)
    return CharSet(found.__eq__) if isinstance(found, str) else found


def _escape(reader: Reader) -> CharSet | str:
    char = reader.next()
    if char in "pP":
        return _read_property(reader, is_negated=char == "P")
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.lower() in _ESCAPES and char.isupper():
        return ~_ESCAPES[char.lower()]
    if char in _CONTROLS:
        return _CONTROLS[char]
    if char in "ux":
        found = reader.match(_HEX if char == "u" else _SHORT_HEX)
        code = int((found[1] or found[2]) if found is not None else "110000", 16)
        if code > 0x10FFFF:
            raise PatternError("has a damaged character code")
        return chr(code)
    if char.isascii() and char.isalnum():
        raise PatternError(f"has the unknown escape \\{char}")
    return char


def _read_property(reader: Reader, *, is_negated: bool) -> CharSet:
    found = reader.match(_PROPERTY)
    if found is None:
        raise PatternError("has a damaged property")
    members = _property(found[2])
    return ~members if is_negated != bool(found[1]) else members


def read_class(reader: Reader, depth: int = 0) -> CharSet:
    """A class, of which the opening bracket has just been taken. Raises PatternError for a damaged one."""
    if depth > 20:
        raise PatternError("has classes nested too deep")
    is_negated = reader.take("^")
    total: CharSet | None = None
    part = CharSet(lambda char: False)
    is_first = True
    while is_first or not reader.take("]"):
        if reader.take("&&"):
            total = part if total is None else total & part
            part = CharSet(lambda char: False)
        elif reader.take("["):
            part |= _posix(reader) or read_class(reader, depth + 1)
        else:
            part |= _member(reader)
        is_first = False
    members = part if total is None else total & part
    return ~members if is_negated else members


def _posix(reader: Reader) -> CharSet | None:
    found = reader.match(_POSIX)
    if found is None:
        return None
    members = _WORDS.get(found[2])
    if members is None:
        raise PatternError(f"has the unknown class [:{found[2]}:]")
    return ~members if found[1] else members


def _member(reader: Reader) -> CharSet:
    """A character, a range or an escape within a class."""
    first = _escape(reader) if reader.take("\\") else reader.next()
    if isinstance(first, CharSet):
        return first
    if reader.peek() != "-" or reader.rest(2) == "-]":
        return CharSet(first.__eq__)
    reader.take("-")
    last = _escape(reader) if reader.take("\\") else reader.next()
    if isinstance(last, CharSet):
        raise PatternError("has a range up to a class")
    return _span(first, last)
