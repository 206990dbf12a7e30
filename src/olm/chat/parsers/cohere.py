"""cohere: blocks of thinking, text and actions; an action is a list of JSON calls. The prompt's end opens the thinking.

Sources: Ollama `model/parsers/cohere.go`; spec/ollama §10.1. Text may come without its block, and the older template's
`RESPONSE` stands for `TEXT`. The models number their calls from 0 in every answer, so those ids are not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from olm.chat.parsers.base import CallSyntax, ParseInput, Parser, ParserFamily, parser
from olm.chat.parsers.kit.bare_json import BareJsonCall
from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.json_calls import JsonKeys
from olm.chat.parsers.kit.lark import call_rules, json_object, literal, parameters_schema
from olm.chat.parsers.kit.mixed import think_mode
from olm.chat.parsers.kit.sections import CallReader, TextBefore
from olm.chat.parsers.kit.thinking import ThinkingParser, ThinkSection
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
    mode = think_mode(inp, is_on=is_on, start=_THINK)
    section = ThinkSection(
        "open" if mode == "open" else "closed" if inp.prefill else "maybe",
        start=_THINK,
        ends=(_THINK_END,),
    )
    return ThinkingParser(section, _Blocks(CallWriter(inp.new_id), is_in_text=bool(inp.prefill)))


class _Blocks:
    """Reads what follows the thinking, block by block."""

    def __init__(self, writer: CallWriter, *, is_in_text: bool) -> None:
        self._writer = writer
        self._text: TextBefore | None = None
        self._action: CallReader | None = None
        self._held = ""
        if is_in_text:
            self._open_text()

    def _open_text(self) -> None:
        self._text = TextBefore((*_TEXT_ENDS, _ACTION), trims=False)

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
            self._action = _Actions(self._writer) if marker == _ACTION else None
        return rest

    def _push_between(self, text: str) -> str:
        """Look for the next block; anything else is text without one."""
        text = (self._held + text).lstrip()
        self._held = ""
        opener = next((opener for opener in _OPENERS if text.startswith(opener)), "")
        if opener == _ACTION:
            self._action = _Actions(self._writer)
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


class _Actions:
    """Reads a list of calls. One that cannot be read does not spoil those beside it, and commas may be missing."""

    def __init__(self, writer: CallWriter) -> None:
        self._writer = writer
        self._before = TextBefore(("{", _ACTION_END))
        self._between: list[str] = []
        self._call: BareJsonCall | None = None

    def push(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Take more text: events, and the text behind the list or None."""
        events: list[AnswerEvent] = []
        while text:
            if self._call is not None:
                more, rest = self._call.push(text)
                events += more
                self._call = self._call if rest is None else None
                text = rest or ""
                continue
            between, marker, text = self._before.push(text)
            self._between.append(between)
            if marker:
                events += self._junk()
            if marker == _ACTION_END:
                return events, text
            if marker:
                self._call = BareJsonCall(self._writer, _KEYS)
                text = marker + text
        return events, None

    def _junk(self) -> list[AnswerEvent]:
        """Give back what stood between calls if it is more than the list's own marks."""
        text, self._between = "".join(self._between), []
        return self._writer.fail(text) if text.strip(" \t\r\n[],") else []

    def finish(self) -> tuple[list[AnswerEvent], str]:
        """The text is over."""
        if self._call is not None:
            return self._call.finish()
        self._between.append(self._before.finish())
        return self._junk(), ""


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
    listed = call_rules(calls, parallel=parallel, between=f'{blanks} "," {blanks}')
    opening, closing = literal(_ACTION + "["), literal("]" + _ACTION_END)
    section = f"calls: {opening} {blanks} call_list {blanks} {closing}\n"
    return section + listed.replace("calls:", "call_list:", 1)


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
