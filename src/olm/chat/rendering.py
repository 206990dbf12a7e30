"""What becomes of a chat on its way to the engine, the same for all three ways: prompt text, tags, and a parser.

The ways themselves: `olm.chat.ways` (named renderers, Go templates) and `olm.native.chat` (Jinja).
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from olm.chat.parsers.base import CallSyntax, Parser

__all__ = ["Rendered", "ThinkTags", "ToolGrammar"]


@attrs.frozen
class ThinkTags:
    """How thinking is marked in generated text. `is_open`: the prompt's end has opened it already."""

    start: str
    ends: tuple[str, ...]
    is_open: bool = False


@attrs.frozen
class ToolGrammar:
    """A grammar of tool calls that came with a Jinja template.

    Attributes:
        gbnf: the calls. What waits for a trigger may well match nothing, or blanks without end.
        triggers: the texts that arm it; empty: it holds at once.
        beside_form: the calls where they stand for a form of the content, never nothing; empty when no form was asked for.
    """

    gbnf: str
    triggers: tuple[str, ...] = ()
    beside_form: str = ""


@attrs.frozen(kw_only=True)
class Rendered:
    """A rendered chat.

    Attributes:
        text: the prompt, `[img-N]` marks included.
        stops: strings that end an answer besides the request's own.
        preserved_tokens: special tokens that the parser must see.
        think: None when the answer cannot hold thinking (the model has none, or the prompt has closed it).
        content_headers: see `ParserFamily`.
        calls: how tool calls look, for a grammar; None without tools or without a known syntax.
        make_parser: makes the parser of this answer; called once, when generation starts.
    """

    text: str
    make_parser: Callable[[], Parser]
    stops: tuple[str, ...] = ()
    preserved_tokens: tuple[str, ...] = ()
    think: ThinkTags | None = None
    content_headers: tuple[str, ...] = ()
    calls: CallSyntax | ToolGrammar | None = None
