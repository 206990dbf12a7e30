"""laguna and poolside-v1: the prompt's end opens or closes the thinking, then content and calls with pairs of tags.

Sources: Ollama `model/parsers/laguna.go`; spec/ollama §10.1. These models slip often, so calls are also read as JSON, within
`<user>`, and bare amid text, there only of known tools. Some names of tools that they have learnt stand for others.
Thinking that was not asked for is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Final

from olm.chat.parsers.base import CallSyntax, ParseInput, Parser, ParserFamily, parser
from olm.chat.parsers.kit.arg_calls import ARG_MARKS, CALL, ArgCalls, arg_call_rules
from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.json_calls import BareJsonCall, JsonKeys
from olm.chat.parsers.kit.sections import SectionReader, TextSection, TextWithSections
from olm.chat.parsers.kit.thinking import ThinkingParser, ThinkSection, think_mode
from olm.chat.types import AnswerEvent, Piece

__all__ = ()

_THINK: Final = "<think>"
_THINK_END: Final = "</think>"
_USER: Final = "<user>"
_USER_END: Final = "</user>"
_ALIASES: Final = {
    "read_file": "read",
    "write_file": "write",
    "edit_file": "edit",
    "web_fetch": "webfetch",
}
_NAME: Final = re.compile(r"[^\s<{]+")
_MAX_HEAD: Final = 200
"""Characters in which a call amid text must have named its tool."""


def _make(inp: ParseInput) -> Parser:
    return _parser_of(inp, is_continued=inp.prefill is not None)


def _make_v1(inp: ParseInput) -> Parser:
    return _parser_of(inp, is_continued=False)


def _parser_of(inp: ParseInput, *, is_continued: bool) -> Parser:
    is_on = bool(inp.think)
    mode = think_mode(inp, is_on=is_on and not is_continued)
    # Models write a line end behind the tag that the prompt ends with.
    cuts = (CALL,) if inp.tools else ()
    section = ThinkSection("open" if mode == "open" else "closed", cuts=cuts, trims_start=True)
    return ThinkingParser(section, _body(inp, is_on=is_on))


def _body(inp: ParseInput, *, is_on: bool) -> TextWithSections:
    tools = {tool.name: tool for tool in inp.tools}
    meant = {
        alias: name for alias, name in _ALIASES.items() if name in tools and alias not in tools
    }
    tools |= {alias: tools[name] for alias, name in meant.items()}
    writer = _Renaming(inp.new_id, meant)

    def open_call(marker: str) -> SectionReader:
        return ArgCalls(writer, tools, marker)

    def open_user(marker: str) -> SectionReader:
        return _Perhaps(marker, tools, lambda: ArgCalls(writer, tools, marker, _USER_END))

    def open_json(marker: str) -> SectionReader:
        return _Perhaps(marker, tools, lambda: BareJsonCall(writer, JsonKeys()))

    def open_thoughts(marker: str) -> SectionReader:
        cuts = (CALL,) if tools else ()
        return _Thoughts(cuts) if is_on else _UnaskedThoughts(cuts)

    openers: dict[str, Callable[[str], SectionReader]] = {
        _THINK: open_thoughts,
        _THINK_END: lambda marker: _Stray(),
    }
    if tools:
        openers |= {CALL: open_call, _USER: open_user, "{": open_json}
    return TextWithSections(openers, drops=("start", "before", "behind", "end"))


class _Renaming(CallWriter):
    """Writes calls under the names that were meant."""

    __slots__ = ("_meant",)

    def __init__(self, new_id: Callable[[], str], meant: dict[str, str]) -> None:
        super().__init__(new_id)
        self._meant = meant

    def start(self, name: str, call_id: str = "") -> list[AnswerEvent]:
        """Begin a call."""
        return super().start(self._meant.get(name, name), call_id)


class _Thoughts(TextSection):
    """Reads thoughts amid the content, up to their closing tag or a call."""

    __slots__ = ()

    def __init__(self, cuts: Sequence[str]) -> None:
        super().__init__((_THINK_END,), "thinking", drops=("start", "end"), cuts=cuts)


class _UnaskedThoughts:
    """Drops such thoughts. If they never end, the tag stood in a sentence: all is content."""

    def __init__(self, cuts: Sequence[str]) -> None:
        self._thoughts = _Thoughts(cuts)
        self._raw = [_THINK]

    def push(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Take more text."""
        self._raw.append(text)
        return [], self._thoughts.push(text)[1]

    def finish(self) -> tuple[list[AnswerEvent], str]:
        """The text is over."""
        return [Piece(content="".join(self._raw))], ""


class _Stray:
    """A tag that closes what is not open: nothing belongs to it."""

    def push(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Give all the text back."""
        return [], text

    def finish(self) -> tuple[list[AnswerEvent], str]:
        """The text is over."""
        return [], ""


class _Perhaps:
    """What may be a call of a known tool: either that, or content."""

    def __init__(
        self, marker: str, names: Collection[str], make: Callable[[], SectionReader]
    ) -> None:
        self._marker, self._names, self._make = marker, names, make
        self._held = ""
        self._reader: SectionReader | None = None

    def push(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Take more text."""
        if self._reader is not None:
            return self._reader.push(text)
        self._held += text
        begun = self._marker if self._marker == "{" else ""
        is_call = _names_a_call(begun + self._held, self._names)
        if is_call is None:
            return [], None
        if not is_call:
            return [Piece(content=self._marker)], self._held
        self._reader = self._make()
        return self._reader.push(begun + self._held)

    def finish(self) -> tuple[list[AnswerEvent], str]:
        """The text is over."""
        if self._reader is not None:
            return self._reader.finish()
        return [Piece(content=self._marker)], self._held


def _names_a_call(text: str, names: Collection[str]) -> bool | None:
    """Say whether a text begins with the name of a known tool, plain or as JSON's first member; None: not clear yet."""
    head = text[:_MAX_HEAD].lstrip()
    if head.startswith("{"):
        compact, wanted = "".join(head.split()), '{"name":"'
        if not compact.startswith(wanted):
            is_beginning = wanted.startswith(compact) and len(text) < _MAX_HEAD
            return None if is_beginning else False
        name, end, _ = compact[len(wanted) :].partition('"')
    else:
        found = _NAME.match(head)
        name = found[0] if found else ""
        end = head[len(name) : len(name) + 1]
    if end:
        return name in names
    is_beginning = any(known.startswith(name) for known in names) and len(text) < _MAX_HEAD
    return None if is_beginning else False


for _name, _maker in (("laguna", _make), ("poolside-v1", _make_v1)):
    parser(
        _name,
        ParserFamily(
            make=_maker,
            tools=True,
            thinking=True,
            preserved_tokens=(_THINK, _THINK_END, *ARG_MARKS, _USER, _USER_END),
            think_start=_THINK,
            think_ends=(_THINK_END,),
            calls=CallSyntax((CALL,), arg_call_rules),
        ),
    )
