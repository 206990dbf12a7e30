"""Calls with a pair of tags for each parameter, as GLM and Laguna write them:

    <tool_call>NAME<arg_key>P</arg_key><arg_value>value</arg_value></tool_call>

Values are bare text and become JSON by their schema (`coerce`); text parameters stream while they come. What models forget
is forgiven as in Ollama's `model/parsers/glm46.go`: a missing tag of a pair; also its `laguna.go`: JSON instead of pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.coerce import StreamedArguments, is_text
from olm.chat.parsers.kit.json_calls import JsonCall
from olm.chat.parsers.kit.json_span import JsonSpan, object_or_none
from olm.chat.parsers.kit.lark import (
    call_rules,
    json_value,
    literal,
    members,
    required_of,
    text_choices,
)
from olm.chat.parsers.kit.sections import TextBefore
from olm.chat.tools import Tool
from olm.chat.types import AnswerEvent

__all__ = ["ARG_MARKS", "CALL", "CALL_END", "ArgCalls", "arg_call_rules"]

CALL: Final = "<tool_call>"
CALL_END: Final = "</tool_call>"
_KEY: Final = "<arg_key>"
_KEY_END: Final = "</arg_key>"
_VALUE: Final = "<arg_value>"
_VALUE_END: Final = "</arg_value>"
_MAX_NAME: Final = 256
"""Before its first tag a call has a name; what goes on longer is text."""
ARG_MARKS: Final = (CALL, CALL_END, _KEY, _KEY_END, _VALUE, _VALUE_END)


class ArgCalls:
    """Reads a section of one call.

    An end marker amid a value is text of the value if the value is closed later, before another parameter or call begins.

    Args:
        tools: by every name that a call may use.
        marker, end: what opened the section and what closes it.
    """

    def __init__(
        self, writer: CallWriter, tools: Mapping[str, Tool], marker: str, end: str = CALL_END
    ) -> None:
        self._writer, self._tools, self._marker, self._end = writer, tools, marker, end
        self._raw = [marker]
        """The text of the section, should it have to be given back."""
        self._events: list[AnswerEvent] = []
        self._arguments = StreamedArguments({})
        self._keys: list[str] = []
        """Those without a value as yet."""
        self._is_over = False
        self._value: list[str] = []
        self._span = JsonSpan()
        self._json = JsonCall(writer, marker, end)
        self._expect(self._in_name, _KEY, _KEY_END, _VALUE, _VALUE_END, "{", end)

    def _expect(self, step: Callable[[str], str], *markers: str) -> None:
        self._step = step
        self._before = TextBefore(markers, trims=False)
        self._parts: list[str] = []

    def push(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Take more text: events, and the text behind the section or None."""
        self._events = []
        self._raw.append(text)
        rest = text
        while rest and not self._is_over:
            rest = self._step(rest)
        return self._events, rest if self._is_over else None

    def finish(self) -> tuple[list[AnswerEvent], str]:
        """The text is over. A call is whole without its end marker, but not within a pair."""
        self._events = []
        if self._step == self._in_json:
            return self._json.finish()
        if self._step == self._in_name:
            return self._writer.fail(self._marker), self._behind_marker()
        rest = "".join(self._parts) + self._before.finish()
        if self._step == self._in_doubt:
            self._end_value()
            self._end_call()
        elif self._step == self._between and not self._keys:
            self._end_call()
            rest = ""
        elif self._step != self._behind_object:
            return self._writer.fail("".join(self._raw)), ""
        return self._events, rest

    # Each step takes text and returns what the next one goes on with.

    def _collect(self, text: str) -> tuple[str, str, str]:
        """Collect the text before the next marker: returns all of it, the marker or "", and the text behind it."""
        part, marker, rest = self._before.push(text)
        self._parts.append(part)
        return ("".join(self._parts), marker, rest) if marker else ("", "", rest)

    def _in_name(self, text: str) -> str:
        inside, marker, rest = self._collect(text)
        if len(inside if marker else "".join(self._parts)) > _MAX_NAME:
            return self._give_back()
        if not marker:
            return rest
        name, *key = inside.split(None, 1)[:2] or [""]
        if marker == "{" and not name:
            self._json = JsonCall(self._writer, self._marker + inside, self._end)
            self._step = self._in_json
            return marker + rest
        # Where a key's opening tag is missing, the key stands behind the name.
        is_bare = marker in {_KEY_END, _VALUE}
        if not name or len(key) != is_bare or marker == _VALUE_END:
            return self._give_back()
        tool = self._tools.get(name)
        self._arguments = StreamedArguments(tool.properties if tool else {})
        self._events += self._writer.start(name)
        self._keys = [text.strip() for text in key]
        if marker == "{":
            self._step, self._value = self._in_object, []
            return marker + rest
        if marker == _KEY:
            self._expect_key()
        elif marker == _KEY_END:
            self._expect_value()
        elif marker == _VALUE:
            self._start_value()
        else:
            self._end_call()
        return rest

    def _give_back(self) -> str:
        """No call has begun: the marker is text, and what stands behind it is read again."""
        self._events += self._writer.fail(self._marker)
        self._is_over = True
        return self._behind_marker()

    def _behind_marker(self) -> str:
        return "".join(self._raw)[len(self._marker) :]

    def _expect_key(self) -> None:
        self._expect(self._in_key, _KEY, _KEY_END, _VALUE, _VALUE_END, self._end)

    def _in_key(self, text: str) -> str:
        inside, marker, rest = self._collect(text)
        if not marker:
            return rest
        self._keys.append(inside.strip())
        if marker == _KEY_END:
            self._expect_value()
        elif marker == _VALUE:
            self._start_value()
        else:
            self._break(marker, rest)
        return rest

    def _expect_value(self) -> None:
        self._expect(self._before_value, _KEY, _VALUE, _VALUE_END, self._end)

    def _before_value(self, text: str) -> str:
        """Behind a key; several keys may come before their values."""
        inside, marker, rest = self._collect(text)
        if marker == _VALUE:
            self._start_value()
        elif marker == _KEY:
            self._expect_key()
        elif marker == _VALUE_END:
            self._start_value()
            self._give(inside)
            self._end_value()
        elif marker:
            self._break(marker, rest)
        return rest

    def _start_value(self) -> None:
        self._events += self._writer.arguments(self._arguments.start(self._keys.pop(0)))
        self._expect(self._in_value, _VALUE_END, _KEY, self._end)

    def _give(self, part: str) -> None:
        self._events += self._writer.arguments(self._arguments.push(part))

    def _in_value(self, text: str) -> str:
        part, marker, rest = self._before.push(text)
        self._give(part)
        if marker == self._end:
            self._expect(self._in_doubt, _VALUE_END, _KEY, self._marker)
        elif marker:
            self._end_value()
            if marker == _KEY:
                self._expect_key()
        return rest

    def _in_doubt(self, text: str) -> str:
        """Behind an end marker amid a value: does it belong to the value, or has the value not been closed?"""
        behind, marker, rest = self._collect(text)
        if marker == _VALUE_END:
            self._give(self._end + behind)
            self._end_value()
        elif marker:
            self._end_value()
            self._end_call()
            return behind + marker + rest
        return rest

    def _end_value(self) -> None:
        self._events += self._writer.arguments(self._arguments.end())
        self._expect(self._between, _KEY, _KEY_END, _VALUE, self._end)

    def _between(self, text: str) -> str:
        inside, marker, rest = self._collect(text)
        if marker == _KEY:
            self._expect_key()
        elif marker == _KEY_END and inside.strip():
            self._keys.append(inside.strip())
            self._expect_value()
        elif marker == _VALUE and self._keys:
            self._start_value()
        elif marker == self._end and not self._keys:
            self._end_call()
        elif marker:
            self._break(marker, rest)
        return rest

    def _end_call(self) -> None:
        self._events += self._writer.arguments(self._arguments.finish())
        self._events += self._writer.end()
        self._is_over = True

    def _in_json(self, text: str) -> str:
        events, rest = self._json.push(text)
        self._events += events
        self._is_over = rest is not None
        return rest or ""

    def _in_object(self, text: str) -> str:
        """Arguments as one JSON object behind the name."""
        end = self._span.push(text)
        part = text if end < 0 else text[:end]
        self._value.append(part)
        self._events += self._writer.arguments(part)
        if end < 0:
            return ""
        if object_or_none("".join(self._value)) is None:
            self._break("", text[end:])
        else:
            self._events += self._writer.end()
            self._expect(self._behind_object)
        return text[end:]

    def _behind_object(self, text: str) -> str:
        """Look for the end marker. The same call once more is dropped; anything else belongs to what follows."""
        whole = ("".join(self._parts) + text).lstrip()
        self._parts = [whole]
        if whole.startswith(self._end):
            self._is_over = True
            return whole[len(self._end) :]
        if whole.startswith(self._marker):
            self._expect(self._in_repetition, self._end)
            return whole
        if any(marker.startswith(whole) for marker in (self._end, self._marker)):
            return ""
        self._is_over = True
        return whole

    def _in_repetition(self, text: str) -> str:
        _, marker, rest = self._before.push(text)
        self._is_over = bool(marker)
        return rest

    def _break(self, marker: str, rest: str) -> None:
        """Give the call up with everything to its end marker."""
        self._expect(self._in_broken, self._end)
        if marker == self._end:
            self._give_up(rest)

    def _in_broken(self, text: str) -> str:
        _, marker, rest = self._before.push(text)
        if marker:
            self._give_up(rest)
        return rest

    def _give_up(self, rest: str) -> None:
        raw = "".join(self._raw)
        self._events += self._writer.fail(raw[: len(raw) - len(rest)])
        self._is_over = True


