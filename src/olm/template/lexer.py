"""From a template's text to tokens, one at a time, as Go's text/template cuts them (Go 1.26, parse/lex.go).

Trim markers and comments end here; the parser never sees them. An error is a token too, since Go reports it only when
the parser reaches it. Delimiters are `{{` and `}}`.
"""

from __future__ import annotations

import bisect
import enum
import re
from array import array
from itertools import accumulate
from typing import Final, NamedTuple

from olm.template.nodes import Position
from olm.template.quoting import quote, to_bytes, unicode_name

__all__ = ["KEYWORDS", "Kind", "Lexer", "Source", "Token"]

LEFT: Final = "{{"
RIGHT: Final = "}}"
_SPACES: Final = " \t\r\n"
_TERMINATORS: Final = " \t\r\n.,|:)("
_SPACE_RUN: Final = re.compile(r"[ \t\r\n]+")
_ASCII_WORD: Final = re.compile(r"[A-Za-z0-9_]*")
_QUOTED: Final = re.compile(r'"(?:[^"\\\n]|\\[^\n])*"')
_CHARACTER: Final = re.compile(r"'(?:[^'\\\n]|\\[^\n])*'")
_NUMBER: Final = re.compile(
    r"[+-]?(?:0[xX][0-9a-fA-F_]*(?:\.[0-9a-fA-F_]*)?(?:[pP][+-]?[0-9_]*)?"
    r"|0[oO][0-7_]*(?:\.[0-7_]*)?|0[bB][01_]*(?:\.[01_]*)?"
    r"|[0-9_]*(?:\.[0-9_]*)?(?:[eE][+-]?[0-9_]*)?)i?"
)


class Kind(enum.Enum):
    """What a token is."""

    ERROR = enum.auto()
    EOF = enum.auto()
    TEXT = enum.auto()
    LEFT_DELIM = enum.auto()
    RIGHT_DELIM = enum.auto()
    SPACE = enum.auto()
    PIPE = enum.auto()
    LEFT_PAREN = enum.auto()
    RIGHT_PAREN = enum.auto()
    ASSIGN = enum.auto()
    DECLARE = enum.auto()
    CHAR = enum.auto()
    BOOL = enum.auto()
    CHAR_CONSTANT = enum.auto()
    COMPLEX = enum.auto()
    NUMBER = enum.auto()
    STRING = enum.auto()
    RAW_STRING = enum.auto()
    DOT = enum.auto()
    FIELD = enum.auto()
    IDENTIFIER = enum.auto()
    VARIABLE = enum.auto()
    NIL = enum.auto()
    KEYWORD = enum.auto()


KEYWORDS: Final = frozenset(
    {"block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"}
)
_SINGLE: Final = {"=": Kind.ASSIGN, "|": Kind.PIPE}
_WORDS: Final = {"true": Kind.BOOL, "false": Kind.BOOL, "nil": Kind.NIL}


class Token(NamedTuple):
    """A piece of the text. `start` is its offset in characters; the text of an error token is the message."""

    kind: Kind
    start: int
    text: str

    def __str__(self) -> str:
        """Show it as Go's errors do."""
        if self.kind is Kind.EOF:
            return "EOF"
        if self.kind is Kind.ERROR:
            return self.text
        if self.kind in (Kind.KEYWORD, Kind.DOT, Kind.NIL):
            return f"<{self.text}>"
        if len(to_bytes(self.text)) > 10:
            return f"{quote(self.text[:10])}..."
        return quote(self.text)


