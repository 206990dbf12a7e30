"""Calls with a tag for each parameter, as qwen3-coder and its kin write them:

    <tool_call>
    <function=NAME>
    <parameter=P>
    value
    </parameter>
    </function>
    </tool_call>

Values are bare text and become JSON by their schema (`coerce`); text parameters stream while they come. Rules from
Ollama's `model/parsers/qwen3coder.go`; what it refuses with an error is forgiven where Qwen's reference parser does:
a missing `</parameter>`, a missing `<tool_call>` around a known function, several functions in one section.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.coerce import StreamedArguments, allowed_types
from olm.chat.parsers.kit.lark import (
    call_rules,
    json_value,
    literal,
    members,
    required_of,
    text_choices,
)
from olm.chat.parsers.kit.sections import SectionReader, TextBefore, TextWithSections
from olm.chat.tools import Tool
from olm.chat.types import AnswerEvent

__all__ = ["CALL", "CALL_END", "XmlCalls", "text_with_xml_calls", "xml_lark"]

CALL: Final = "<tool_call>"
CALL_END: Final = "</tool_call>"
_FUNCTION: Final = "<function="
_FUNCTION_END: Final = "</function>"
_PARAMETER: Final = "<parameter="
_PARAMETER_END: Final = "</parameter>"
_TAG_END: Final = re.compile(r"[>\n<]")
_MAX_TAG: Final = 256
"""A tag holds a name; what goes on longer is text."""
_VALUE_ENDS: Final = (
    _PARAMETER_END,
    "\n" + _PARAMETER,
    _FUNCTION_END + CALL_END,
    _FUNCTION_END + "\n" + CALL_END,
)


def text_with_xml_calls(tools: Sequence[Tool], new_id: Callable[[], str]) -> TextWithSections:
    """Make the parser of content with such calls in it; without tools there are none."""
    writer = CallWriter(new_id)
    bare = tuple(f"{_FUNCTION}{tool.name}>" for tool in tools)

    def open_section(marker: str) -> SectionReader:
        return XmlCalls(writer, tools, marker)

    markers = (CALL, *bare) if tools else ()
    return TextWithSections(dict.fromkeys(markers, open_section), drops=("before", "behind", "end"))


class XmlCalls:
    """Reads a section of such calls; `marker` is what opened it, `<tool_call>` or the tag of a function."""

    def __init__(self, writer: CallWriter, tools: Sequence[Tool], marker: str) -> None:
        self._writer = writer
        self._tools = {tool.name: tool for tool in tools}
        self._arguments = StreamedArguments({})
        self._raw = [marker]
        """The text since the last whole call, should it have to be given back."""
        self._events: list[AnswerEvent] = []  # not given out yet
        self._held = ""
        self._is_over = False
        self._step = self._before_function
        self._before = TextBefore(())
        if marker != CALL:
            self._start_call(marker.removeprefix(_FUNCTION).removesuffix(">"))

    def push(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Take more text: events, and the text behind the section or None."""
        self._raw.append(text)
        while text and not self._is_over:
            text = self._step(text)
        events, self._events = self._events, []
        return events, text if self._is_over else None

    def finish(self) -> tuple[list[AnswerEvent], str]:
        """The text is over. A call that broke off fails up to the first end marker; what follows that is read again."""
        if self._step == self._after_function:
            return [], self._held
        raw = "".join(self._raw)
        ended, end, rest = raw.partition(CALL_END)
        return self._writer.fail(ended + end), rest

    # Each step takes text and returns what the next one goes on with.

    def _before_function(self, text: str) -> str:
        """Wait for the tag of a function. A section that begins otherwise is none: its marker is text."""
        text = (self._held + text).lstrip()
        self._held = ""
        if text.startswith(_FUNCTION):
            self._step = self._in_name
            return text[len(_FUNCTION) :]
        if _FUNCTION.startswith(text):
            self._held = text
            return ""
        self._give_up(text)
        return text

    def _in_name(self, text: str) -> str:
        return self._in_tag(text, self._start_call)

    def _in_key(self, text: str) -> str:
        return self._in_tag(text, self._start_parameter)

    def _in_tag(self, text: str, then: Callable[[str], None]) -> str:
        """Collect the inside of a tag; a `<` or a line's end shows that it is none."""
        text, self._held = self._held + text, ""
        found = _TAG_END.search(text, 0, _MAX_TAG)
        if found is None and len(text) < _MAX_TAG:
            self._held = text
            return ""
        if found is None or found[0] != ">":
            # The end marker may have begun in what was taken for a tag.
            self._break(text)
            return text
        rest = text[found.end() :]
        if inside := text[: found.start()].strip():
            then(inside)
        else:
            self._break(rest)
        return rest

    def _break(self, rest: str) -> None:
        """Give a call up with everything to its end marker; at once if it has not begun."""
        self._step, self._before = self._broken, TextBefore((CALL_END,))
        if not self._writer.is_open:
            self._give_up(rest)

    def _broken(self, text: str) -> str:
        _, marker, rest = self._before.push(text)
        if marker:
            self._give_up(rest)
        return rest

    def _give_up(self, rest: str) -> None:
        raw = "".join(self._raw)
        self._events += self._writer.fail(raw[: len(raw) - len(rest)])
        self._is_over = True

    def _start_call(self, name: str) -> None:
        tool = self._tools.get(name)
        self._arguments = StreamedArguments(tool.properties if tool else {})
        self._events += self._writer.start(name)
        self._expect_parameter()

    def _expect_parameter(self) -> None:
        self._step = self._between_parameters
        self._before = TextBefore((_PARAMETER, _FUNCTION_END, CALL_END))

    def _between_parameters(self, text: str) -> str:
        between, marker, rest = self._before.push(text)
        if between and not self._arguments.has_any:  # arguments of another form: not to be lost
            self._step, self._before = self._broken, TextBefore((CALL_END,))
            return marker + rest
        if marker == _PARAMETER:
            self._step = self._in_key
        elif marker:
            self._end_call(rest, is_closed=marker == CALL_END)
        return rest

    def _start_parameter(self, key: str) -> None:
        self._events += self._writer.arguments(self._arguments.start(key))
        self._step, self._before = self._in_value, TextBefore(_VALUE_ENDS, trims=False)

    def _in_value(self, text: str) -> str:
        part, marker, rest = self._before.push(text)
        self._events += self._writer.arguments(self._arguments.push(part))
        if not marker:
            return rest
        self._events += self._writer.arguments(self._arguments.end())
        if marker.endswith(CALL_END):
            self._end_call(rest, is_closed=True)
        elif marker.endswith(_PARAMETER):
            self._step = self._in_key
        else:
            self._expect_parameter()
        return rest

    def _end_call(self, rest: str, *, is_closed: bool) -> None:
        self._events += self._writer.arguments(self._arguments.finish())
        self._events += self._writer.end()
        self._step, self._is_over, self._raw = self._after_function, is_closed, [rest]

    def _after_function(self, text: str) -> str:
        """Look for the end marker or one more function; anything else belongs to what follows."""
        text = (self._held + text).lstrip()
        self._held = ""
        if text.startswith(CALL_END):
            self._is_over = True
            return text[len(CALL_END) :]
        if text.startswith(_FUNCTION):
            self._step, self._raw = self._in_name, [text]
            return text[len(_FUNCTION) :]
        if any(marker.startswith(text) for marker in (CALL_END, _FUNCTION)):
            self._held = text
            return ""
        self._is_over = True
        return text


