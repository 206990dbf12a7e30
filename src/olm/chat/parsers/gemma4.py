"""Answers of Gemma 4: thinking in `<|channel>thought\\n…<channel|>`, calls as `<|tool_call>call:NAME{…}<tool_call|>`.

The rules are those of Ollama's `model/parsers/gemma4.go`: thoughts that nobody asked for are dropped, and so are end
markers and `<|tool_response>` behind a call. A call ends with its object, so arguments stream and nothing waits for
the end marker. After a tool's result the prompt may end in an open thought.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from olm.chat.parsers.base import CallSyntax, ParseInput, Parser, ParserFamily, parser
from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.gemma_calls import GemmaCall, GemmaSyntax
from olm.chat.parsers.kit.gemma_lark import gemma_lark
from olm.chat.parsers.kit.kept_text import ContentWithCalls
from olm.chat.parsers.kit.sections import CallReader, TextBefore
from olm.chat.tools import Tool
from olm.chat.types import AnswerEvent, Piece

__all__ = ()

_SYNTAX: Final = GemmaSyntax(
    begin="<|tool_call>", end="<tool_call|>", quote='<|"|>', noise=("<|tool_response>",)
)
_THOUGHT: Final = "<|channel>"
_THOUGHT_END: Final = "<channel|>"
_CHANNEL_NAME: Final = "thought\n"


class _Thought:
    """Reads one channel, from behind its marker or its name on."""

    def __init__(self, *, is_wanted: bool, has_name: bool) -> None:
        self._is_wanted = is_wanted
        self._may_be_name = has_name
        self._held = ""
        self._before = TextBefore((_THOUGHT_END,))

    def push(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Take more text: events, and the text behind the channel or None."""
        if self._may_be_name:
            self._held += text
            if len(self._held) < len(_CHANNEL_NAME) and _CHANNEL_NAME.startswith(self._held):
                return [], None
            text, self._may_be_name = self._held.removeprefix(_CHANNEL_NAME), False
            self._held = ""
        thinking, marker, rest = self._before.push(text)
        return self._piece(thinking), rest if marker else None

    def finish(self) -> tuple[list[AnswerEvent], str]:
        """The text is over: so is the thinking."""
        return self._piece(self._held + self._before.finish()), ""

    def _piece(self, thinking: str) -> list[AnswerEvent]:
        return [Piece(thinking=thinking)] if thinking and self._is_wanted else []


def _make_thinking(given: ParseInput) -> Parser:
    is_open = bool(given.think) and given.prompt.endswith(_THOUGHT + _CHANNEL_NAME)
    return _make(given, thinks=bool(given.think), is_open=is_open)


def _make_plain(given: ParseInput) -> Parser:
    return _make(given, thinks=False, is_open=False)


def _make(given: ParseInput, *, thinks: bool, is_open: bool) -> Parser:
    writer = CallWriter(given.new_id)

    def open_section(marker: str) -> CallReader:
        if marker == _THOUGHT:
            return _Thought(is_wanted=thinks, has_name=True)
        return GemmaCall(_SYNTAX, writer, given.tools)

    opened = _Thought(is_wanted=thinks, has_name=False) if is_open else None
    return ContentWithCalls((_THOUGHT, _SYNTAX.begin), open_section, opened=opened)


def _lark(tools: Sequence[Tool], parallel: bool) -> str:
    return gemma_lark(_SYNTAX, tools, parallel)


_TOKENS: Final = (
    _THOUGHT, _THOUGHT_END, _SYNTAX.begin, _SYNTAX.end, *_SYNTAX.noise, _SYNTAX.quote,
)  # fmt: skip
_CALLS: Final = CallSyntax((_SYNTAX.begin,), _lark)

parser(
    "gemma4",
    ParserFamily(
        make=_make_thinking,
        tools=True,
        thinking=True,
        preserved_tokens=_TOKENS,
        think_start=_THOUGHT,
        think_ends=(_THOUGHT_END,),
        calls=_CALLS,
    ),
)
parser(
    "gemma4-no-thinking",
    ParserFamily(make=_make_plain, tools=True, preserved_tokens=_TOKENS, calls=_CALLS),
)
