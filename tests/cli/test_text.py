"""Widths, tables and word wrap, the last against a small terminal that obeys the escapes it prints."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olm.cli.text import WordWrapper, cut, display_width, table

WIDTH = 30
LIMIT = WIDTH - 5


def screen(drawn: str) -> list[str]:
    """Play characters, newlines, cursor-left and erase-to-end on a screen without an edge."""
    rows, column = [""], 0
    for token in re.findall(r"\x1b\[\d*[A-Z]|.|\n", drawn, re.DOTALL):
        if token == "\n":
            rows.append("")
            column = 0
        elif token.endswith("D") and len(token) > 1:
            column -= int(token[2:-1])
        elif token == "\x1b[K":
            rows[-1] = rows[-1][:column]
        else:
            assert len(rows[-1]) == column, "text is only ever added at the end of a line"
            rows[-1] += token
            column += 1
    return rows


def wrapped(text: str, width: int = WIDTH) -> list[str]:
    return screen(WordWrapper().feed(text, width))


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("short", ["short"]),
        ("one two three four five six seven", ["one two three four five", "six seven"]),
        ("a" * 30, ["a" * 25, "a" * 5]),
        ("x " + "b" * 30, ["x ", "b" * 25, "b" * 5]),
        ("1234567890123456789012345 next", ["1234567890123456789012345", "next"]),
        ("line\n\nother", ["line", "", "other"]),
    ],
)
def test_words_move_whole_to_the_next_line(text: str, rows: list[str]) -> None:
    assert [row.rstrip() for row in wrapped(text)] == [row.rstrip() for row in rows]


@given(st.text(alphabet="ab \n", max_size=200))
def test_no_line_is_too_long_and_no_character_is_lost(text: str) -> None:
    rows = wrapped(text)

    assert all(len(row) <= LIMIT for row in rows)
    assert "".join(rows).replace(" ", "") == text.replace(" ", "").replace("\n", "")
    assert all(word in " ".join(rows).split() for word in text.split() if len(word) <= 12)


@given(st.text(alphabet="ab \n日", max_size=120), st.integers(min_value=1, max_value=9))
def test_wrapping_does_not_depend_on_the_pieces(text: str, size: int) -> None:
    wrapper = WordWrapper()
    pieces = [text[i : i + size] for i in range(0, len(text), size)]

    assert "".join(wrapper.feed(piece, WIDTH) for piece in pieces) == WordWrapper().feed(
        text, WIDTH
    )


def test_a_very_narrow_terminal_wraps_by_itself() -> None:
    assert WordWrapper().feed("some words here", 9) == "some words here"


@pytest.mark.parametrize(
    ("text", "width"), [("abc", 3), ("日本", 4), ("e\u0301", 1), ("", 0), ("a\u200bb", 2)]
)
def test_display_width(text: str, width: int) -> None:
    assert display_width(text) == width


def test_cut_never_splits_a_wide_character() -> None:
    assert cut("日本語", 5) == "日本"


def test_table_pads_every_cell_and_adds_four_spaces() -> None:
    assert table([["NAME", "ID"], ["a:latest", "1"], ["b"]]) == [
        "NAME        ID    ",
        "a:latest    1     ",
        "b                 ",
    ]
