"""What the prompts of Qwen and Nemotron have in common: turns, calls with tags and how to write them, tools' results.

The texts are those of the models' own chat templates, as Ollama's renderers carry them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from olm.chat.renderers.kit.parts import arguments_of
from olm.chat.types import ChatMessage, ToolCall

__all__ = [
    "END",
    "HOW_TO_CALL",
    "START",
    "call_text",
    "is_at",
    "last_question",
    "more_text",
    "result_text",
    "turn",
]

START: Final = "<|im_start|>"
END: Final = "<|im_end|>\n"

HOW_TO_CALL: Final = """

If you choose to call a function ONLY reply in the following format with NO suffix:

<tool_call>
<function=example_function_name>
<parameter=example_parameter_1>
value_1
</parameter>
<parameter=example_parameter_2>
This is the value for the second parameter
that can span
multiple lines
</parameter>
</function>
</tool_call>

<IMPORTANT>
Reminder:
- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested within <tool_call></tool_call> XML tags
- Required parameters MUST be specified
- You may provide optional reasoning for your function call in natural language BEFORE the function call, but NOT after
- If there is no function call available, answer the question like normal with your current knowledge and do not tell the user about function calls
</IMPORTANT>"""


def turn(role: str, text: str) -> str:
    """Write a whole turn."""
    return f"{START}{role}\n{text}{END}"


def is_at(messages: Sequence[ChatMessage], place: int, role: str) -> bool:
    """Say whether there is a message of this role at a place, which may lie outside."""
    return 0 <= place < len(messages) and messages[place].role == role


def last_question(messages: Sequence[ChatMessage]) -> int | None:
    """Find the last message of the user that is no tool result in disguise."""
    for place in range(len(messages) - 1, -1, -1):
        text = messages[place].content.strip()
        is_result = text.startswith("<tool_response>") and text.endswith("</tool_response>")
        if messages[place].role == "user" and not is_result:
            return place
    return None


def call_text(call: ToolCall, write: Callable[[object], str]) -> str:
    """Write a call with a tag for each parameter, its values by `write`."""
    parameters = "".join(
        f"<parameter={name}>\n{write(value)}\n</parameter>\n"
        for name, value in arguments_of(call).items()
    )
    return f"<tool_call>\n<function={call.name}>\n{parameters}</function>\n</tool_call>"


def more_text(
    fields: Mapping[str, object], known: Collection[str], write: Callable[[object], str]
) -> str:
    """Write the fields of a schema that are not `known`, each in a tag of its name."""
    return "".join(
        f"\n<{key}>{write(value)}</{key}>"
        for key, value in fields.items()
        if key not in known and value is not None
    )


def result_text(messages: Sequence[ChatMessage], place: int, before_end: str = "") -> str:
    """Write a tool's result; those that follow each other share one turn of the user."""
    head = "" if is_at(messages, place - 1, "tool") else f"{START}user"
    tail = "" if is_at(messages, place + 1, "tool") else before_end + END
    return f"{head}\n<tool_response>\n{messages[place].content}\n</tool_response>{tail}"
