"""Prompts of Cohere's North and Command A (2026): turns of blocks, calls and results as JSON laid out by a template.

Bytes are those of Ollama's `model/renderers/cohere.go`, odd white space included: it stands so in the model's template.
All thoughts are kept. A last assistant message is continued.
"""

from __future__ import annotations

from collections.abc import Sequence

from olm.chat.jsontext import go_json, spaced_json
from olm.chat.renderers.base import RenderInput, renderer
from olm.chat.renderers.kit.parts import arguments_of, marked
from olm.chat.tools import Tool
from olm.chat.types import ChatMessage

__all__ = ()

_END = "<|END_OF_TURN_TOKEN|>"


@renderer("cohere")
def _cohere(inp: RenderInput) -> str:
    messages = marked(inp.messages)
    system = ""
    if messages and messages[0].role == "system":
        system = messages.pop(0).content
    text = f"{system}\n\n\n\n" if system else ""
    parts = [_text("SYSTEM", text + _tools(inp.tools))]
    numbers = _Numbers()
    for i, message in enumerate(messages):
        match message.role:
            case "system" | "user":
                parts.append(_text(message.role.upper(), message.content))
            case "assistant":
                parts.append(_answer(message, numbers, is_last=i == len(messages) - 1))
            case "tool":
                is_first = i == 0 or messages[i - 1].role != "tool"
                is_last = i == len(messages) - 1 or messages[i + 1].role != "tool"
                parts.append(_begin("SYSTEM") + "<|START_TOOL_RESULT|>[" if is_first else ",")
                parts.append(_result(numbers.of(message.tool_call_id), message.content))
                parts.append("\n\n]<|END_TOOL_RESULT|>" + _END if is_last else "")
            case _:
                pass
    if not messages or messages[-1].role != "assistant" or messages[-1].tool_calls:
        is_closed = inp.think is not None and not inp.think
        parts.append(_begin("CHATBOT") + "<|START_THINKING|>")
        parts.append("<|END_THINKING|>" if is_closed else "")
    return "".join(parts)


class _Numbers:
    """Counts the calls of a conversation: the prompt numbers them, whatever ids the client uses."""

    def __init__(self) -> None:
        self._next = 0
        self._by_id: dict[str, str] = {}

    def take(self, call_id: str) -> str:
        """Number the next call."""
        number = str(self._next)
        self._next += 1
        if call_id:
            self._by_id.setdefault(call_id, number)
        return number

    def of(self, call_id: str) -> str:
        """Find the number of a call; one that is not known stands for itself."""
        return self._by_id.get(call_id, call_id)


def _begin(role: str) -> str:
    return f"<|START_OF_TURN_TOKEN|><|{role}_TOKEN|>"


def _text(role: str, content: str) -> str:
    return f"{_begin(role)}<|START_TEXT|>{content}<|END_TEXT|>{_END}"


def _tools(tools: Sequence[Tool]) -> str:
    listed = ",\n\n".join(f"\n    {_tool(tool)}" for tool in tools)
    return f"# Available Tools\n```json\n[\n{listed}\n\n\n]\n```"


def _tool(tool: Tool) -> str:
    parameters = spaced_json(tool.function.get("parameters", {}))
    return (
        f'{{"name": {go_json(tool.name)}, "description": {go_json(tool.description)}, '
        f'"parameters": {parameters}, "responses": null}}'
    )


def _answer(message: ChatMessage, numbers: _Numbers, *, is_last: bool) -> str:
    thoughts = f"<|START_THINKING|>{message.thinking}<|END_THINKING|>" if message.thinking else ""
    if not message.tool_calls:
        end = "" if is_last else f"<|END_TEXT|>{_END}"
        return f"{_begin('CHATBOT')}{thoughts}<|START_TEXT|>{message.content}{end}"
    calls = ",".join(
        f'\n\n    {{"tool_call_id": "{numbers.take(call.id)}", "tool_name": "{call.name}", '
        f'"parameters": {spaced_json(arguments_of(call))}}}'
        for call in message.tool_calls
    )
    blanks = "\n            \n                "
    return f"{_begin('CHATBOT')}{blanks}{thoughts}<|START_ACTION|>[{calls}\n\n]<|END_ACTION|>{_END}"


def _result(number: str, content: str) -> str:
    return (
        f'\n    {{\n        "tool_call_id": "{number}",\n        "results": {{\n\n            \n            '
        f'"0": {spaced_json({"content": content})}\n\n        }},\n        "is_error": null\n    }}'
    )
