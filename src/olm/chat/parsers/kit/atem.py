"""The elements in which Muse Glimmer calls a tool, turned into JSON while they come:

    <atem:function_calls>
    <atem:invoke name="NAME">
    <atem:parameter name="KEY">VALUE</atem:parameter>
    </atem:invoke>
    </atem:function_calls>

Values are bare text and become JSON by their schema (`coerce`). Nothing in a value is a marker but its own end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, Literal

from olm.chat.parsers.kit.coerce import StreamedArguments, is_text
from olm.chat.parsers.kit.lark import json_value, literal, members, required_of, text_choices
from olm.chat.parsers.kit.sections import TextBefore
from olm.chat.tools import Tool

__all__ = ["ATEM", "AtemCall", "atem_rule"]

ATEM: Final = "<atem:function_calls>"
_ATEM_END: Final = "</atem:function_calls>"
_INVOKE: Final = '<atem:invoke name="'
_INVOKE_END: Final = "</atem:invoke>"
_PARAMETER: Final = '<atem:parameter name="'
_PARAMETER_END: Final = "</atem:parameter>"
_NAME_END: Final = '">'
_NAME: Final = re.compile(r'(?s)(.*?)">')
_MAX_NAME: Final = 256

AtemState = Literal["open", "done", "broken"]


class AtemCall:
    """Reads one call, from its first element on.

    Args:
        find_tool: given the name that the call names, returns the tool, or None when it may not be called here.
    """

    def __init__(self, find_tool: Callable[[str], Tool | None]) -> None:
        self._find_tool = find_tool
        self.state: AtemState = "open"
        self.tool: Tool | None = None
        self.rest = ""
        """Text that has not been read: what follows the call, or its unreadable part."""
        self._json: list[str] = []
        self._expected: Mapping[str, Callable[[str], str]] = {ATEM: self._in_calls}
        self._held = ""
        self._arguments = StreamedArguments({})
        self._step: Callable[[str], str] = self._before_element
        self._before = TextBefore((_PARAMETER_END,), trims=False)

    def push(self, text: str) -> str:
        """Take more text; returns more of the arguments' JSON."""
        self._json = []
        while text and self.state == "open":
            text = self._step(text)
        if self.state != "open":
            self.rest += text
        return "".join(self._json)

    # Each step takes text and returns what the next one goes on with.

    def _before_element(self, text: str) -> str:
        """Wait for one of the elements that may come here; white space before it means nothing."""
        text = (self._held + text).lstrip()
        self._held = ""
        for element, then in self._expected.items():
            if text.startswith(element):
                self._step = (
                    then  # at once: the last element has nothing behind it that would push again
                )
                return then(text[len(element) :])
        if any(element.startswith(text) for element in self._expected):
            self._held = text
            return ""
        return self._break(text)

    def _break(self, text: str) -> str:
        self.state = "broken"
        return text

    def _expect(self, expected: Mapping[str, Callable[[str], str]], text: str) -> str:
        self._expected, self._step = expected, self._before_element
        return text

    def _in_calls(self, text: str) -> str:
        return self._expect({_INVOKE: self._in_tool_name}, text)

    def _in_tool_name(self, text: str) -> str:
        return self._in_name(text, self._start)

    def _in_key(self, text: str) -> str:
        return self._in_name(text, self._start_parameter)

    def _in_name(self, text: str, then: Callable[[str], None]) -> str:
        self._held += text
        found = _NAME.match(self._held, 0, _MAX_NAME)
        if found is None:
            return "" if len(self._held) < _MAX_NAME else self._break("")
        rest, self._held = self._held[found.end() :], ""
        then(found[1])
        return rest

    def _start(self, name: str) -> None:
        self.tool = self._find_tool(name)
        if self.tool is None:
            self.state = "broken"
        else:
            self._arguments = StreamedArguments(self.tool.properties)
        self._between_parameters()

    def _between_parameters(self) -> None:
        self._expect({_PARAMETER: self._in_key, _INVOKE_END: self._after_invoke}, "")

    def _start_parameter(self, key: str) -> None:
        self._json.append(self._arguments.start(key))
        self._step = self._in_value

    def _in_value(self, text: str) -> str:
        part, marker, rest = self._before.push(text)
        self._json.append(self._arguments.push(part))
        if marker:
            self._json.append(self._arguments.end())
            self._between_parameters()
        return rest

    def _after_invoke(self, text: str) -> str:
        self._json.append(self._arguments.finish() or "{}")
        return self._expect({_ATEM_END: self._end}, text)

    def _end(self, text: str) -> str:
        self.state = "done"
        return text


def atem_rule(rules: list[str], tool: Tool, text_rule: str) -> str:
    """Write a call of a tool as a right-hand side of llguidance's Lark.

    Args:
        rules: takes more rules.
        text_rule: the name of a rule for text up to and with the end of a parameter.
    """
    needed = required_of(tool.parameters)
    written = [_parameter(name, tool, text_rule) for name in tool.properties]
    arguments = members(rules, written, [name in needed for name in tool.properties])
    head = literal(f"{ATEM}\n{_INVOKE}{tool.name}{_NAME_END}\n")
    tail = literal(f"{_INVOKE_END}\n{_ATEM_END}")
    return f"{head} {arguments} {tail}"


def _parameter(name: str, tool: Tool, text_rule: str) -> str:
    schema = tool.properties[name]
    head = literal(f"{_PARAMETER}{name}{_NAME_END}")
    if choices := text_choices(schema):
        value = " | ".join(literal(choice + _PARAMETER_END) for choice in choices)
        return f'{head} ({value}) "\\n"'
    if is_text(schema):
        return f'{head} {text_rule} "\\n"'
    return f'{head} {json_value(schema, tool.parameters)} {literal(_PARAMETER_END)} "\\n"'
