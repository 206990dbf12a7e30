"""Prompts of Olmo 3: ChatML, functions in the system text, calls as Python writes them; the thinking ones know no tools.

Bytes are those of Ollama's `model/renderers/olmo3.go` and `olmo3_think.go`.
"""

from __future__ import annotations

from collections.abc import Sequence

from olm.chat.jsontext import go_json, spaced_json
from olm.chat.renderers.base import RenderInput, renderer
from olm.chat.renderers.kit.parts import arguments_of, marked
from olm.chat.types import ChatMessage, ToolCall

__all__ = ()

_OLMO_3 = "You are a helpful function-calling AI assistant. "
_OLMO_31 = (
    "You are Olmo, a helpful AI assistant built by Ai2. Your date cutoff is December 2024, "
    "and your model weights are available at https://huggingface.co/allenai. "
)
_THINK_32B = "You are a helpful AI assistant."
_NO_FUNCTIONS = "You do not currently have access to any functions. <functions></functions>"
_HOW_TO_CALL = (
    "You are provided with function signatures within <functions></functions> XML tags. "
    "You may call one or more functions to assist with the user query. "
    "Output any function calls within <function_calls></function_calls> XML tags. "
    "Do not make assumptions about what values to plug into functions."
)


@renderer("olmo3")
def _olmo3(inp: RenderInput) -> str:
    return _instruct(inp, _OLMO_3)


@renderer("olmo3.1")
def _olmo31(inp: RenderInput) -> str:
    return _instruct(inp, _OLMO_31)


@renderer("olmo3-think")
def _olmo3_think(inp: RenderInput) -> str:
    return _thinking(inp, _OLMO_31.rstrip())


@renderer("olmo3-32b-think")
def _olmo3_32b_think(inp: RenderInput) -> str:
    return _thinking(inp, _THINK_32B)


def _instruct(inp: RenderInput, identity: str) -> str:
    system, messages = _split(inp.messages)
    functions = f"<functions>{spaced_json([tool.whole for tool in inp.tools])}</functions>"
    if system is not None:
        text = system + (functions if inp.tools else "")
    else:
        text = identity + (_HOW_TO_CALL + functions if inp.tools else _NO_FUNCTIONS)
    parts = [_turn("system", text)]
    for i, message in enumerate(messages):
        match message.role:
            case "user":
                parts.append(_turn("user", message.content))
            case "assistant":
                is_open = i == len(messages) - 1 and not message.tool_calls
                turn = _turn("assistant", message.content + _calls(message.tool_calls))
                parts.append(turn.removesuffix("<|im_end|>\n") if is_open else turn)
            case "tool":
                parts.append(_turn("environment", message.content))
            case _:
                pass
    last = messages[-1] if messages else None
    if last is None or last.role != "assistant" or last.tool_calls or not last.content:
        parts.append("<|im_start|>assistant\n")
    return "".join(parts)


def _thinking(inp: RenderInput, identity: str) -> str:
    system, messages = _split(inp.messages)
    parts = [_turn("system", identity if system is None else f"{system} {_NO_FUNCTIONS}")]
    parts += [_turn(m.role, m.content) for m in messages if m.role in ("user", "assistant")]
    return "".join([*parts, "<|im_start|>assistant\n<think>"])


def _split(messages: Sequence[ChatMessage]) -> tuple[str | None, list[ChatMessage]]:
    """Take the first system text out; further ones are dropped, as Ollama does."""
    copies = marked(messages)
    system = next((message.content for message in copies if message.role == "system"), None)
    return system, [message for message in copies if message.role != "system"]


def _turn(role: str, content: str) -> str:
    return f"<|im_start|>{role}\n{content}<|im_end|>\n"


def _calls(calls: Sequence[ToolCall]) -> str:
    if not calls:
        return ""
    return "<function_calls>" + "\n".join(_call(call) for call in calls) + "</function_calls>"


def _call(call: ToolCall) -> str:
    arguments = sorted(arguments_of(call).items())
    return f"{call.name}({', '.join(f'{name}={go_json(value)}' for name, value in arguments)})"
