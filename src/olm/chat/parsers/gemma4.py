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
from olm.chat.parsers.kit.sections import SectionReader, TextSection, TextWithSections
from olm.chat.tools import Tool
from olm.chat.types import AnswerEvent

__all__ = ()

_SYNTAX: Final = GemmaSyntax(
    begin="<|tool_call>", end="<tool_call|>", quote='<|"|>', noise=("<|tool_response>",)
)
_THOUGHT: Final = "<|channel>"
_THOUGHT_END: Final = "<channel|>"
_CHANNEL_NAME: Final = "thought\n"


class _Thought(TextSection):
    """Reads one channel, from behind its marker or its name on."""

    __slots__ = ("_held", "_may_be_name")

    def __init__(self, *, is_wanted: bool, has_name: bool) -> None:
        super().__init__((_THOUGHT_END,), "thinking" if is_wanted else None, drops=("end",))
        self._may_be_name = has_name
        self._held = ""

    def push(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Take more text: events, and the text behind the channel or None."""
        if self._may_be_name:
            self._held += text
            if len(self._held) < len(_CHANNEL_NAME) and _CHANNEL_NAME.startswith(self._held):
                return [], None
            text, self._may_be_name = self._held.removeprefix(_CHANNEL_NAME), False
        return super().push(text)

    def finish(self) -> tuple[list[AnswerEvent], str]:
        """The text is over: so is the thinking."""
        if self._may_be_name:
            return self._given(self._held), ""
        return super().finish()


def _make_thinking(inp: ParseInput) -> Parser:
    is_open = bool(inp.think) and inp.prompt.endswith(_THOUGHT + _CHANNEL_NAME)
    return _make(inp, thinks=bool(inp.think), is_open=is_open)


def _make_plain(inp: ParseInput) -> Parser:
    return _make(inp, thinks=False, is_open=False)


def _make(inp: ParseInput, *, thinks: bool, is_open: bool) -> Parser:
    writer = CallWriter(inp.new_id)

    def open_thought(marker: str) -> SectionReader:
        return _Thought(is_wanted=thinks, has_name=True)

    def open_call(marker: str) -> SectionReader:
        return GemmaCall(_SYNTAX, writer, inp.tools)

    return TextWithSections(
        {_THOUGHT: open_thought, _SYNTAX.begin: open_call},
        drops=("before", "behind"),
        opened=_Thought(is_wanted=thinks, has_name=False) if is_open else None,
    )


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