class Source:
    """The text of a template and where its lines begin."""

    def __init__(self, text: str) -> None:
        self.text: Final = text
        self._starts: Final = [0, *(found.end() for found in re.finditer("\n", text))]
        # The bytes before each character, so that a column costs the same on a line of any length.
        self._bytes: Final = (
            None if text.isascii() else array("Q", accumulate(map(_width, text), initial=0))
        )

    def line(self, offset: int) -> int:
        """Give the line of a character, counted from 1."""
        return bisect.bisect_right(self._starts, offset)

    def position(self, offset: int) -> Position:
        """Give the line and the byte column of a character."""
        line = self.line(offset)
        start = self._starts[line - 1]
        return Position(
            line,
            offset - start if self._bytes is None else self._bytes[offset] - self._bytes[start],
        )


def _width(char: str) -> int:
    return len(to_bytes(char))


def _is_word(char: str) -> bool:
    return char == "_" or char.isalpha() or char.isdecimal()


class Lexer:
    """Cuts one template. `next()` gives tokens until one is EOF or ERROR, which is then the last."""

    def __init__(self, source: Source) -> None:
        self._text: Final = source.text
        self._at = 0
        self._inside = False
        self._parens = 0

    def next(self) -> Token:
        """Cut the next token."""
        return self._action() if self._inside else self._outside()

    def _emit(self, kind: Kind, end: int) -> Token:
        token = Token(kind, self._at, self._text[self._at : end])
        self._at = end
        return token

    def _error(self, message: str) -> Token:
        return Token(Kind.ERROR, self._at, message)

    # Text and comments

    def _outside(self) -> Token:
        text = self._text
        while True:
            found = text.find(LEFT, self._at)
            if found < 0:
                return self._emit(Kind.TEXT if self._at < len(text) else Kind.EOF, len(text))
            trimmed = self._is_left_trim(found + len(LEFT))
            if found > self._at:
                body = text[self._at : found]
                body = body.rstrip(_SPACES) if trimmed else body
                token = Token(Kind.TEXT, self._at, body)
                self._at = found
                if body:
                    return token
            after = found + len(LEFT) + (2 if trimmed else 0)
            if not text.startswith("/*", after):
                token = Token(Kind.LEFT_DELIM, found, LEFT)
                self._at, self._inside, self._parens = after, True, 0
                return token
            self._at = after
            error = self._skip_comment()
            if error is not None:
                return error

    def _is_left_trim(self, at: int) -> bool:
        return self._text.startswith("-", at) and self._text[at + 1 : at + 2] in tuple(_SPACES)

    def _skip_comment(self) -> Token | None:
        end = self._text.find("*/", self._at + 2)
        if end < 0:
            return self._error("unclosed comment")
        width = self._right_delim_width(end + 2)
        if not width:
            return self._error("comment ends before closing delimiter")
        self._at = end + 2 + width
        if width > len(RIGHT):
            self._skip_spaces()
        return None

    def _skip_spaces(self) -> None:
        found = _SPACE_RUN.match(self._text, self._at)
        if found is not None:
            self._at = found.end()

    def _right_delim_width(self, at: int) -> int:
        # With a trim marker, as in ` -}}`, two more; 0 where no delimiter is.
        text = self._text
        if text.startswith(RIGHT, at):
            return len(RIGHT)
        if text.startswith("-}}", at + 1) and text[at] in _SPACES:
            return len(RIGHT) + 2
        return 0

    # Actions

    def _action(self) -> Token:
        text, at = self._text, self._at
        width = self._right_delim_width(at)
        if width:
            return self._right_delim(width)
        if at >= len(text):
            return self._error("unclosed action")
        char = text[at]
        if char in _SPACES:
            return self._space()
        if char in _SINGLE:
            return self._emit(_SINGLE[char], at + 1)
        if char == ":":
            return (
                self._emit(Kind.DECLARE, at + 2)
                if text.startswith(":=", at)
                else self._error("expected :=")
            )
        if char in "\"`'":
            return self._quoted(char)
        if char == "$":
            return self._name(Kind.VARIABLE)
        if char == "." and at + 1 < len(text) and not "0" <= text[at + 1] <= "9":
            return self._name(Kind.FIELD)
        if char in "+-.0123456789":
            return self._number()
        if _is_word(char):
            return self._word()
        return self._punctuation(char)

    def _punctuation(self, char: str) -> Token:
        if char == "(":
            self._parens += 1
            return self._emit(Kind.LEFT_PAREN, self._at + 1)
        if char == ")":
            self._parens -= 1
            if self._parens < 0:
                return self._error("unexpected right paren")
            return self._emit(Kind.RIGHT_PAREN, self._at + 1)
        if char.isascii() and char.isprintable():
            return self._emit(Kind.CHAR, self._at + 1)
        return self._error(f"unrecognized character in action: {unicode_name(char)}")

    def _right_delim(self, width: int) -> Token:
        if self._parens:
            return self._error("unclosed left paren")
        trims = width > len(RIGHT)
        self._at += width - len(RIGHT)
        token = self._emit(Kind.RIGHT_DELIM, self._at + len(RIGHT))
        if trims:
            self._skip_spaces()
        self._inside = False
        return token

    def _space(self) -> Token:
        found = _SPACE_RUN.match(self._text, self._at)
        assert found is not None, "the caller saw a space"
        end = found.end()
        if self._text.startswith("-}}", end):
            end -= 1  # the last space belongs to the trim marker; it is not the only one, or _action had taken it
        return self._emit(Kind.SPACE, end)

    def _quoted(self, mark: str) -> Token:
        if mark == "`":
            end = self._text.find("`", self._at + 1)
            return (
                self._emit(Kind.RAW_STRING, end + 1)
                if end >= 0
                else self._error("unterminated raw quoted string")
            )
        found = (_QUOTED if mark == '"' else _CHARACTER).match(self._text, self._at)
        if found is not None:
            return self._emit(Kind.STRING if mark == '"' else Kind.CHAR_CONSTANT, found.end())
        what = "quoted string" if mark == '"' else "character constant"
        return self._error(f"unterminated {what}")

    def _is_terminated(self, at: int) -> bool:
        return (
            at >= len(self._text)
            or self._text[at] in _TERMINATORS
            or self._text.startswith(RIGHT, at)
        )

    def _word_end(self, at: int) -> int:
        found = _ASCII_WORD.match(self._text, at)
        assert found is not None, "the pattern matches the empty string"
        at = found.end()
        while at < len(self._text) and _is_word(self._text[at]):
            at += 1
        return at

    def _name(self, kind: Kind) -> Token:
        # A field or a variable; the dot or dollar sign alone is one, too.
        if self._is_terminated(self._at + 1):
            return self._emit(Kind.DOT if kind is Kind.FIELD else kind, self._at + 1)
        end = self._word_end(self._at + 1)
        if not self._is_terminated(end):
            return self._error(f"bad character {unicode_name(self._text[end])}")
        return self._emit(kind, end)

    def _word(self) -> Token:
        end = self._word_end(self._at)
        if not self._is_terminated(end):
            return self._error(f"bad character {unicode_name(self._text[end])}")
        word = self._text[self._at : end]
        if word in KEYWORDS:
            return self._emit(Kind.KEYWORD, end)
        return self._emit(_WORDS.get(word, Kind.IDENTIFIER), end)

    def _number(self) -> Token:
        end, is_good = self._scan_number(self._at)
        if is_good and self._text[end : end + 1] in ("+", "-"):
            end, is_good = self._scan_number(end)
            if is_good and self._text[end - 1] == "i":
                return self._emit(Kind.COMPLEX, end)
            is_good = False
        if not is_good:
            return self._error(f"bad number syntax: {quote(self._text[self._at : end])}")
        return self._emit(Kind.NUMBER, end)

    def _scan_number(self, at: int) -> tuple[int, bool]:
        found = _NUMBER.match(self._text, at)
        assert found is not None, "the pattern matches the empty string"
        end = found.end()
        if end < len(self._text) and _is_word(self._text[end]):
            return end + 1, False
        return end, True
