"""Prompts of Qwen3-VL, instruct and thinking: calls as JSON objects in `<tool_call>`.

Bytes are those of Ollama's `model/renderers/qwen3vl.go`. Thinking is kept in the turns after the last question, where
a turn without content leaves it open: as the last message it is gone on with.
"""

from __future__ import annotations

from collections.abc import Sequence

from olm.chat.jsontext import spaced_json
from olm.chat.renderers.base import RenderInput, renderer
from olm.chat.renderers.kit.chatml import END, START, is_at, last_question, result_text, turn
from olm.chat.renderers.kit.parts import arguments_of, function_fields, marked
from olm.chat.tools import Tool
from olm.chat.types import ChatMessage, ToolCall

__all__ = ()

_TOOLS = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
_HOW_TO_CALL = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)


@renderer("qwen3-vl-instruct")
def _render_instruct(inp: RenderInput) -> str:
    return _render(inp, thinks=bool(inp.think))


@renderer("qwen3-vl-thinking")
def _render_thinking(inp: RenderInput) -> str:
    return _render(inp, thinks=inp.think is None or bool(inp.think))


def _render(inp: RenderInput, *, thinks: bool) -> str:
    messages = marked(inp.messages)
    question = last_question(messages)
    parts = [_system_text(messages, inp.tools)]
    for place, message in enumerate(messages):
        if message.role == "user" or (message.role == "system" and place):
            parts.append(turn(message.role, message.content))
        elif message.role == "assistant":
            is_last = place == len(messages) - 1
            is_recent = question is not None and place > question
            shows = thinks and is_recent and (is_last or bool(message.thinking))
            parts.append(_assistant_text(message, shows_thinking=shows) + ("" if is_last else END))
        elif message.role == "tool":
            parts.append(result_text(messages, place))
    if messages and messages[-1].role != "assistant":
        parts.append(f"{START}assistant\n" + ("<think>\n" if thinks else ""))
    return "".join(parts)


def _system_text(messages: Sequence[ChatMessage], tools: Sequence[Tool]) -> str:
    system = messages[0].content if is_at(messages, 0, "system") else None
    if not tools:
        return "" if system is None else turn("system", system)
    before = "" if system is None else system + "\n\n"
    lines = "".join(
        "\n" + spaced_json({**tool.whole, "function": function_fields(tool)}) for tool in tools
    )
    return turn("system", before + _TOOLS + lines + _HOW_TO_CALL)


def _assistant_text(message: ChatMessage, *, shows_thinking: bool) -> str:
    content, head = message.content, f"{START}assistant\n"
    if shows_thinking:
        head += "<think>\n" + message.thinking.strip("\n")
        content = "\n</think>\n\n" + content.lstrip("\n") if content else ""
    calls = "\n".join(_call_text(call) for call in message.tool_calls)
    between = "\n" if calls and message.content else ""
    return head + content + between + calls


def _call_text(call: ToolCall) -> str:
    arguments = spaced_json(arguments_of(call))
    name = spaced_json(call.name)
    return f'<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'
