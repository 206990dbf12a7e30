"""Many vectors of a family: all are checked in `test_vectors.py`, a few of them also join the properties of `chat_kit`."""

from __future__ import annotations

from collections.abc import Sequence

from chat.chat_kit import Sample

__all__ = ["representative"]


def representative(vectors: Sequence[Sample]) -> list[Sample]:
    """Choose some vectors of each parser, with calls and with broken ones: a property costs 200 times what a check does."""
    chosen: list[Sample] = []
    for name in sorted({vector.parser for vector in vectors}):
        own = [vector for vector in vectors if vector.parser == name]
        telling = [vector for vector in own if vector.calls or vector.malformed] or own
        chosen += telling[:: max(1, len(telling) // 5)]
    return chosen
