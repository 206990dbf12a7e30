"""cohere: blocks of thinking, text and actions; an action is a list of JSON calls. The prompt's end opens the thinking.

Sources: Ollama `model/parsers/cohere.go`; spec/ollama §10.1. Text may come without its block, and the older template's
`RESPONSE` stands for `TEXT`. The models number their calls from 0 in every answer, so those ids are not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from olm.chat.parsers.base import CallSyntax, ParseInput, Parser, ParserFamily, parser
from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.json_calls import JsonCallList, JsonKeys
from olm.chat.parsers.kit.lark import json_object, literal, parameters_schema, section_rules
from olm.chat.parsers.kit.sections import SectionReader, TextBefore
from olm.chat.parsers.kit.thinking import ThinkingParser, ThinkSection, think_mode
from olm.chat.tools import Tool
from olm.chat.types import AnswerEvent, Piece

__all__ = ()

_THINK: Final = "<|START_THINKING|>"
_THINK_END: Final = "<|END_THINKING|>"
_TEXTS: Final = ("<|START_TEXT|>", "<|START_RESPONSE|>")
_ACTION: Final = "<|START_ACTION|>"
_ACTION_END: Final = "<|END_ACTION|>"
_TURN_END: Final = "<|END_OF_TURN_TOKEN|>"
_TEXT_ENDS: Final = ("<|END_TEXT|>", "<|END_RESPONSE|>", _TURN_END)
_OPENERS: Final = (*_TEXTS, _ACTION, _TURN_END)
_KEYS: Final = JsonKeys(name="tool_name", arguments=("parameters",))


def _make(inp: ParseInput) -> Parser:
    is_on = (inp.think is None or bool(inp.think)) and not inp.prefill
    mode = think_mode(inp, is_on=is_on, start=_THINK, ends=(_THINK_END,))
    if mode == "closed" and not inp.prefill:
        mode = "maybe"  # what the models think unasked is not content
    section = ThinkSection(mode, start=_THINK, ends=(_THINK_END,))
    return ThinkingParser(section, _Blocks(CallWriter(inp.new_id), is_in_text=bool(inp.prefill)))


class _Blocks:
    """Reads what follows the thinking, block by block."""

    def __init__(self, writer: CallWriter, *, is_in_text: bool) -> None:
        self._writer = writer
        self._text: TextBefore | None = None
        self._action: SectionReader | None = None
        self._held = ""
        if is_in_text:
            self._open_text()

    def _open_text(self) -> None:
        self._text = TextBefore((*_TEXT_ENDS, _ACTION), trims=False)

    def _open_action(self) -> None:
        self._action = JsonCallList(self._writer, _ACTION_END, keys=_KEYS)

    def push(self, text: str) -> list[AnswerEvent]:
        """Take more of the answer."""
        events: list[AnswerEvent] = []
        while text:
            if self._action is not None:
                more, rest = self._action.push(text)
                events += more
                text = rest or ""
                self._action = self._action if rest is None else None
            elif self._text is not None:
                text = self._push_text(self._text, text, events)
            else:
                text = self._push_between(text)
        return events

    def _push_text(self, before: TextBefore, text: str, events: list[AnswerEvent]) -> str:
        content, marker, rest = before.push(text)
        if content:
            events.append(Piece(content=content))
        if marker:
            self._text = None
        if marker == _ACTION:
            self._open_action()
        return rest

    def _push_between(self, text: str) -> str:
        """Look for the next block; anything else is text without one."""
        text = (self._held + text).lstrip()
        self._held = ""
        opener = next((opener for opener in _OPENERS if text.startswith(opener)), "")
        if opener == _ACTION:
            self._open_action()
        elif opener != _TURN_END:
            if any(known.startswith(text) for known in _OPENERS) and not opener:
                self._held = text
                return ""
            self._open_text()
        return text[len(opener) :]

    def finish(self) -> list[AnswerEvent]:
        """The answer is over."""
        if self._action is not None:
            more, rest = self._action.finish()
            self._action = None
            return [*more, *self.push(rest), *self.finish()]
        rest, self._held = self._text.finish() if self._text else self._held, ""
        return [Piece(content=rest)] if rest else []


def _lark(tools: Sequence[Tool], parallel: bool) -> str:
    calls = []
    for tool in tools:
        members: dict[str, Mapping[str, object]] = {
            "tool_call_id": {"type": "string", "pattern": "^[0-9]+$"},
            "tool_name": {"const": tool.name},
            "parameters": parameters_schema(tool),
        }
        calls.append(json_object(members, tool.parameters))
    blanks = "/\\s*/"
    return section_rules(
        f"{literal(_ACTION + '[')} {blanks}",
        calls,
        f"{blanks} {literal(']' + _ACTION_END)}",
        parallel=parallel,
        between=f'{blanks} "," {blanks}',
    )


parser(
    "cohere",
    ParserFamily(
        make=_make,
        tools=True,
        thinking=True,
        thinks=True,
        preserved_tokens=(_THINK, _THINK_END, *_TEXTS, *_TEXT_ENDS, _ACTION, _ACTION_END),
        think_start=_THINK,
        think_ends=(_THINK_END,),
        calls=CallSyntax((_ACTION,), _lark),
    ),
)
