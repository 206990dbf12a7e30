"""Prompts of DeepSeek 3.1: special tokens around every part, tools described in the system text.

Bytes are those of Ollama's `model/renderers/deepseek3.go`. A last assistant message is closed there, not continued.
"""

from __future__ import annotations

from collections.abc import Sequence

from olm.chat.jsontext import go_json
from olm.chat.renderers.base import RenderInput, renderer
from olm.chat.renderers.kit.parts import arguments_of, marked
from olm.chat.tools import Tool
from olm.chat.types import ChatMessage

__all__ = ()

_END = "<｜end▁of▁sentence｜>"
_HOW_TO_CALL = """
IMPORTANT: ALWAYS adhere to this exact format for tool use:
<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_call_name<｜tool▁sep｜>tool_call_arguments<｜tool▁call▁end｜>{{additional_tool_calls}}<｜tool▁calls▁end｜>

Where:

- `tool_call_name` must be an exact match to one of the available tools
- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema
- For multiple tool calls, chain them directly without separators or spaces
"""


@renderer("deepseek3.1")
def _deepseek31(inp: RenderInput) -> str:
    thinks = bool(inp.think)
    messages = marked(inp.messages)
    last_user = max((i for i, message in enumerate(messages) if message.role == "user"), default=-1)
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    parts = ["<｜begin▁of▁sentence｜>", system, _tools(inp.tools) if inp.tools else ""]
    before = ""
    for i, message in enumerate(messages):
        is_current = i > last_user
        match message.role:
            case "user":
                parts.append("<｜User｜>" + message.content)
            case "assistant":
                opened = thinks and is_current and bool(message.thinking) and not message.tool_calls
                if before == "user":
                    parts.append("<｜Assistant｜>" + ("<think>" if opened else "</think>"))
                is_verbatim = before == "tool" or bool(message.tool_calls)
                parts.append(
                    message.content
                    if is_verbatim
                    else _without_thoughts(message.content, is_current)
                )
                parts.append(_calls(message) + _END)
            case "tool":
                parts.append(f"<｜tool▁output▁begin｜>{message.content}<｜tool▁output▁end｜>")
            case _:
                continue
        before = message.role
    if before == "user":
        parts.append("<｜Assistant｜>" + ("<think>" if thinks else "</think>"))
    return "".join(parts)


def _tools(tools: Sequence[Tool]) -> str:
    described = (
        f"\n### {tool.name}\nDescription: {tool.description}"
        f"\n\nParameters: {go_json(tool.function.get('parameters', {}))}\n"
        for tool in tools
    )
    return (
        "\n\n## Tools\nYou have access to the following tools:\n"
        + "".join(described)
        + _HOW_TO_CALL
    )


def _calls(message: ChatMessage) -> str:
    if not message.tool_calls:
        return ""
    calls = (
        f"<｜tool▁call▁begin｜>{call.name}<｜tool▁sep｜>{go_json(arguments_of(call))}<｜tool▁call▁end｜>"
        for call in message.tool_calls
    )
    return "<｜tool▁calls▁begin｜>" + "".join(calls) + "<｜tool▁calls▁end｜>"


def _without_thoughts(content: str, is_current: bool) -> str:
    """Take away thoughts that a client sent back within the content.

    In earlier turns only a block that begins the content is one: text that merely mentions the closing tag stays whole
    (ollama issue 17248).
    """
    if is_current or content.startswith("<think>"):
        _, tag, rest = content.partition("</think>")
        return rest if tag else content
    return content
