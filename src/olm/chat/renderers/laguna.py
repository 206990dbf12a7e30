"""Prompts of Poolside's Laguna: XML-like turns; `laguna` sets every part on a line of its own, `poolside-v1` nothing.

Bytes are those of Ollama's `model/renderers/laguna.go` (its v2 and v8). The generation prompt decides on thinking:
`<think>` or `</think>`. `laguna` keeps all thoughts and continues a last assistant message; `poolside-v1` keeps thoughts
only while thinking is on, and never continues.
"""

from __future__ import annotations

from collections.abc import Sequence

from olm.chat.jsontext import spaced_json
from olm.chat.renderers.base import RenderInput, renderer
from olm.chat.renderers.kit.parts import marked, value_pairs
from olm.chat.tools import Tool
from olm.chat.types import ChatMessage, ToolCall

__all__ = ()

_BOS = "〈|EOS|〉"
_IDENTITY = (
    "You are a helpful, conversationally-fluent assistant made by Poolside. "
    "You are here to be helpful to users through natural language conversations."
)
_TOOLS = """### Tools

You may call functions to assist with the user query.
All available function signatures are listed below:
<available_tools>
"""
_WITH_THOUGHTS = "Wrap your thinking in '<think>', '</think>' tags, followed by a function call. "
_HOW_TO_CALL = (
    "For each function call, return an unescaped XML-like object with function name and arguments "
    "within '<tool_call>' and '</tool_call>' tags, like here:\n"
)
_EXAMPLE = (
    "<tool_call>function-name\n<arg_key>argument-key</arg_key>\n"
    "<arg_value>value-of-argument-key</arg_value>\n</tool_call>"
)


@renderer("laguna")
def _laguna(inp: RenderInput) -> str:
    system, messages = _split(inp)
    parts = [_BOS, _header(inp, system)]
    for i, message in enumerate(messages):
        match message.role:
            case "assistant":
                parts.append(_answer(message, is_last=i == len(messages) - 1))
            case "tool":
                parts.append(f"<tool_response>\n{message.content}\n</tool_response>\n")
            case "user" | "system":
                parts.append(f"<{message.role}>\n{message.content}\n</{message.role}>\n")
            case _:
                pass
    if not messages or messages[-1].role != "assistant":
        parts.append("<assistant>\n" + ("<think>" if inp.think else "</think>"))
    return "".join(parts)


def _header(inp: RenderInput, system: str) -> str:
    if not system and not inp.tools:
        return ""
    text = f"\n{system}" if system else ""
    if inp.tools:
        text += f"\n\n{_TOOLS}{_listed(inp.tools)}</available_tools>\n\n"
        text += _WITH_THOUGHTS + _HOW_TO_CALL if inp.think else _HOW_TO_CALL
        text += ("<think> your thoughts here </think>\n" if inp.think else "") + _EXAMPLE
    return f"<system>\n{text}\n</system>\n"


def _answer(message: ChatMessage, *, is_last: bool) -> str:
    content, thoughts = _apart(message)
    text = f"<think>\n{thoughts}\n</think>\n" if thoughts else "</think>\n"
    if content:
        text += content + "\n"
    text += "".join(_call(call, line_end="\n") for call in message.tool_calls)
    is_continued = is_last and bool(content or thoughts or message.tool_calls)
    return "<assistant>\n" + text + ("" if is_continued else "</assistant>\n")


def _apart(message: ChatMessage) -> tuple[str, str]:
    """Split content and thoughts, both stripped; thoughts within the content count when there are no others."""
    if "</think>" not in message.content:
        return message.content.strip(), message.thinking.strip()
    thoughts = message.thinking
    if not thoughts:
        thoughts = message.content.partition("</think>")[0].rpartition("<think>")[2]
    return message.content.rpartition("</think>")[2].strip(), thoughts.strip()


@renderer("poolside-v1")
def _poolside_v1(inp: RenderInput) -> str:
    system, messages = _split(inp)
    parts = [_BOS]
    if system or inp.tools or inp.think:
        gap = "\n\n" if system and inp.tools else ""
        tools = f"{_TOOLS}{_listed(inp.tools)}</available_tools>" if inp.tools else ""
        parts.append(f"<system>{system}{gap}{tools}</system>\n")
    for message in messages:
        match message.role:
            case "assistant":
                thoughts = f"<think>{message.thinking}</think>" if inp.think else "</think>"
                calls = "".join(_call(call, line_end="") for call in message.tool_calls)
                parts.append(f"<assistant>{thoughts}{message.content}{calls}</assistant>\n")
            case "tool":
                parts.append(f"<tool_response>{message.content}</tool_response>\n")
            case "user" | "system":
                parts.append(f"<{message.role}>{message.content}</{message.role}>\n")
            case _:
                pass
    return "".join([*parts, "<assistant>", "<think>" if inp.think else "</think>"])


def _split(inp: RenderInput) -> tuple[str, list[ChatMessage]]:
    """Take a leading system message out; an empty one means that the model's identity is not wanted either."""
    messages = marked(inp.messages)
    if messages and messages[0].role == "system":
        return messages[0].content.rstrip() if messages[0].content.strip() else "", messages[1:]
    return _IDENTITY, messages


def _listed(tools: Sequence[Tool]) -> str:
    return "".join(f"{spaced_json(tool.whole)}\n" for tool in tools)


def _call(call: ToolCall, *, line_end: str) -> str:
    pairs = value_pairs(call, spaced_json, line_end)
    return f"<tool_call>{call.name}{line_end}{pairs}</tool_call>{line_end}"
