"""Finding markers in a stream of text without giving out the beginning of one. Pure, no regular expressions."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["find_first", "held_back"]


def find_first(text: str, markers: Sequence[str], start: int = 0) -> tuple[int, str]:
    """Find the earliest marker, the longest of several at one place. Returns (-1, "") when there is none."""
    best, found = -1, ""
    for marker in markers:
        at = text.find(marker, start)
        if at >= 0 and (best < 0 or at < best or (at == best and len(marker) > len(found))):
            best, found = at, marker
    return best, found


def held_back(text: str, markers: Sequence[str]) -> int:
    """Count the characters at the end that may be the beginning of a marker: these must wait for more text."""
    longest = 0
    for marker in markers:
        for n in range(min(len(marker) - 1, len(text)), longest, -1):
            if text.endswith(marker[:n]):
                longest = n
                break
    return longest
