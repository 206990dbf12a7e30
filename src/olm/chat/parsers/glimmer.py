"""Answers of Muse Glimmer: messages to recipients, `<|start|>assistant to=X<|message|>…`, ended by `<|eom|>` or `<|eot|>`.

What goes to `self` is thinking, to a tool an ATEM call (`atem`), to anybody else content. Rules from Ollama's
`model/parsers/glimmer.go`: a new header ends a message, too, if its recipient is known; a message that is nothing but a
call of a known tool is one whoever it is addressed to; a tool may be addressed through its own name space (`read.read`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from olm.chat.parsers.base import CallSyntax, ParseInput, Parser, ParserFamily, parser
from olm.chat.parsers.kit.atem import ATEM, AtemCall, atem_rule
from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.lark import literal, section_rules
from olm.chat.parsers.kit.sections import TextBefore
from olm.chat.tools import Tool
from olm.chat.types import AnswerEvent, Piece

__all__ = ["resolve"]

_START: Final = "<|start|>"
_MESSAGE: Final = "<|message|>"
_MORE: Final = "<|eom|>"
_END: Final = "<|eot|>"
_PREFIX: Final = _START + "assistant"
_MAX_HEADER: Final = 256
"""A header is a name; what goes on longer without `<|message|>` is an answer without one."""
_HEADER: Final = re.compile(r"<\|start\|>assistant(?: to=([^\s<]*))?(<.*)?", re.DOTALL)

_CONTENT_HEADERS: Final = (_PREFIX + " to=user" + _MESSAGE, " to=user" + _MESSAGE)
"""What stands before content: behind the end of thinking, and at the very beginning of an answer."""


def resolve(tools: Mapping[str, Tool], name: str) -> Tool | None:
    """Find the tool that a recipient or a call names: by its name, or behind the name space that is derived from it."""
    if name in tools:
        return tools[name]
    space, _, inner = name.partition(".")
    return tools.get(inner) if space == inner.partition(".")[0] else None


class _Glimmer:
    """Goes from message to message."""

    def __init__(self, inp: ParseInput) -> None:
        self._writer = CallWriter(inp.new_id)
        self._tools = {tool.name: tool for tool in inp.tools}
        self._shows_thinking = inp.think is None or bool(inp.think)
        self._events: list[AnswerEvent] = []
        self._step: Callable[[str], str] = self._in_header
        self._held = ""
        self._is_thinking = False
        self._before: TextBefore
        self._call: AtemCall
        self._arguments: list[str] = []
        self._raw: list[str] = []
        self._begin_text()
        self._step = self._in_header

    def push(self, text: str) -> list[AnswerEvent]:
        """Take more of the answer."""
        self._events = []
        while text:
            text = self._step(text)
        return self._events

    def finish(self) -> list[AnswerEvent]:
        """The answer is over."""
        self._events = []
        if self._step in {self._in_call, self._in_broken_call}:
            self._events += self._writer.fail("".join(self._raw))
        elif self._step == self._behind_block:
            self._write_block()
        elif self._step == self._in_block:
            self._begin_text()
            self._events += self.push("".join(self._raw))
            self._add_text(self._before.finish())
        elif self._step == self._in_new_header:
            self._add_text(self._held)
        elif self._step == self._in_header:
            self._add_text(self._held.removeprefix(_PREFIX))
        else:
            self._add_text(self._before.finish())
        return self._events

    # Each step takes text and returns what the next one goes on with.

    def _in_header(self, text: str) -> str:
        self._held += text
        end = self._held.find(_MESSAGE, 0, _MAX_HEADER + len(_MESSAGE))
        if end < 0:
            if len(self._held) < _MAX_HEADER + len(_MESSAGE):
                return ""
            rest, self._held = self._held, ""
            self._begin_text()
            return rest
        header, rest = self._held[: end + len(_MESSAGE)], self._held[end + len(_MESSAGE) :]
        self._held = ""
        self._begin_body(header)
        return rest

    def _begin_body(self, header: str) -> None:
        name = header.removeprefix(_PREFIX).removesuffix(_MESSAGE).strip()
        recipient = name.removeprefix("to=").strip()
        tool = resolve(self._tools, recipient)
        if recipient == "self":
            self._begin_text(is_thinking=True)
        elif tool:
            self._events += self._writer.start(tool.name)
            self._call = AtemCall(lambda named: tool if self._find(named) is tool else None)
            self._step, self._raw = self._in_call, [header]
        elif self._tools:
            self._call, self._arguments, self._raw = AtemCall(self._find), [], []
            self._step, self._is_thinking = self._in_block, False
        else:
            self._begin_text()

    def _find(self, name: str) -> Tool | None:
        # Some models repeat the marker of the header in the name.
        return resolve(self._tools, name.replace(_MESSAGE, ""))

    def _begin_text(self, *, is_thinking: bool = False) -> None:
        self._step, self._is_thinking = self._in_text, is_thinking
        self._before = TextBefore((_MORE, _END, _START), trims=False)

    def _begin_header(self) -> None:
        self._step, self._held, self._is_thinking = self._in_header, "", False

    def _add_text(self, text: str) -> None:
        if not self._is_thinking and text:
            self._events.append(Piece(content=text))
        elif text and self._shows_thinking:
            self._events.append(Piece(thinking=text))

    def _in_text(self, text: str) -> str:
        part, marker, rest = self._before.push(text)
        self._add_text(part)
        if marker == _START:
            self._step, self._held = self._in_new_header, _START
        elif marker:
            self._begin_header()
        return rest

    def _in_new_header(self, text: str) -> str:
        """Tell a header from text about headers: it is one when it is whole and its recipient known."""
        self._held += text
        if self._is_header(self._held):
            self._step, self._is_thinking = self._in_header, False
            held, self._held = self._held, ""
            return held
        if self._may_be_header(self._held):
            return ""
        rest, self._held = self._held[len(_START) :], ""
        self._step = self._in_text
        self._add_text(_START)
        return rest

    def _is_header(self, text: str) -> bool:
        found = _HEADER.fullmatch(text)
        if not found or not (found[2] or "").startswith(_MESSAGE):
            return False
        return found[1] is None or found[1] in {"self", "user"} or found[1] in self._tools

    def _may_be_header(self, text: str) -> bool:
        if len(text) > _MAX_HEADER:
            return False
        if f"{_PREFIX} to=".startswith(text) or (_PREFIX + _MESSAGE).startswith(text):
            return True
        found = _HEADER.fullmatch(text)
        is_open = found is not None and _MESSAGE.startswith(found[2] or "")
        return is_open and (found is not None and found[1] is not None) and found[2] != _MESSAGE

    def _in_call(self, text: str) -> str:
        self._raw.append(text)
        self._events += self._writer.arguments(self._call.push(text))
        if self._call.state == "open":
            return ""
        if self._call.state == "done":
            self._events += self._writer.end()
            self._step = self._behind_call
            return self._call.rest
        self._step, self._before = self._in_broken_call, TextBefore((_MORE, _END), trims=False)
        self._drop_raw(self._call.rest)
        return self._call.rest

    def _behind_call(self, text: str) -> str:
        """White space between a call and the message's end means nothing; other text is content."""
        text = text.lstrip()
        if text:
            self._begin_text()
        return text

    def _in_broken_call(self, text: str) -> str:
        part, marker, rest = self._before.push(text)
        self._raw.append(text)
        if marker:
            self._drop_raw(rest)
            self._events += self._writer.fail("".join(self._raw))
            self._begin_header()
        del part  # it stands in the raw text
        return rest

    def _drop_raw(self, rest: str) -> None:
        """Take the text back that the next step will read."""
        raw = "".join(self._raw)
        self._raw = [raw[: len(raw) - len(rest)]]

    def _in_block(self, text: str) -> str:
        """Read a message that may be a call though it is not addressed to a tool."""
        self._raw.append(text)
        self._arguments.append(self._call.push(text))
        if self._call.state == "open":
            return ""
        if self._call.state == "done":
            self._step, self._held = self._behind_block, ""
            self._drop_raw(self._call.rest)
            return self._call.rest
        return self._release_block()

    def _release_block(self) -> str:
        """It is content after all, to be read again."""
        self._begin_text()
        return "".join(self._raw)

    def _behind_block(self, text: str) -> str:
        """The message must end here."""
        self._raw.append(text)
        self._held = (self._held + text).lstrip()
        for marker in (_MORE, _END):
            if self._held.startswith(marker):
                rest = self._held[len(marker) :]
                self._write_block()
                self._begin_header()
                return rest
        if self._is_header(self._held):
            self._write_block()
            rest = self._held
            self._begin_header()
            return rest
        may_end = any(marker.startswith(self._held) for marker in (_MORE, _END))
        if may_end or self._may_be_header(self._held):
            return ""
        return self._release_block()

    def _write_block(self) -> None:
        assert self._call.tool is not None, "a whole call names a tool"
        self._events += self._writer.whole(self._call.tool.name, "".join(self._arguments))


def _make(inp: ParseInput) -> Parser:
    return _Glimmer(inp)


def _lark(tools: Sequence[Tool], parallel: bool) -> str:
    rules = ['call_value[suffix="</atem:parameter>"]: /(?s:.*)/']
    start = f'{literal(_START)} "assistant"'
    calls = [
        f"({literal(' to=' + tool.name)})? {literal(_MESSAGE)} {atem_rule(rules, tool, 'call_value')}"
        for tool in tools
    ]
    between = f"{literal(_MORE)} {start}"
    return section_rules(f"({start})?", calls, "", parallel=parallel, between=between, extra=rules)


parser(
    "glimmer",
    ParserFamily(
        make=_make,
        tools=True,
        thinking=True,
        thinks=True,
        preserved_tokens=(_START, _MESSAGE, _MORE, _END),
        think_start=" to=self" + _MESSAGE,
        think_ends=(_MORE,),
        content_headers=_CONTENT_HEADERS,
        # The recipient stands before this, so that `to=user` and `to=self` do not trigger it.
        calls=CallSyntax((_MESSAGE + ATEM,), _lark),
    ),
)
