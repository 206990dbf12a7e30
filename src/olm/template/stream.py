"""Tokens with a way back, and the errors that name their line (Go 1.26, parse/parse.go)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

import attrs

from olm.errors import TemplateError
from olm.template.lexer import Kind, Lexer, Source, Token
from olm.template.nodes import ListNode, Position

__all__ = ["MAX_NESTING", "Shared", "TokenStream"]

MAX_NESTING: Final = 100
"""Actions, parentheses and `else if`s inside one another. Go allows 10,000 parentheses; the templates of Ollama's library
nest below 20, and the running template needs a few frames of Python's stack for each."""


@attrs.define
class Shared:
    """What the parsers of one text have in common: a definition inside it has a parser of its own."""

    source: Source
    lexer: Lexer
    name: str
    functions: Collection[str]
    trees: dict[str, ListNode] = attrs.Factory(dict)
    depth: int = 0


class TokenStream:
    """What a parser reads from. Several parsers of one text share its lexer, but each has its own tokens ahead.

    Attributes:
        action_line: where the action began that is being read; 0 between actions.
    """

    def __init__(self, shared: Shared) -> None:
        self.shared: Final = shared
        self.action_line = 0
        self._ahead: list[Token] = []
        self._newest_start = 0

    # Tokens

    def next(self) -> Token:
        """Take the next token."""
        if self._ahead:
            return self._ahead.pop()
        token = self.shared.lexer.next()
        self._newest_start = token.start
        return token

    def back(self, *tokens: Token) -> None:
        """Put tokens back; the last one given will come first."""
        self._ahead.extend(tokens)

    def peek(self) -> Token:
        """Show the next token."""
        token = self.next()
        self.back(token)
        return token

    def next_word(self) -> Token:
        """Take the next token that is no space."""
        token = self.next()
        while token.kind is Kind.SPACE:
            token = self.next()
        return token

    def peek_word(self) -> Token:
        """Show the next token that is no space, and drop the spaces before it."""
        token = self.next_word()
        self.back(token)
        return token

    def expect(self, context: str, *kinds: Kind) -> Token:
        """Take the next token that is no space, if it is of one of these kinds.

        Raises:
            TemplateError: it is not.
        """
        token = self.next_word()
        if token.kind not in kinds:
            raise self.unexpected(token, context)
        return token

    # Errors

    def error(self, message: str) -> TemplateError:
        """Make an error; it names the line of the token that was cut last."""
        line = self.shared.source.line(self._newest_start)
        return TemplateError(f"template: {self.shared.name}:{line}: {message}")

    def unexpected(self, token: Token, context: str) -> TemplateError:
        """Make the error for a token that does not belong here, or for what the lexer found wrong."""
        if token.kind is not Kind.ERROR:
            return self.error(f"unexpected {token} in {context}")
        extra = ""
        if self.action_line not in (0, self.shared.source.line(token.start)):
            action = "" if token.text.endswith(" action") else " in action"
            extra = f"{action} started at {self.shared.name}:{self.action_line}"
        return self.error(f"{token}{extra}")

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """Count one more level of nesting while inside.

        Raises:
            TemplateError: there are too many.
        """
        self.shared.depth += 1
        if self.shared.depth > MAX_NESTING:
            raise self.error("max expression depth exceeded")
        yield
        self.shared.depth -= 1

    def position(self, start: int) -> Position:
        """Give the place of a character."""
        return self.shared.source.position(start)
