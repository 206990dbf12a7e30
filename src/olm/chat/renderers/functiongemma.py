"""Prompts of FunctionGemma: Gemma 3 turns, declarations in a developer turn, results straight after the calls.

Bytes are those of Ollama's `model/renderers/functiongemma.go`. It knows no thinking, and a last assistant message is
closed, not continued.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from olm.chat.renderers.base import RenderInput, renderer
from olm.chat.renderers.kit.gemma_values import declaration, value_text
from olm.chat.renderers.kit.parts import arguments_of, marked
from olm.chat.types import ChatMessage, ToolCall

__all__ = ()

_QUOTE: Final = "<escape>"
_INTRODUCTION: Final = "You can do function calling with the following functions:"
_END: Final = "<end_of_turn>\n"


@renderer("functiongemma")
def _render(inp: RenderInput) -> str:
    messages = marked(inp.messages)
    parts = ["<bos>"]
    system = ""
    if messages and messages[0].role in {"system", "developer"}:
        system = messages.pop(0).content
    if system or inp.tools:
        parts += ["<start_of_turn>developer\n", *_developer(system, inp), _END]
    before = ""
    for i in range(len(messages)):
        text, before = _message(messages, i, before)
        parts.append(text)
    if before != "result":
        parts.append("<start_of_turn>model\n")
    return "".join(parts)


def _developer(system: str, inp: RenderInput) -> list[str]:
    parts = [system.strip()]
    if inp.tools:
        parts.append("\n" if system else "")
        if system.strip() != _INTRODUCTION:
            parts.append(_INTRODUCTION)
    for tool in inp.tools:
        declared = declaration(tool, _QUOTE, _properties)
        parts.append(f"<start_function_declaration>{declared}<end_function_declaration>")
    return parts


def _properties(properties: Mapping[str, object]) -> str:
    return ",".join(
        f"{name}:{{{_property(schema)}}}"
        for name, schema in sorted(properties.items())
        if isinstance(schema, dict)
    )


def _property(schema: Mapping[str, object]) -> str:
    description = schema.get("description")
    text = f"description:{_QUOTE}{description if isinstance(description, str) else ''}{_QUOTE}"
    kind = schema.get("type")
    first = kind[0] if isinstance(kind, list) and kind else kind
    return text + (f",type:{_QUOTE}{first.upper()}{_QUOTE}" if isinstance(first, str) else "")


def _message(messages: Sequence[ChatMessage], at: int, before: str) -> tuple[str, str]:
    """Write one message. `before`, and the second value: whether a `call` or its `result` stands last."""
    message = messages[at]
    if message.role == "tool":
        opening = "" if before == "call" else "<start_function_response>"
        value = _QUOTE + message.content + _QUOTE
        name = _answered(messages, at)
        return f"{opening}response:{name}{{{value}}}<end_function_response>", "result"
    role = "model" if message.role == "assistant" else message.role
    goes_on = before == "result" and role in {"model", "user"}
    text = ("" if goes_on else f"<start_of_turn>{role}\n") + message.content.strip()
    if role != "model":
        return text + _END, before if role != "user" else ""
    text += "".join(_called(call) for call in message.tool_calls)
    if message.tool_calls and at + 1 < len(messages) and messages[at + 1].role == "tool":
        return text + "<start_function_response>", "call"
    return text + _END, ""


def _called(call: ToolCall) -> str:
    arguments = value_text(arguments_of(call), _QUOTE)
    return f"<start_function_call>call:{call.name}{arguments}<end_function_call>"


def _answered(messages: Sequence[ChatMessage], at: int) -> str:
    """Name the function whose result message `at` holds: by the call's id, else by its place among the results."""
    place = 0
    for message in reversed(messages[:at]):
        if message.role == "assistant" and message.tool_calls:
            calls = message.tool_calls
            named = [c.name for c in calls if c.id and c.id == messages[at].tool_call_id]
            by_place = calls[place].name if place < len(calls) else messages[at].tool_name
            return named[0] if named else by_place
        place += message.role == "tool"
    return messages[at].tool_name
