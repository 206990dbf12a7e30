"""Prompts of Liquid's LFM2: ChatML turns, tools as a JSON list in the system turn, calls as a list of Python calls.

Bytes are those of Ollama's `model/renderers/lfm2.go`. A last assistant message is continued. Thoughts are kept only where
a client left them in the content: in the last answer, and in all of them when `lfm2-thinking` is asked to think.
"""

from __future__ import annotations

from typing import Final

from olm.chat.jsontext import spaced_json
from olm.chat.renderers.base import RenderInput, renderer
from olm.chat.renderers.kit.parts import arguments_of, function_fields, marked
from olm.chat.types import ChatMessage, ToolCall

__all__ = ()

_CALLS: Final = "<|tool_call_start|>"
_CALLS_END: Final = "<|tool_call_end|>"
_RESULT: Final = "<|tool_response_start|>"
_RESULT_END: Final = "<|tool_response_end|>"
_THINK_END: Final = "</think>"


@renderer("lfm2")
def _instruct(inp: RenderInput) -> str:
    return _render(inp, keeps_thoughts=False)


@renderer("lfm2-thinking")
def _thinking(inp: RenderInput) -> str:
    return _render(inp, keeps_thoughts=bool(inp.think))


def _render(inp: RenderInput, *, keeps_thoughts: bool) -> str:
    messages = marked(inp.messages)
    parts = ["<|startoftext|>"]
    system = messages.pop(0).content if messages and messages[0].role == "system" else ""
    if inp.tools:
        listed = ", ".join(spaced_json(function_fields(tool)) for tool in inp.tools)
        system += "\n" if system else ""
        system += f"List of tools: <|tool_list_start|>[{listed}]<|tool_list_end|>"
    if system:
        parts.append(f"<|im_start|>system\n{system}<|im_end|>\n")
    last_answer = max((i for i, m in enumerate(messages) if m.role == "assistant"), default=-1)
    for i, message in enumerate(messages):
        content = _content(message, drops_thoughts=not keeps_thoughts and i != last_answer)
        parts.append(f"<|im_start|>{message.role}\n{content}<|im_end|>\n")
    if messages and messages[-1].role == "assistant":
        parts[-1] = parts[-1].removesuffix("<|im_end|>\n")
    else:
        parts.append("<|im_start|>assistant\n")
    return "".join(parts)


def _content(message: ChatMessage, *, drops_thoughts: bool) -> str:
    content = message.content
    if message.role == "assistant":
        if drops_thoughts and _THINK_END in content:
            content = content.rpartition(_THINK_END)[2].strip()
        if message.tool_calls and _CALLS not in content:
            content = _called(message.tool_calls) + content
    elif message.role == "tool" and _RESULT not in content:
        content = _RESULT + content + _RESULT_END
    return content


def _called(calls: tuple[ToolCall, ...]) -> str:
    return _CALLS + "[" + ",".join(map(_call, calls)) + "]" + _CALLS_END


def _call(call: ToolCall) -> str:
    arguments = arguments_of(call)
    written = (f"{name}={spaced_json(arguments[name])}" for name in sorted(arguments))
    return f"{call.name}({','.join(written)})"
