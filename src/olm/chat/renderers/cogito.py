"""Prompts of Cogito: DeepSeek's tokens, a system text of its own, calls as fenced JSON.

Bytes are those of Ollama's `model/renderers/cogito.go`. A last assistant message is closed there, not continued.
"""

from __future__ import annotations

import msgspec

from olm.chat.jsontext import go_json
from olm.chat.renderers.base import RenderInput, renderer
from olm.chat.renderers.kit.parts import arguments_of, marked
from olm.chat.types import ChatMessage, ToolCall

__all__ = ()

_END = "<｜end▁of▁sentence｜>"
_IDENTITY = (
    "You are Cogito, an AI assistant created by Deep Cogito, "
    "which is an AI research lab based in San Francisco."
)


@renderer("cogito")
def _cogito(inp: RenderInput) -> str:
    messages = marked(inp.messages)
    system = ""
    if messages and messages[0].role == "system":
        system = messages.pop(0).content
    parts = ["<｜begin▁of▁sentence｜>", _system(inp, system)]
    before = ""
    for i, message in enumerate(messages):
        following = messages[i + 1].role if i + 1 < len(messages) else ""
        match message.role:
            case "user":
                parts.append(f"<｜User｜>{message.content}<｜Assistant｜>")
            case "assistant":
                parts.append(message.content + _calls(message) + _END)
            case "tool":
                parts.append(
                    _output(message, is_first=before != "tool", is_last=following != "tool")
                )
            case _:
                pass
        before = message.role
    spoken = [message.role for message in messages if message.role in ("user", "assistant", "tool")]
    if not spoken or spoken[-1] != "user":
        parts.append("<｜Assistant｜>")
    if inp.think:
        parts.append("<think>\n")
    return "".join(parts)


def _system(inp: RenderInput, system: str) -> str:
    text = "Enable deep thinking subroutine.\n\n" + _IDENTITY if inp.think else _IDENTITY
    if system:
        text += f"\n\n{system}" + ("\n\n" if inp.think else "")
    if inp.tools:
        text += "\nYou have the following functions available:\n"
    for tool in inp.tools:
        text += f"```json\n{msgspec.json.format(go_json(tool.whole), indent=4)}\n```\n"
    return text


def _calls(message: ChatMessage) -> str:
    if not message.tool_calls:
        return ""
    calls = "\n".join(_call(call) for call in message.tool_calls)
    return f"<｜tool▁calls▁begin｜>{calls}<｜tool▁calls▁end｜>"


def _call(call: ToolCall) -> str:
    arguments = go_json(arguments_of(call))
    return (
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{call.name}\n"
        f"```json\n{arguments}\n```<｜tool▁call▁end｜>"
    )


def _output(message: ChatMessage, *, is_first: bool, is_last: bool) -> str:
    begin = "<｜tool▁outputs▁begin｜>" if is_first else ""
    end = "<｜tool▁outputs▁end｜>" if is_last else "\n"
    return f"{begin}<｜tool▁output▁begin｜>{message.content}<｜tool▁output▁end｜>{end}"
