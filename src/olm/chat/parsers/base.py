"""What a parser is, and the table of them: from generated text to content, thinking and tool calls, one family a file.

Parsers are plain objects without I/O or clock: text in, events out, in any pieces. A file of this package registers
its families with `parser(...)`; nothing else has to be edited. What they are made of: `kit`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import attrs

from olm.chat.tools import Tool
from olm.chat.types import AnswerEvent, Think

__all__ = ["PARSERS", "CallSyntax", "ParseInput", "Parser", "ParserFamily", "parser"]


class Parser(Protocol):
    """Takes one answer apart. The events do not depend on how the text was cut into pieces, joined deltas apart."""

    def push(self, text: str) -> list[AnswerEvent]:
        """Take more text; what may still turn out to be a marker is held back. Never raises for what a model wrote."""

    def finish(self) -> list[AnswerEvent]:
        """The text is over: give out what was held back. An unfinished call comes back as malformed content."""


@attrs.frozen(kw_only=True)
class ParseInput:
    """What a parser knows when an answer begins.

    Attributes:
        tools: those that the prompt offered.
        think: what the request asked for; None is the family's habit.
        prompt: the rendered prompt, whose end may have opened or closed the thinking already.
        prefill: the content of a last assistant message that the answer continues; None for a fresh answer.
        new_id: makes the id of a call (`call_` and 8 of a-z0-9 in Ollama).
    """

    tools: Sequence[Tool] = ()
    think: Think | None = None
    prompt: str = ""
    prefill: str | None = None
    new_id: Callable[[], str]


@attrs.frozen
class CallSyntax:
    """How a family writes tool calls, so that a grammar can hold the model to it.

    Attributes:
        triggers: texts with which a call or a section of calls begins.
        lark: given the tools that may be called and whether several calls are allowed, rules in llguidance's Lark,
            one of them named `calls`, that match everything from the trigger to the end of the last call. Special tokens
            are written as plain string literals; JSON schemas inline as `%json {...}`. Rules of its own begin with `call`.
    """

    triggers: tuple[str, ...]
    lark: Callable[[Sequence[Tool], bool], str]


@attrs.frozen(kw_only=True)
class ParserFamily:
    """A parser's entry in the table.

    Attributes:
        tools, thinking: what it can tell from content (they become capabilities of a model).
        thinks: its habit when a request does not say.
        preserved_tokens: special tokens that must be seen in the text.
        think_start, think_ends: tags around thinking; empty when it has none or marks it otherwise.
        content_headers: what may stand before content without being content (behind thinking, at the beginning), for
            families that head every part of an answer; a form of the content begins behind it.
        calls: None when calls cannot be constrained.
    """

    make: Callable[[ParseInput], Parser]
    tools: bool = False
    thinking: bool = False
    thinks: bool = False
    preserved_tokens: tuple[str, ...] = ()
    think_start: str = ""
    think_ends: tuple[str, ...] = ()
    content_headers: tuple[str, ...] = ()
    calls: CallSyntax | None = None


PARSERS: Final[dict[str, ParserFamily]] = {}
"""By name; filled when the package is imported, by the files in it."""


def parser(name: str, family: ParserFamily) -> None:
    """Enter a family into the table. Asserts that the name is free."""
    assert name not in PARSERS, f"two parsers are named {name}"
    PARSERS[name] = family
