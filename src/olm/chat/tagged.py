"""Answers of models that have only a Go template: thinking and tool calls told from content by the template's tags.

The tags come from `olm.template.tags`. What stands behind the tag of calls is read by `tagged_calls`. Behaviour follows
Ollama's `thinking/parser.go` and `tools/tools.go` (spec/ollama §9.5, §10.2); text behind a closed section of calls, which
Ollama drops, is content here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import attrs

from olm.chat.parsers.base import CallSyntax, Parser
from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.lark import call_rules, json_call, literal
from olm.chat.parsers.kit.sections import SectionReader, TextBefore
from olm.chat.parsers.kit.thinking import ThinkingParser, ThinkSection
from olm.chat.rendering import ThinkTags
from olm.chat.tagged_calls import CallScanner
from olm.chat.tools import Tool
from olm.chat.types import AnswerEvent, Piece

__all__ = ["Tags", "make_parser", "tag_syntax", "think_tags"]

_BARE: Final = ("{", "[")
_CLOSABLE: Final = re.compile(r"<([\w-]+)>|\[([\w-]+)\]")


@attrs.frozen(kw_only=True)
class Tags:
    """What a template says about the answers of its model.

    Attributes:
        think_start, think_end: around thinking; both empty when it has none.
        calls: stands before tool calls; `{` or `[` when they are bare JSON.
        arguments: the key of a call's arguments.
    """

    think_start: str = ""
    think_end: str = ""
    calls: str = "{"
    arguments: str = "arguments"

    @property
    def marks(self) -> tuple[str, ...]:
        """Texts that must be seen in an answer even where they are special tokens of the model."""
        marks = (
            self.think_start,
            self.think_end,
            "" if self.is_bare else self.calls,
            self.calls_end,
        )
        return tuple(mark for mark in marks if mark)

    @property
    def is_bare(self) -> bool:
        """Whether calls are JSON without a tag."""
        return self.calls in _BARE

    @property
    def calls_end(self) -> str:
        """What closes a section of calls, where the tag tells: `<x>` … `</x>`, `[X]` … `[/X]`; else empty."""
        found = _CLOSABLE.fullmatch(self.calls)
        if found is None:
            return ""
        return f"</{found[1]}>" if found[1] else f"[/{found[2]}]"


def think_tags(tags: Tags, prompt: str) -> ThinkTags | None:
    """Say how thinking is marked in the answer to a prompt, whose end may have opened it; None without tags."""
    if not (tags.think_start and tags.think_end):
        return None
    is_open = prompt.rstrip().endswith(tags.think_start)
    return ThinkTags(tags.think_start, (tags.think_end,), is_open)


def make_parser(
    tags: Tags,
    tools: Sequence[Tool],
    new_id: Callable[[], str],
    think: ThinkTags | None = None,
) -> Parser:
    """Make the parser of one answer.

    Args:
        tags: of the template.
        tools: those that the prompt offered; without any, no call is looked for.
        new_id: makes ids of calls.
        think: how thinking is marked; None takes everything for content, as Ollama does when thinking was not wanted.
    """
    names = tuple(tool.name for tool in tools)
    body: Parser = _TaggedCalls(tags, names, CallWriter(new_id)) if names else _Plain()
    if think is None:
        return body
    section = ThinkSection("open" if think.is_open else "maybe", start=think.start, ends=think.ends)
    return ThinkingParser(section, body)


class _Plain:
    """Content and nothing else."""

    def push(self, text: str) -> list[AnswerEvent]:
        return [Piece(content=text)] if text else []

    def finish(self) -> list[AnswerEvent]:
        return []


class _TaggedCalls:
    """Content with sections of calls in it. Bare calls are looked for at the very beginning only."""

    __slots__ = (
        "_before",
        "_is_behind_calls",
        "_is_content",
        "_names",
        "_reader",
        "_tags",
        "_writer",
    )

    def __init__(self, tags: Tags, names: Sequence[str], writer: CallWriter) -> None:
        self._tags, self._names, self._writer = tags, names, writer
        self._before = TextBefore((tags.calls,), trims=False)
        self._reader: SectionReader | None = None
        self._is_content = self._is_behind_calls = False

    def push(self, text: str) -> list[AnswerEvent]:
        events: list[AnswerEvent] = []
        rest: str | None = text
        while rest:
            if self._reader is None:
                rest = self._push_content(rest, events)
                continue
            more, rest = self._reader.push(rest)
            events += more
            if rest is not None:
                self._reader, self._is_behind_calls = None, True
                self._is_content = self._tags.is_bare
        return events

    def _push_content(self, text: str, events: list[AnswerEvent]) -> str:
        if self._is_content:
            events.append(Piece(content=text))
            return ""
        if self._is_behind_calls:
            text = text.lstrip()
            self._is_behind_calls = not text
        content, marker, rest = self._before.push(text)
        is_bare = self._tags.is_bare
        if is_bare and content.strip():
            self._is_content = True
            content += marker + rest
            rest = marker = ""
        if content:
            events.append(Piece(content=content))
        if marker:
            self._reader = self._scanner(is_bare=is_bare)
        return marker + rest if marker and is_bare else rest

    def _scanner(self, *, is_bare: bool) -> CallScanner:
        begin = "" if is_bare else self._tags.calls
        end = self._tags.calls_end
        return CallScanner(self._writer, self._names, begin, end, is_bare=is_bare)

    def finish(self) -> list[AnswerEvent]:
        if self._reader is not None:
            return self._reader.finish()[0]
        content = self._before.finish()
        return [Piece(content=content)] if content else []


def tag_syntax(tags: Tags, *, is_required: bool = False) -> CallSyntax | None:
    """Say how the model writes calls, for a grammar; None where the template does not tell.

    Args:
        is_required: the answer must be a call. Bare calls have a syntax only then: any bracket of the content would
            begin one.
    """
    is_list = tags.calls.endswith("[")
    if (is_required or not tags.is_bare) and (tags.is_bare or is_list or tags.calls_end):
        return CallSyntax((tags.calls,), partial(_lark, tags))
    return None


def _lark(tags: Tags, tools: Sequence[Tool], parallel: bool) -> str:
    objects = [json_call(tool, arguments=tags.arguments) for tool in tools]
    if tags.calls_end:
        begin, end = literal(tags.calls), literal(tags.calls_end)
        calls = [f"{begin} /\\s*/ {item} /\\s*/ {end}" for item in objects]
        return call_rules(calls, parallel=parallel, between="/\\s*/")
    if tags.calls == "{":
        return call_rules(objects, parallel=parallel, between="/\\s*/")
    items = call_rules(objects, parallel=parallel, between="/,\\s*/").removeprefix("calls:")
    return f'calls: {literal(tags.calls)} call_list "]"\ncall_list:{items}'
