"""Answers of gpt-oss in the harmony format: messages with a header that names a channel and, for calls, a recipient.

    <|start|>assistant<|channel|>analysis<|message|>…<|end|>
    <|start|>assistant<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{…}<|call|>
    <|start|>assistant<|channel|>final<|message|>…

`analysis` is thinking, `final` and `commentary` without a recipient are content. Rules from Ollama's
`harmony/harmonyparser.go`, forgiving more: a second header in the first (gpt-oss-20b), a missing `<|start|>`, no header at
all. Arguments stream literally as they are generated. The prompt (a Go template's) may end within a header or a message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import attrs

from olm.chat.parsers.base import CallSyntax, ParseInput, Parser, ParserFamily, parser
from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.harmony_names import map_tools
from olm.chat.parsers.kit.json_span import object_or_none
from olm.chat.parsers.kit.lark import call_rules, json_value, literal, parameters_schema
from olm.chat.parsers.kit.sections import TextBefore
from olm.chat.tools import Tool
from olm.chat.types import AnswerEvent, Piece

__all__ = ["Header", "read_header"]

_START: Final = "<|start|>"
_CHANNEL: Final = "<|channel|>"
_MESSAGE: Final = "<|message|>"
_CONSTRAIN: Final = "<|constrain|>"
_END: Final = "<|end|>"
_CALL_ENDS: Final = (_END, "<|call|>", "<|return|>")
_FUNCTIONS: Final = "functions."
_MAX_HEADER: Final = 256
"""A header is a few words; what goes on longer without `<|message|>` is an answer without one."""

_CONTENT_HEADERS: Final = (
    _START + "assistant" + _CHANNEL + "final" + _MESSAGE,
    _CHANNEL + "final" + _MESSAGE,
)
"""What stands before content: behind the end of thinking, and at the very beginning of an answer."""


@attrs.frozen
class Header:
    """The head of a message. What it does not say is empty."""

    role: str = ""
    channel: str = ""
    recipient: str = ""

    @property
    def is_call(self) -> bool:
        """Whether the message goes to a tool."""
        return bool(self.recipient) and self.channel in {"analysis", "commentary", ""}


def read_header(raw: str) -> Header:
    """Read what stands between `<|start|>` and `<|message|>`; of several channels the last counts.

    A recipient may stand before or behind the channel, or in place of the role.
    """
    before, _, behind = raw.replace(_CONSTRAIN, " " + _CONSTRAIN).rpartition(_CHANNEL)
    channel = ""
    if _CHANNEL in raw:
        words = behind.split(maxsplit=1)
        channel = words[0] if words and not behind[0].isspace() else ""
    words = (before.replace(_CHANNEL, " ") + " " + behind[len(channel) :]).split()
    if not words:
        return Header(channel=channel)
    recipients = [word[3:] for word in words if word.startswith("to=") and word != "to=assistant"]
    role = "tool" if words[0].startswith("to=") else words[0]
    return Header(role, channel, recipients[0] if recipients else "")


class _Harmony:
    """Goes from message to message."""

    def __init__(self, inp: ParseInput) -> None:
        self._writer = CallWriter(inp.new_id)
        self._names = map_tools(inp.tools)[1]
        self._events: list[AnswerEvent] = []
        self._step: Callable[[str], str]
        self._before: TextBefore
        self._held = ""
        """The header so far, as far as the model wrote it, and (below) as far as the prompt has."""
        self._begun = ""
        self._is_thinking = self._is_first = False
        self._raw: list[str] = []
        self._body: list[str] = []
        self._begin_as_prompted(inp)

    def push(self, text: str) -> list[AnswerEvent]:
        """Take more of the answer."""
        self._events = []
        while text:
            text = self._step(text)
        return self._events

    def finish(self) -> list[AnswerEvent]:
        """The answer is over. The beginning of another message is dropped."""
        self._events = []
        if self._step == self._in_header:
            if self._is_first and _CHANNEL not in self._held:
                self._add_text(self._held)
        elif self._step == self._in_call:
            self._take_body(self._before.finish())
            self._end_call("")
        else:
            self._add_text(self._before.finish())
        return self._events

    def _begin_as_prompted(self, inp: ParseInput) -> None:
        _, started, tail = inp.prompt.rpartition(_START)
        header, is_body, body = tail.partition(_MESSAGE)
        if inp.prefill:
            self._begin_body(Header("assistant", "final"))
        elif not is_body:
            self._begin_header("", tail if started else "assistant")
            self._is_first = True
        elif _END in body:
            self._begin_between()
        else:
            self._begin_body(read_header(header))

    def _begin_between(self) -> None:
        self._step, self._is_thinking = self._between, False
        self._before = TextBefore((_START, _CHANNEL))

    def _begin_header(self, held: str, begun: str = "") -> None:
        self._step, self._held, self._begun, self._is_first = self._in_header, held, begun, False

    def _begin_body(self, header: Header) -> None:
        if header.is_call:
            self._raw, self._body = [self._held], []
            name = header.recipient.removeprefix(_FUNCTIONS)
            self._events += self._writer.start(self._names.get(name) or name or header.recipient)
            self._step, self._before = self._in_call, TextBefore(_CALL_ENDS, trims=False)
            return
        self._is_thinking = header.channel == "analysis" and not header.recipient
        self._step, self._before = self._in_text, TextBefore((_END,), trims=False)

    # Each step takes text and returns what the next one goes on with.

    def _between(self, text: str) -> str:
        """Look for the next message. Text outside of messages is content, if there is any."""
        outside, marker, rest = self._before.push(text)
        self._add_text(outside)
        if marker:
            self._begin_header(marker if marker == _CHANNEL else "")
        return rest

    def _in_header(self, text: str) -> str:
        self._held += text
        end = self._held.find(_MESSAGE, 0, _MAX_HEADER + len(_MESSAGE))
        if end >= 0:
            whole, rest = self._held, self._held[end + len(_MESSAGE) :]
            self._held = whole[: end + len(_MESSAGE)]
            self._begin_body(read_header(self._begun + whole[:end]))
            return rest
        if len(self._held) < _MAX_HEADER + len(_MESSAGE):
            return ""
        self._begin_body(Header("assistant", "final"))
        return self._held

    def _in_text(self, text: str) -> str:
        part, marker, rest = self._before.push(text)
        self._add_text(part)
        if marker:
            self._begin_between()
        return rest

    def _add_text(self, text: str) -> None:
        if text:
            self._events.append(Piece(thinking=text) if self._is_thinking else Piece(content=text))

    def _in_call(self, text: str) -> str:
        part, marker, rest = self._before.push(text)
        self._take_body(part)
        if marker:
            self._end_call(marker)
            self._begin_between()
        return rest

    def _take_body(self, part: str) -> None:
        """Pass arguments on as soon as they are seen to be an object."""
        self._raw.append(part)
        if not self._body:
            part = part.lstrip()
        if part:
            self._body.append(part)
            if self._body[0][0] == "{":
                self._events += self._writer.arguments(part)

    def _end_call(self, marker: str) -> None:
        whole = "".join(self._body)
        if not whole or object_or_none(whole) is not None:
            self._events += self._writer.end()
        else:
            self._events += self._writer.fail("".join(self._raw) + marker)


def _make(inp: ParseInput) -> Parser:
    return _Harmony(inp)


def _lark(tools: Sequence[Tool], parallel: bool) -> str:
    """Write one call, which ends a turn of gpt-oss: it never makes several."""
    del parallel
    start, channel, message = literal(_START), literal(_CHANNEL), literal(_MESSAGE)
    constraint = f'(" "? {literal(_CONSTRAIN)} "json")?'
    calls = []
    for tool in map_tools(tools)[0]:
        recipient = literal(f" to={_FUNCTIONS}{tool.name}")
        schema = json_value(parameters_schema(tool), tool.parameters)
        in_channel = f'({start} "assistant")? {channel} call_channel {recipient} {constraint}'
        in_role = f'{start} "assistant" {recipient} {channel} call_channel {constraint}'
        calls.append(f"({in_channel} | {in_role}) {message} {schema}")
    return call_rules(calls, parallel=False, extra=['call_channel: "commentary" | "analysis"'])


parser(
    "harmony",
    ParserFamily(
        make=_make,
        tools=True,
        thinking=True,
        thinks=True,
        # `<|call|>` is left out: it ends generation.
        preserved_tokens=(_START, _END, _MESSAGE, _CHANNEL, _CONSTRAIN),
        think_start=_CHANNEL + "analysis" + _MESSAGE,
        think_ends=(_END,),
        content_headers=_CONTENT_HEADERS,
        calls=CallSyntax(
            (
                f"{_CHANNEL}commentary to={_FUNCTIONS}",
                f"{_CHANNEL}analysis to={_FUNCTIONS}",
                f"{_START}assistant to={_FUNCTIONS}",
            ),
            _lark,
        ),
    ),
)