def arg_call_rules(tools: Sequence[Tool], parallel: bool) -> str:
    """Write the grammar of such calls: parameters in the order of the schema, line ends between tags as the model likes."""
    rules = [f"call_text[suffix={literal(_VALUE_END)}]: /(?s:.*)/"]
    calls: list[str] = []
    for tool in tools:
        needed = required_of(tool.parameters)
        pairs = [_pair(key, schema, tool) for key, schema in tool.properties.items()]
        inner = members(rules, pairs, [key in needed for key in tool.properties])
        calls.append(f"{literal(CALL + tool.name)} {_LINE_END} {inner} {literal(CALL_END)}")
    return call_rules(calls, parallel=parallel, between=_LINE_END, extra=rules)


_LINE_END: Final = '"\\n"?'


def _pair(key: str, schema: Mapping[str, object], tool: Tool) -> str:
    if choices := text_choices(schema):
        value = f"({' | '.join(literal(text + _VALUE_END) for text in choices)})"
    elif is_text(schema):
        value = "call_text"
    else:
        value = f"{json_value(schema, tool.parameters)} {literal(_VALUE_END)}"
    opening = f"{literal(_KEY + key + _KEY_END)} {_LINE_END} {literal(_VALUE)}"
    return f"{opening} {value} {_LINE_END}"
