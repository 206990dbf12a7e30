"""Prompts of Nemotron 3 Nano and 3.5 Nano: functions described in tags, calls with a tag for each parameter.

Bytes are those of Ollama's `model/renderers/nemotron3nano.go` (both layouts), which follow the models' templates. Values
are written as Python prints them. Of turns before the last question the thinking is dropped. 3 Nano obeys `/think` and
`/no_think` in messages; 3.5 Nano takes them for text and knows a medium effort. Neither goes on with an assistant message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from olm.chat.jsontext import spaced_json
from olm.chat.renderers.base import RenderInput, renderer
from olm.chat.renderers.kit.chatml import END, HOW_TO_CALL, START, call_text, is_at, more_text, turn
from olm.chat.renderers.kit.parts import marked
from olm.chat.tools import Tool
from olm.chat.types import ChatMessage

__all__ = ()

_NO_THINKING: Final = "<think></think>"
_EFFICIENT: Final = "\n\n{reasoning effort: efficient}"


@renderer("nemotron-3-nano")
def _render_3(inp: RenderInput) -> str:
    thinks = _thinks_by_toggles(inp.messages, default=inp.think is None or bool(inp.think))
    messages = [_obeyed(m, is_first=not place) for place, m in enumerate(inp.messages)]
    return _render(marked(messages), inp.tools, thinks=thinks, around=("\n", "\n</think>\n"))


@renderer("nemotron-3.5-nano")
def _render_35(inp: RenderInput) -> str:
    messages = marked(inp.messages)
    question = _last_user(messages)
    if inp.think == "medium" and question >= 0:
        text = messages[question].content + _EFFICIENT
        messages[question] = msgspec.structs.replace(messages[question], content=text)
    thinks = inp.think is None or bool(inp.think)
    return _render(messages, inp.tools, thinks=thinks, around=("\n", "</think>"))


def _last_user(messages: Sequence[ChatMessage]) -> int:
    return max((place for place, m in enumerate(messages) if m.role == "user"), default=-1)


def _thinks_by_toggles(messages: Sequence[ChatMessage], *, default: bool) -> bool:
    thinks = default
    for message in messages:
        if message.role in ("user", "system"):
            if "/think" in message.content.replace("</think>", ""):
                thinks = True
            elif "/no_think" in message.content:
                thinks = False
    return thinks


def _obeyed(message: ChatMessage, *, is_first: bool) -> ChatMessage:
    """Take the toggles out of a message. A first system message keeps its white space, as in the template."""
    if message.role not in ("user", "system"):
        return message
    text = _without_toggles(message.content)
    is_system = is_first and message.role == "system"
    return msgspec.structs.replace(message, content=text if is_system else text.strip())


def _without_toggles(text: str) -> str:
    parts = text.split("</think>")
    return "</think>".join(part.replace("/think", "").replace("/no_think", "") for part in parts)


def _render(
    messages: Sequence[ChatMessage], tools: Sequence[Tool], *, thinks: bool, around: tuple[str, str]
) -> str:
    system = messages[0].content if is_at(messages, 0, "system") else ""
    rest = messages[1:] if is_at(messages, 0, "system") else messages
    texts = [system] if system else []
    if tools:
        texts.append(_tools_text(tools))
    parts = [turn("system", "\n\n".join(texts))]
    question = _last_user(rest)
    for place, message in enumerate(rest):
        if message.role == "assistant":
            parts.append(_assistant_text(message, around, is_old=place < question))
        elif message.role == "tool":
            parts.append(_result_text(rest, place))
        else:
            parts.append(turn(message.role, message.content))
    parts.append(f"{START}assistant\n" + ("<think>\n" if thinks else _NO_THINKING))
    return "".join(parts)


def _assistant_text(message: ChatMessage, around: tuple[str, str], *, is_old: bool) -> str:
    content = message.content
    if message.thinking:
        content = f"<think>{around[0]}{message.thinking}{around[1]}{content}"
    elif "<think>" not in content and "</think>" not in content:
        content = _NO_THINKING + content
    if not message.tool_calls:
        if is_old and "<think>" in content and "</think>" in content:
            content = _NO_THINKING + content.rpartition("</think>")[2]
        return turn("assistant", content.strip())
    calls = "".join(call_text(call, _python_text) + "\n" for call in message.tool_calls)
    if is_old:
        behind = content.rpartition("</think>")[2]
        visible = behind if "</think>" in content else content.partition("<think>")[0]
        content = _NO_THINKING + visible.strip()
    return turn("assistant", f"{content.strip()}\n{calls}")


def _result_text(messages: Sequence[ChatMessage], place: int) -> str:
    opens = place > 0 and not is_at(messages, place - 1, "tool")
    tail = "" if is_at(messages, place + 1, "tool") else END
    head = f"{START}user\n" if opens else ""
    return f"{head}<tool_response>\n{messages[place].content}\n</tool_response>\n{tail}"


def _python_text(value: object) -> str:
    """Write a value as the template does: containers as JSON, everything else as Python's str()."""
    return spaced_json(value) if isinstance(value, (dict, list)) else str(value)


def _tools_text(tools: Sequence[Tool]) -> str:
    functions = "".join(_function_text(tool) for tool in tools)
    head = "# Tools\n\nYou have access to the following functions:\n\n<tools>"
    return f"{head}{functions}\n</tools>{HOW_TO_CALL}"


def _function_text(tool: Tool) -> str:
    found = tool.function.get("parameters")
    parameters = found if isinstance(found, dict) else {}
    properties = parameters.get("properties")
    listed = properties if isinstance(properties, dict) else {}
    parts = [f"\n<function>\n<name>{tool.name}</name>", _described(tool.description)]
    parts.append("\n<parameters>")
    parts += [_parameter_text(name, schema) for name, schema in listed.items()]
    parts.append(more_text(parameters, ("type", "properties", "required"), _python_text))
    if parameters.get("required"):
        parts.append(f"\n<required>{spaced_json(parameters['required'])}</required>")
    parts.append("\n</parameters>")
    parts.append(
        more_text(tool.function, ("type", "name", "description", "parameters"), _python_text)
    )
    return "".join([*parts, "\n</function>"])


def _parameter_text(name: str, schema: object) -> str:
    fields = schema if isinstance(schema, dict) else {}
    types, text = fields.get("type"), fields.get("description")
    parts = [f"\n<parameter>\n<name>{name}</name>"]
    if types:
        written = types[0] if isinstance(types, list) and len(types) == 1 else types
        parts.append(f"\n<type>{written}</type>")  # several as Python's list
    parts.append(_described(text if isinstance(text, str) else ""))
    if fields.get("enum"):
        parts.append(f"\n<enum>{spaced_json(fields['enum'])}</enum>")
    parts.append(more_text(fields, ("name", "type", "description", "enum"), _python_text))
    return "".join([*parts, "\n</parameter>"])


def _described(text: str) -> str:
    return f"\n<description>{text.strip()}</description>" if text else ""
