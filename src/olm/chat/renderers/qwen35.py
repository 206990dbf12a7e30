"""Prompts of Qwen3.5, Qwen3.8 and Ornith: calls with a tag for each parameter, thinking in `<think>`.

Bytes are those of Ollama's `model/renderers/qwen35.go` and `ornith.go`. Qwen3.5 shows thinking in the turns after the
last question, the others in all. Qwen3.8 also says how hard to think, knows only one leading system message, and
refuses conversations without a question, all as its own template does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs
import msgspec

from olm.chat.jsontext import spaced_json
from olm.chat.renderers.base import RenderInput, renderer
from olm.chat.renderers.kit.chatml import (
    END,
    HOW_TO_CALL,
    START,
    call_text,
    is_at,
    last_question,
    result_text,
    turn,
)
from olm.chat.renderers.kit.parts import function_fields, go_text, marked
from olm.chat.tools import Tool
from olm.chat.types import ChatMessage, Think
from olm.errors import InvalidRequest

__all__ = ()

_TOOLS: Final = "# Tools\n\nYou have access to the following functions:\n\n<tools>"
_HARD: Final = (
    "Reasoning effort is set to xhigh. Please think carefully through the task, validate key "
    "assumptions, consider plausible alternatives, and prioritize correctness, consistency, and "
    "clarity in the final answer."
)
_LIGHT: Final = (
    "Reasoning effort is set to low. Keep your thinking brief and focused, moving directly to the "
    "conclusion without unnecessary elaboration."
)


@attrs.frozen
class _Variant:
    """What tells the three apart. `reads_tags`: thinking in the content of a turn is found by its tags."""

    keeps_all_thinking: bool = True
    reads_tags: bool = True
    writes_other_roles: bool = False
    writes_empty_system: bool = True


_QWEN35: Final = _Variant(keeps_all_thinking=False)
_QWEN38: Final = _Variant(reads_tags=False, writes_other_roles=True, writes_empty_system=False)
_ORNITH: Final = _Variant()


@renderer("qwen3.5")
def _render_qwen35(inp: RenderInput) -> str:
    return _render(marked(inp.messages), inp, _QWEN35)


@renderer("ornith")
def _render_ornith(inp: RenderInput) -> str:
    return _render(marked(inp.messages), inp, _ORNITH)


@renderer("qwen3.8")
def _render_qwen38(inp: RenderInput) -> str:
    messages = _with_one_system(inp.messages)
    if not messages:
        raise InvalidRequest("no messages provided")
    if last_question(messages) is None:
        raise InvalidRequest("no user query found in messages")
    return _render(marked(messages), inp, _QWEN38, effort=_effort_text(inp.think))


def _effort_text(think: Think | None) -> str:
    """Say how hard to think: `true` is medium, which has no words; nothing asked is the template's xhigh."""
    if think is None or think in ("high", "max"):
        return _HARD
    return _LIGHT if think == "low" else ""


def _with_one_system(messages: Sequence[ChatMessage]) -> Sequence[ChatMessage]:
    """Fold all instructions into one leading system message."""
    instructions = [m for m in messages if m.role in ("system", "developer")]
    if any(m.images for m in instructions):
        raise InvalidRequest(f"{instructions[0].role} message cannot contain images")
    if not instructions or (len(instructions) == 1 and messages[0].role == "system"):
        return messages
    text = "\n\n".join(found for m in instructions if (found := m.content.strip()))
    others = [m for m in messages if m.role not in ("system", "developer")]
    return [ChatMessage("system", content=text), *others]


def _render(
    messages: Sequence[ChatMessage], inp: RenderInput, variant: _Variant, *, effort: str = ""
) -> str:
    messages = [
        msgspec.structs.replace(message, content=message.content.strip()) for message in messages
    ]
    thinks = inp.think is None or bool(inp.think)
    question = last_question(messages)
    parts = [_system_text(messages, inp.tools, variant, effort)]
    for place, message in enumerate(messages):
        if message.role == "user" or (message.role == "system" and place):
            parts.append(turn(message.role, message.content))
        elif message.role == "assistant":
            is_recent = question is not None and place > question
            shows = variant.keeps_all_thinking or (thinks and is_recent)
            text = _assistant_text(message, shows_thinking=shows, reads_tags=variant.reads_tags)
            parts.append(text + ("" if place == len(messages) - 1 else END))
        elif message.role == "tool":
            parts.append(result_text(messages, place))
        elif message.role != "system" and variant.writes_other_roles:
            parts.append(turn(message.role, message.content))
    if messages and messages[-1].role != "assistant":
        opening = "<think>\n" if thinks else "<think>\n\n</think>\n\n"
        parts.append(f"{START}assistant\n{opening}")
    return "".join(parts)


def _system_text(
    messages: Sequence[ChatMessage], tools: Sequence[Tool], variant: _Variant, effort: str
) -> str:
    has_system = is_at(messages, 0, "system")
    texts = [effort]
    if tools:
        lines = "".join(
            "\n" + spaced_json({**tool.whole, "function": function_fields(tool)}) for tool in tools
        )
        texts.append(f"{_TOOLS}{lines}\n</tools>{HOW_TO_CALL}")
    texts.append(messages[0].content if has_system else "")
    text = "\n\n".join(filter(None, texts))
    is_written = bool(text) or (has_system and variant.writes_empty_system)
    return turn("system", text) if is_written else ""


def _assistant_text(message: ChatMessage, *, shows_thinking: bool, reads_tags: bool) -> str:
    thinking, content = "", message.content
    if shows_thinking and message.thinking:
        thinking = message.thinking.strip()
    elif reads_tags and "</think>" in content:
        before, _, after = content.partition("</think>")
        thinking, content = before.rpartition("<think>")[2].strip(), after.lstrip("\n")
    calls = "\n".join(call_text(call, go_text) for call in message.tool_calls)
    between = "\n\n" if calls and content.strip() else ""
    head = f"<think>\n{thinking}\n</think>\n\n" if shows_thinking else ""
    return f"{START}assistant\n{head}{content}{between}{calls}"
