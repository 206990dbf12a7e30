"""Text on a terminal: display widths, borderless tables, and word wrap of a stream. Pure; widths are arguments.

Table layout as Ollama prints it (spec §3): left aligned, every cell padded and followed by four spaces.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

__all__ = ["WordWrapper", "cut", "display_width", "table"]

GAP: Final = "    "
MARGIN: Final = (
    5  # columns kept free at the right, as Ollama does; room for the cursor and wide characters
)
TAB: Final = 8
MIN_WIDTH: Final = 10  # narrower terminals are left to wrap by themselves


def display_width(text: str) -> int:
    """Columns a text takes: two for wide characters, none for combining and control ones."""
    if text.isascii() and text.isprintable():
        return len(text)
    return sum(_char_width(char) for char in text)


def _char_width(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf", "Cc"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def cut(text: str, width: int) -> str:
    """The longest prefix of a text that takes at most `width` columns."""
    if display_width(text) <= width:
        return text
    used = 0
    for index, char in enumerate(text):
        used += _char_width(char)
        if used > width:
            return text[:index]
    return text


def table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Lay rows out in columns; rows may be of different lengths."""
    rows = list(rows)
    n_columns = max((len(row) for row in rows), default=0)
    widths = [
        max((display_width(row[i]) for row in rows if i < len(row)), default=0)
        for i in range(n_columns)
    ]

    def padded(row: Sequence[str]) -> str:
        cells = [*row, *[""] * (n_columns - len(row))]
        return "".join(
            cell + " " * (width - display_width(cell)) + GAP
            for cell, width in zip(cells, widths, strict=True)
        )

    return [padded(row) for row in rows]


class WordWrapper:
    """Wraps a stream of text at words, though a word is only known to be too long after it was half printed.

    The part of the word already on the screen is then erased and printed again on the next line. Feeding the same
    text in other pieces gives the same output.
    """

    def __init__(self) -> None:
        self._column = 0
        self._word = ""

    def feed(self, text: str, width: int) -> str:
        """Turn the next piece into what to print on a terminal of `width` columns."""
        if width < MIN_WIDTH:
            return text
        limit = width - MARGIN
        return "".join(self._char(char, limit) for char in text)

    def _char(self, char: str, limit: int) -> str:
        if char == "\n":
            self._column, self._word = 0, ""
            return char
        width = TAB - self._column % TAB if char == "\t" else _char_width(char)
        if self._column + width <= limit:
            self._column += width
            self._remember(char)
            return char
        return self._break(char, width)

    def _break(self, char: str, width: int) -> str:
        """`char` does not fit on the line any more."""
        if char in " \t":
            self._column, self._word = 0, ""
            return "\n"
        moved, moved_width = self._word, display_width(self._word)
        if moved_width == self._column:  # a word that fills the line: nothing is won by moving it
            moved, moved_width = "", 0
        back = f"\x1b[{moved_width}D\x1b[K" if moved_width else ""
        self._column = moved_width + width
        self._word = moved
        self._remember(char)
        return f"{back}\n{moved}{char}"

    def _remember(self, char: str) -> None:
        # A wide character may be broken after: its scripts have no spaces.
        self._word = "" if char.isspace() or _char_width(char) == 2 else self._word + char
