"""The parser that changes nothing: all text is content."""

from __future__ import annotations

from olm.chat.parsers.base import ParseInput, Parser, ParserFamily, parser
from olm.chat.types import AnswerEvent, Piece

__all__ = ()


class _Passthrough:
    """Gives out what it takes."""

    def push(self, text: str) -> list[AnswerEvent]:
        """Take more text."""
        return [Piece(content=text)] if text else []

    def finish(self) -> list[AnswerEvent]:
        """The text is over."""
        return []


def _make(inp: ParseInput) -> Parser:
    del inp  # content needs no context
    return _Passthrough()


parser("passthrough", ParserFamily(make=_make))
