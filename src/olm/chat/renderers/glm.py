"""Prompts of GLM 4.7 and GLM-OCR: role tokens, tools as JSON lines, arguments of calls as pairs of keys and values.

Bytes are those of Ollama's `model/renderers/glm47.go` and `glmocr.go`. Thoughts of all earlier turns are kept. The
generation prompt always follows: a last assistant message is not continued.
"""

from __future__ import annotations

from collections.abc import Sequence

from olm.chat.jsontext import go_json, spaced_json
from olm.chat.renderers.base import RenderInput, renderer
from olm.chat.renderers.kit.parts import marked, value_pairs
from olm.chat.tools import Tool
from olm.chat.types import ChatMessage, ToolCall

__all__ = ()

_BEFORE_TOOLS = """<|system|>
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
"""
_AFTER_TOOLS = """</tools>

For each function call, output the function name and arguments within the following XML format:
<tool_call>{function-name}<arg_key>{arg-key-1}</arg_key><arg_value>{arg-value-1}</arg_value><arg_key>{arg-key-2}</arg_key><arg_value>{arg-value-2}</arg_value>...</tool_call>"""


@renderer("glm-4.7")
def _glm47(inp: RenderInput) -> str:
    parts = ["[gMASK]<sop>", _tools(inp.tools)]
    before = ""
    for message in marked(inp.messages):
        match message.role:
            case "assistant":
                thoughts = f"<think>{message.thinking}</think>" if message.thinking else "</think>"
                calls = "".join(_call(call) for call in message.tool_calls)
                parts.append(f"<|assistant|>{thoughts}{message.content}{calls}")
            case "tool":
                parts.append("<|observation|>" if before != "tool" else "")
                parts.append(f"<tool_response>{message.content}</tool_response>")
            case "user" | "system":
                parts.append(f"<|{message.role}|>{message.content}")
            case _:
                pass
        before = message.role
    closed = inp.think is not None and not inp.think
    return "".join([*parts, "<|assistant|>", "</think>" if closed else "<think>"])


@renderer("glm-ocr")
def _glm_ocr(inp: RenderInput) -> str:
    closed = inp.think is not None and not inp.think
    parts = ["[gMASK]<sop>", _tools(inp.tools)]
    before = ""
    for message in marked(inp.messages):
        match message.role:
            case "user":
                is_told = not closed or message.content.endswith("/nothink")
                parts.append(f"<|user|>\n{message.content}" + ("" if is_told else "/nothink"))
            case "assistant":
                parts.append(_ocr_answer(message))
            case "tool":
                parts.append("<|observation|>" if before != "tool" else "")
                parts.append(f"\n<tool_response>\n{message.content}\n</tool_response>\n")
            case "system":
                parts.append(f"<|system|>\n{message.content}\n")
            case _:
                pass
        before = message.role
    return "".join([*parts, "<|assistant|>\n", "<think></think>\n" if closed else ""])


def _ocr_answer(message: ChatMessage) -> str:
    content = f"\n{message.content.strip()}" if message.content else ""
    calls = "".join(f"\n{_call(call)}" for call in message.tool_calls)
    return f"<|assistant|>\n<think>{message.thinking.strip()}</think>{content}{calls}\n"


def _tools(tools: Sequence[Tool]) -> str:
    if not tools:
        return ""
    return _BEFORE_TOOLS + "".join(f"{_spaced(tool)}\n" for tool in tools) + _AFTER_TOOLS


def _spaced(tool: Tool) -> str:
    """Write a tool with blanks between its parts and, unlike `spaced_json`, with Go's escapes of `<`, `>` and `&`."""
    text = spaced_json(tool.whole)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _call(call: ToolCall) -> str:
    return f"<tool_call>{call.name}{value_pairs(call, go_json)}</tool_call>"
