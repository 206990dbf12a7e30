"""Prompts of Muse Glimmer: messages to recipients (`self`, `user`, a tool), calls as ATEM elements.

Bytes are those of Ollama's `model/renderers/glimmer.go` and the model's own template. Thoughts are all kept; a last
assistant message is closed, not continued. `# Valid recipients`, the reasoning strength and the tools stand in every
system message.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from olm.chat.jsontext import spaced_json
from olm.chat.renderers.base import RenderInput, renderer
from olm.chat.renderers.kit.gemma_values import plain
from olm.chat.renderers.kit.parts import arguments_of, marked, parameter_fields
from olm.chat.tools import Tool
from olm.chat.types import ChatMessage, Think, ToolCall

__all__ = ["render_on"]

_MORE: Final = "<|eom|>"
_END: Final = "<|eot|>"
_DEFAULT_SYSTEM: Final = (
    "You are a helpful AI assistant.\nKnowledge cutoff: 2026-01-04.\nCurrent date: {today}."
)
_TOOLS_BEFORE: Final = """In this environment you have access to a set of tools you can use to answer the user's question.

You can invoke a function by writing a "<atem:function_calls>" block like the following:
<atem:function_calls>
<atem:invoke name="$FUNCTION_NAME">
<atem:parameter name="$PARAMETER_NAME">$PARAMETER_VALUE</atem:parameter>
...
</atem:invoke>
</atem:function_calls>

String and scalar parameters should be specified as is, while lists and objects should use JSON format. Note that spaces for string values are not stripped. The output is not expected to be valid XML and is parsed with regular expressions.
Here are the functions available in JSONSchema format:
// Tool metadata
"""
_TOOLS_AFTER: Final = """

Here's an example of how to call a function in the tool set:
(If the tool namespace is not specified, invoke the function directly as `example_function_name` rather than `example_tool_name.example_function_name`)

to=example_tool_name.example_function_name

<atem:function_calls>
<atem:invoke name="example_tool_name.example_function_name">
<atem:parameter name="example_parameter_1">value_1</atem:parameter>
<atem:parameter name="example_parameter_2">This is the value for the second parameter
that can span
"multiple" lines
</atem:parameter>
</atem:invoke>
</atem:function_calls>"""
# What clients write into system prompts, and the words that the model knows for it.
_STRENGTH_WORDS: Final = (
    ("Reasoning effort", "Reasoning strength"),
    ("Reasoning Effort", "Reasoning Strength"),
    ("reasoning effort", "reasoning strength"),
    ("REASONING EFFORT", "REASONING STRENGTH"),
)


@renderer("glimmer")
def _render(inp: RenderInput) -> str:
    return render_on(inp, time.strftime("%Y-%m-%d"))


def render_on(inp: RenderInput, today: str) -> str:
    """Write the prompt with this date (YYYY-MM-DD), which only the default system message shows."""
    messages = marked(inp.messages)
    rest = _system_rest(inp)
    parts = ["<|begin_of_text|>"]
    if not any(message.role == "system" for message in messages):
        text = _DEFAULT_SYSTEM.format(today=today) + _strength(inp.think) + rest
        parts.append(_framed("system", text, _END))
    for i, message in enumerate(messages):
        match message.role:
            case "system":
                parts.append(_framed("system", _system(message.content, inp) + rest, _END))
            case "user":
                parts.append(_framed("user", message.content, _END))
            case "tool":
                parts.append(_result(message, messages))
            case "assistant":
                is_more = i + 1 < len(messages) and messages[i + 1].role == "assistant"
                parts += _answer(message, _MORE if is_more else _END)
            case _:
                pass
    return "".join(parts) + "<|start|>assistant"


def _framed(header: str, text: str, end: str) -> str:
    return f"<|start|>{header}<|message|>{text}{end}"


def _strength(think: Think | None) -> str:
    word = think if isinstance(think, str) else "none" if think is False else "high"
    return f"\n\nReasoning strength: {word}."


def _system(content: str, inp: RenderInput) -> str:
    for word, known in _STRENGTH_WORDS:
        content = content.replace(word, known)
    return content + ("" if "reasoning strength" in content.lower() else _strength(inp.think))


def _system_rest(inp: RenderInput) -> str:
    spaces = list(dict.fromkeys(tool.name.partition(".")[0] for tool in inp.tools))
    text = "\n\n" + _tools(inp.tools, spaces) if inp.tools else ""
    recipients = ["self", *(f"{space}.*" for space in spaces), "user"]
    return text + "\n\n# Valid recipients: " + ", ".join(f'"{name}"' for name in recipients) + "."


def _tools(tools: Sequence[Tool], spaces: Sequence[str]) -> str:
    metadata = (spaced_json({"name": space, "description": ""}) + "\n" for space in spaces)
    schemas = (
        "\n"
        + spaced_json(
            {
                "name": tool.name,
                "description": tool.description,
                "parameters": parameter_fields(tool),
            }
        )
        for tool in tools
    )
    return "".join([_TOOLS_BEFORE, *metadata, "// Function schemas", *schemas, _TOOLS_AFTER])


def _result(message: ChatMessage, messages: Sequence[ChatMessage]) -> str:
    name = message.tool_name or message.tool_call_id
    if not message.tool_name and message.tool_call_id:
        named = [c.name for m in messages for c in m.tool_calls if c.id == message.tool_call_id]
        name = named[-1] if named else name
    text = f'<tool_output name="{name}">\n{message.content}\n</tool_output>'
    return _framed(f"tool {name}", text, _END)


def _answer(message: ChatMessage, end: str) -> list[str]:
    parts = []
    if message.thinking:
        parts.append(_framed("assistant to=self", message.thinking, _MORE))
    for i, call in enumerate(message.tool_calls):
        is_last = i + 1 == len(message.tool_calls)
        parts.append(_framed(f"assistant to={call.name}", _called(call), end if is_last else _MORE))
    if not message.tool_calls and (message.content or not message.thinking):
        parts.append(_framed("assistant to=user", message.content, _END))
    return parts


def _called(call: ToolCall) -> str:
    written = "".join(
        f'<atem:parameter name="{name}">{_argument(value)}</atem:parameter>\n'
        for name, value in arguments_of(call).items()
    )
    return (
        f'<atem:function_calls>\n<atem:invoke name="{call.name}">\n{written}'
        "</atem:invoke>\n</atem:function_calls>"
    )


def _argument(value: object) -> str:
    if isinstance(value, str):
        return value
    return spaced_json(value) if isinstance(value, dict | list) else plain(value)
