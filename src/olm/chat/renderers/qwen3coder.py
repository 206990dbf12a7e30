"""Prompts of Qwen3-Coder: functions described in tags, calls with a tag for each parameter.

Bytes are those of Ollama's `model/renderers/qwen3coder.go`; keywords of a schema that it drops are written like the
others.
"""

from __future__ import annotations

from collections.abc import Sequence

from olm.chat.jsontext import compact_json
from olm.chat.renderers.base import RenderInput, renderer
from olm.chat.renderers.kit.chatml import (
    END,
    HOW_TO_CALL,
    START,
    call_text,
    more_text,
    result_text,
    turn,
)
from olm.chat.renderers.kit.parts import go_text, marked
from olm.chat.tools import Tool
from olm.chat.types import ChatMessage

__all__ = ()

_SYSTEM = "You are Qwen, a helpful AI assistant that can interact with a computer to solve tasks."


@renderer("qwen3-coder")
def _render(inp: RenderInput) -> str:
    system = next((m.content for m in inp.messages if m.role == "system" and m.content), "")
    messages = [m for m in marked(inp.messages) if m.role != "system"]
    parts = []
    if system or inp.tools:
        parts.append(turn("system", (system or _SYSTEM) + _tools_text(inp.tools)))
    parts += [_message_text(messages, place) for place in range(len(messages))]
    if messages and messages[-1].role != "assistant":
        parts.append(f"{START}assistant\n")
    return "".join(parts)


def _message_text(messages: Sequence[ChatMessage], place: int) -> str:
    message = messages[place]
    if message.role == "tool":
        return result_text(messages, place, before_end="\n")
    if message.role != "assistant":
        return turn(message.role, message.content)
    if message.tool_calls:
        content = message.content + "\n" if message.content else ""
        return turn(
            "assistant",
            content + "".join("\n" + call_text(c, go_text) for c in message.tool_calls),
        )
    is_prefill = place == len(messages) - 1
    return f"{START}assistant\n{message.content}" + ("" if is_prefill else END)


def _tools_text(tools: Sequence[Tool]) -> str:
    if not tools:
        return ""
    functions = "".join(_function_text(tool) for tool in tools)
    head = "\n\n# Tools\n\nYou have access to the following functions:\n\n<tools>"
    return f"{head}{functions}\n</tools>{HOW_TO_CALL}"


def _function_text(tool: Tool) -> str:
    described = f"\n<description>{tool.description}</description>" if tool.description else ""
    fields = tool.function.get("parameters")
    parameters = fields if isinstance(fields, dict) else {}
    properties = parameters.get("properties")
    listed = properties if isinstance(properties, dict) else {}
    inner = "".join(_parameter_text(name, schema) for name, schema in listed.items())
    inner += more_text(parameters, ("type", "properties"), go_text)
    return (
        f"\n<function>\n<name>{tool.name}</name>{described}"
        f"\n<parameters>{inner}\n</parameters>\n</function>"
    )


def _parameter_text(name: str, schema: object) -> str:
    fields = schema if isinstance(schema, dict) else {}
    types, text = fields.get("type"), fields.get("description")
    written = types[0] if isinstance(types, list) and len(types) == 1 else types
    parts = [f"\n<parameter>\n<name>{name}</name>"]
    if written:
        type_text = written if isinstance(written, str) else compact_json(written)
        parts.append(f"\n<type>{type_text}</type>")
    if text:
        parts.append(f"\n<description>{text}</description>")
    return "".join([*parts, more_text(fields, ("type", "description"), go_text), "\n</parameter>"])
