"""Answers of Liquid's LFM2: `<|tool_call_start|>[f(a="v"), g()]<|tool_call_end|>`, for `lfm2-thinking` with `<think>` before.

The list may also be JSON. As in Ollama's `model/parsers/lfm2.go`, an answer that is nothing but calls of known tools
without the markers is taken for them. Strings are read with their escapes, so that what the renderer writes comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

from olm.chat.jsontext import compact_json
from olm.chat.parsers.base import CallSyntax, ParseInput, Parser, ParserFamily, parser
from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.json_calls import JsonCallList
from olm.chat.parsers.kit.python_calls import (
    Begun,
    Ended,
    PythonCalls,
    PythonSection,
    python_call_rules,
    read_calls,
)
from olm.chat.parsers.kit.sections import SectionReader, TextWithSections
from olm.chat.parsers.kit.thinking import ThinkingParser, ThinkSection
from olm.chat.tools import Tool
from olm.chat.types import AnswerEvent

__all__ = ()

_CALLS: Final = "<|tool_call_start|>"
_CALLS_END: Final = "<|tool_call_end|>"
_THINK: Final = "<think>"
_THINK_END: Final = "</think>"


class _Section:
    """Reads a section of calls, whose first characters show whether it is Python or JSON."""

    def __init__(self, writer: CallWriter) -> None:
        self._writer = writer
        self._held = ""
        self._reader: SectionReader | None = None

    def push(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Take more text: events, and the text behind the section or None."""
        if self._reader is None:
            self._held += text
            first = "".join(self._held.split())[:2]
            if first in {"", "["}:
                return [], None
            self._choose(is_json=first[0] == "{" or first == "[{")
            text = self._held
        assert self._reader is not None, "it has been chosen"
        return self._reader.push(text)

    def finish(self) -> tuple[list[AnswerEvent], str]:
        """The text is over."""
        if self._reader is None:
            return self._writer.fail(_CALLS + self._held), ""
        return self._reader.finish()

    def _choose(self, *, is_json: bool) -> None:
        self._reader = (
            JsonCallList(self._writer, _CALLS_END)
            if is_json
            else PythonSection(self._writer, _CALLS_END)
        )


class _BareCalls:
    """Holds back an answer as long as it may be nothing but calls of known tools; anything else goes on to `body`."""

    def __init__(self, body: Parser, writer: CallWriter, names: Sequence[str]) -> None:
        self._body, self._writer, self._names = body, writer, frozenset(names)
        self._beginnings = tuple(f"{opening}{name}(" for name in names for opening in ("", "["))
        self._held: list[str] | None = [] if names else None
        self._calls = PythonCalls()
        self._has_text = self._has_begun = False

    def push(self, text: str) -> list[AnswerEvent]:
        """Take more of the answer."""
        if self._held is None:
            return self._body.push(text)
        self._held.append(text)
        if self._has_begun:
            return [] if self._may_go_on(text) else self._release()
        if text.isspace() and not self._has_text:
            return []
        self._has_text = True
        whole = "".join(self._held).lstrip()
        if whole.startswith(self._beginnings):
            self._has_begun = True
            return [] if self._may_go_on(whole) else self._release()
        may_begin = any(beginning.startswith(whole) for beginning in self._beginnings)
        return [] if may_begin else self._release()

    def finish(self) -> list[AnswerEvent]:
        """The answer is over."""
        calls = read_calls("".join(self._held or [])) or []
        if calls and all(name in self._names for name, _ in calls):
            return [
                event
                for name, arguments in calls
                for event in self._writer.whole(name, compact_json(arguments))
            ]
        released = self._release() if self._held else []
        return [*released, *self._body.finish()]

    def _may_go_on(self, text: str) -> bool:
        return all(
            item.arguments is not None
            if isinstance(item, Ended)
            else isinstance(item, Begun) and item.name in self._names
            for item in self._calls.push(text)
        )

    def _release(self) -> list[AnswerEvent]:
        held, self._held = "".join(self._held or []), None
        return self._body.push(held)


def _make_instruct(inp: ParseInput) -> Parser:
    return _body(inp)


def _make_thinking(inp: ParseInput) -> Parser:
    if not inp.think or inp.prefill:
        return _body(inp)
    section = ThinkSection("maybe", start=_THINK, ends=(_THINK_END,))
    # Where the models might have thought, they write white space instead.
    return ThinkingParser(section, _body(inp, drops=("start",)))


def _body(inp: ParseInput, *, drops: Sequence[Literal["start"]] = ()) -> Parser:
    writer = CallWriter(inp.new_id)
    openers: dict[str, Callable[[str], SectionReader]] = {_CALLS: lambda _: _Section(writer)}
    content = TextWithSections(openers, drops=("before", "behind", *drops))
    names = () if inp.prefill else tuple(tool.name for tool in inp.tools)
    return _BareCalls(content, writer, names)


def _lark(tools: Sequence[Tool], parallel: bool) -> str:
    return python_call_rules(
        tools, _CALLS + "[", "]" + _CALLS_END, parallel=parallel, between="/, ?/"
    )


_SYNTAX: Final = CallSyntax((_CALLS,), _lark)

parser(
    "lfm2",
    ParserFamily(
        make=_make_instruct, tools=True, preserved_tokens=(_CALLS, _CALLS_END), calls=_SYNTAX
    ),
)
parser(
    "lfm2-thinking",
    ParserFamily(
        make=_make_thinking,
        tools=True,
        thinking=True,
        preserved_tokens=(_CALLS, _CALLS_END, _THINK, _THINK_END),
        think_start=_THINK,
        think_ends=(_THINK_END,),
        calls=_SYNTAX,
    ),
)
