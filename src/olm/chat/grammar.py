"""The grammar of an answer as the engine takes it. How one is composed: `constraints`."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["AnswerGrammar", "GrammarKind"]

GrammarKind = Literal["lark", "json_schema", "regex", "llguidance"]
"""The languages of llguidance; "llguidance" is its own JSON of several grammars."""


class AnswerGrammar(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the content of an answer must match; thinking is free.

    Without `triggers` all of the content must, and the answer ends where the grammar does. With them the content is free
    until one of these texts comes; from its first byte on it must match until the grammar ends. Then it is free again, or
    over if it `ends` there; a grammar that cannot be used is left out, where without triggers it is an error.
    In the grammar, visible special tokens are plain text; no other can be written.

    Attributes:
        fallback: a grammar of the same kind that holds instead where `text` cannot be compiled; empty for none.
    """

    kind: GrammarKind
    text: str
    triggers: tuple[str, ...] = ()
    ends: bool = False
    fallback: str = ""
