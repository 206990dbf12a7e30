"""The built-in Go templates, and which of them a GGUF's Jinja template is (spec/ollama §9.1, §9.2).

`data/index.json` pairs Jinja texts, as models carry them, with names; `data/stops.json` has the stop strings; both are
Ollama's data (`template/`, commit fb30760). `data/*.gotmpl` are ours and render what Ollama's render. Their last newline
is not part of them.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

import attrs
import msgspec

__all__ = ["Builtin", "builtin", "distance_within", "match", "names"]

_LIMIT: Final = 100
"""A Jinja text is one of the index's when fewer edits than this lead from one to the other (Ollama's number)."""


@attrs.frozen
class Builtin:
    """A built-in template: its Go text, and the stop strings that go with it."""

    name: str
    text: str
    stops: tuple[str, ...]


class _Entry(msgspec.Struct, frozen=True):
    template: str
    name: str


def names() -> tuple[str, ...]:
    """List the built-in templates."""
    return tuple(_stops())


def builtin(name: str) -> Builtin:
    """Read a built-in template. Raises KeyError for a name that is none."""
    stops = _stops()[name]
    text = _data().joinpath(f"{name}.gotmpl").read_text(encoding="utf-8")
    return Builtin(name, text.removesuffix("\n"), stops)


def match(jinja: str) -> Builtin | None:
    """Find the built-in template that a Jinja text stands for: the nearest, if it is near enough.

    Takes under 50 ms for any text; nothing is compared whose length or letters already differ too much.
    """
    best, found = _LIMIT, ""
    letters = Counter(jinja)
    for entry, entry_letters in _index():
        if (
            abs(len(jinja) - len(entry.template)) < best
            and _letters_apart(letters, entry_letters) < best
        ):
            distance = distance_within(jinja, entry.template, best)
            if distance is not None:
                best, found = distance, entry.name
    return builtin(found) if found else None


def distance_within(first: str, second: str, limit: int) -> int | None:
    """Count the edits (insert, delete or replace a character) between two texts; None when `limit` or more.

    This is Myers' bit-vector algorithm (J. ACM 46/3, 1999, as Hyyrö put it for whole texts): one column of the table is
    a pair of long integers, so a text of 5000 characters costs some 10 ms instead of seconds.
    """
    if len(first) < len(second):
        first, second = second, first
    if not second or len(first) - len(second) >= limit:
        return len(first) if len(first) < limit else None
    places: dict[str, int] = {}
    for at, letter in enumerate(second):
        places[letter] = places.get(letter, 0) | 1 << at
    mask, top = (1 << len(second)) - 1, 1 << (len(second) - 1)
    up, down, distance = (
        mask,
        0,
        len(second),
    )  # rows where the column grows by one, and where it falls
    for n_left, letter in zip(range(len(first) - 1, -1, -1), first, strict=True):
        equal = places.get(letter, 0)
        diagonal = (((equal & up) + up) ^ up) | equal | down
        right, left = down | (mask & ~(diagonal | up)), up & diagonal
        distance += 1 if right & top else -1 if left & top else 0
        if distance - n_left >= limit:
            return None
        right, left = right << 1 | 1, left << 1
        up, down = (left | ~(diagonal | right)) & mask, right & diagonal & mask
    return distance if distance < limit else None


def _letters_apart(first: Counter[str], second: Counter[str]) -> int:
    """A lower bound of the distance: an edit changes the number of at most one letter on either side."""
    return max((first - second).total(), (second - first).total())


@lru_cache(maxsize=1)
def _index() -> tuple[tuple[_Entry, Counter[str]], ...]:
    entries = msgspec.json.decode(_data().joinpath("index.json").read_bytes(), type=list[_Entry])
    return tuple((entry, Counter(entry.template)) for entry in entries)


@lru_cache(maxsize=1)
def _stops() -> dict[str, tuple[str, ...]]:
    text = _data().joinpath("stops.json").read_bytes()
    return msgspec.json.decode(text, type=dict[str, tuple[str, ...]])


def _data() -> Traversable:
    return resources.files("olm.template").joinpath("data")