def xml_lark(tools: Sequence[Tool], parallel: bool) -> str:
    """Write the rules of such calls. Text parameters are free up to their closing tag, others JSON by their schema."""
    calls: list[str] = []
    rules = [f"call_text[suffix={literal(_VALUE_TAIL)}]: /(?s:.*)/"]
    for tool in tools:
        needed = required_of(tool.parameters)
        written = [_parameter(key, schema, tool) for key, schema in tool.properties.items()]
        inner = members(rules, written, [key in needed for key in tool.properties])
        head = literal(f"{CALL}\n{_FUNCTION}{tool.name}>\n")
        calls.append(f"{head} {inner} {literal(_FUNCTION_END)} /\\s*/ {literal(CALL_END)}")
    return call_rules(calls, parallel=parallel, between="/\\s*/", extra=rules)


_VALUE_TAIL: Final = f"\n{_PARAMETER_END}\n"


def _parameter(key: str, schema: Mapping[str, object], tool: Tool) -> str:
    """Write one parameter so that `coerce` makes of its text a value that fits the schema."""
    head, end = literal(f"{_PARAMETER}{key}>\n"), literal(_VALUE_TAIL)
    types = allowed_types(schema)
    if choices := text_choices(schema):
        return f"{head} ({' | '.join(map(literal, choices))}) {end}"
    if not types or "string" in types:
        # The suffix ends the text at the first closing tag, which the model may not write in it.
        return f"{head} call_text"
    if types == {"boolean"}:  # nemotron writes them as Python does
        return f"{head} /true|false|True|False/ {end}"
    return f"{head} {json_value(schema, tool.parameters)} {end}"
