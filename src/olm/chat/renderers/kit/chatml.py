"""What the prompts of Qwen and Nemotron have in common: ChatML turns, how to call a function, where the last question is.

The texts are those of the models' own chat templates, as Ollama's renderers carry them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from olm.chat.types import ChatMessage

__all__ = ["END", "HOW_TO_CALL", "START", "is_at", "last_question", "turn"]

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
