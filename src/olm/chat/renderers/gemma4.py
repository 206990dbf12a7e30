"""Prompts of Gemma 4: `<|turn>` turns, tool results inside the model's turn, thinking in a channel.

Bytes are those of Ollama's `model/renderers/gemma4.go`. `gemma4-large` closes an empty thought when thinking is off, as
the templates of the larger models do; `gemma4-small` and plain `gemma4` write nothing. A last assistant message is not
continued: as in the model's template, its turn is closed and a new one begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from olm.chat.renderers.base import RenderInput, renderer
from olm.chat.renderers.kit.gemma4_schemas import properties_text
from olm.chat.renderers.kit.gemma_values import declaration, value_text
from olm.chat.renderers.kit.parts import arguments_of, marked
from olm.chat.tools import Tool
from olm.chat.types import ChatMessage, ToolCall

__all__ = ["gemma4_variant"]

_QUOTE: Final = '<|"|>'
_THOUGHT: Final = "<|channel>thought\n"
_LARGE_NAMES: Final = ("12b", "26b", "31b")
_SMALL_NAMES: Final = ("e2b", "e4b")
_N_LARGE: Final = 12_000_000_000


def gemma4_variant(model_name: str, n_parameters: int) -> str:
    """Choose the renderer that plain `gemma4` stands for: by the size in the model's name, else by its parameters."""
    name = model_name.lower()
    if any(size in name for size in _LARGE_NAMES):
        return "gemma4-large"
    if any(size in name for size in _SMALL_NAMES):
        return "gemma4-small"
    return "gemma4-large" if n_parameters >= _N_LARGE else "gemma4-small"


@renderer("gemma4", "gemma4-small")
def _small(inp: RenderInput) -> str:
    return _render(inp, closes_thought=False)


@renderer("gemma4-large")
def _large(inp: RenderInput) -> str:
    return _render(inp, closes_thought=True)


def _render(inp: RenderInput, *, closes_thought: bool) -> str:
    messages = inp.messages
    has_system = bool(messages) and messages[0].role in {"system", "developer"}
    parts = ["<bos>"]
    if has_system or inp.tools or inp.think:
        system = messages[0].content.strip() if has_system else ""
        tools = "".join(_declared(tool) for tool in inp.tools)
        parts += ["<|turn>system\n", "<|think|>\n" if inp.think else "", system, tools, "<turn|>\n"]
    spoken = marked(messages)[1 if has_system else 0 :]
    last_kind = _turns(parts, spoken)
    if last_kind == "":
        parts.append("<|turn>model\n")
        if closes_thought and not inp.think:
            parts.append(_THOUGHT + "<channel|>")
    elif last_kind == "results" and inp.think:
        parts.append(_THOUGHT)
    return "".join(parts)


def _turns(parts: list[str], messages: Sequence[ChatMessage]) -> str:
    """Write all messages. Returns what the prompt ends with: `calls`, their `results`, or neither (empty)."""
    last_user = max((i for i, m in enumerate(messages) if m.role == "user"), default=-1)
    roles_after = _next_roles(messages)
    last_kind, role_before = "", ""
    for i, message in enumerate(messages):
        if message.role == "tool":
            continue  # written with the calls that it answers
        is_model = message.role == "assistant"
        if not (is_model and role_before == "assistant"):
            parts.append(f"<|turn>{'model' if is_model else message.role}\n")
        if is_model and message.thinking and i > last_user:
            parts.append(f"{_THOUGHT}{message.thinking}\n<channel|>")
        results = _results(messages, i) if message.tool_calls else []
        parts += [*map(_called, message.tool_calls), *results]
        last_kind = "results" if results else "calls" if message.tool_calls else ""
        content = _without_thoughts(message.content) if is_model else message.content.strip()
        parts.append(content)
        goes_on = is_model and roles_after[i] == "assistant"
        if last_kind == "calls":
            parts.append("<|tool_response>")
        elif not goes_on and (content.strip() or not results or roles_after[i]):
            parts.append("<turn|>\n")
        role_before = message.role
    return last_kind


def _next_roles(messages: Sequence[ChatMessage]) -> list[str]:
    """Name for each message the role of the next that is no tool result."""
    roles, following = [], ""
    for message in reversed(messages):
        roles.append(following)
        if message.role != "tool":
            following = message.role
    return roles[::-1]


def _declared(tool: Tool) -> str:
    return f"<|tool>{declaration(tool, _QUOTE, properties_text)}<tool|>"


def _called(call: ToolCall) -> str:
    arguments = value_text(arguments_of(call), _QUOTE)
    return f"<|tool_call>call:{call.name}{arguments}<tool_call|>"


def _results(messages: Sequence[ChatMessage], at: int) -> list[str]:
    """Write the results that follow the calls of message `at`."""
    names = {call.id: call.name for call in reversed(messages[at].tool_calls) if call.id}
    written = []
    for message in messages[at + 1 :]:
        if message.role != "tool":
            break
        name = names.get(message.tool_call_id) or message.tool_name or "unknown"
        value = _QUOTE + message.content + _QUOTE
        written.append(f"<|tool_response>response:{name}{{value:{value}}}<tool_response|>")
    return written


def _without_thoughts(text: str) -> str:
    """Drop the channels that a client left in an answer; one that never closes takes the rest with it."""
    kept = []
    while (start := text.find("<|channel>")) >= 0:
        kept.append(text[:start])
        end = text.find("<channel|>", start)
        text = text[end + len("<channel|>") :] if end >= 0 else ""
    return ("".join(kept) + text).strip()
