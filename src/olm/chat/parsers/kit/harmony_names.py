"""Tools under the names that gpt-oss can write: harmony prompts declare functions in TypeScript, so names are identifiers.

Names are mapped before a prompt is rendered, and back when its answer is parsed (Ollama's `harmony/harmonyparser.go`,
FunctionNameMap). Both sides start from the request's tools, so nothing has to be carried from one to the other.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import msgspec

from olm.chat.tools import Tool
from olm.chat.types import ChatMessage, Think

__all__ = ["harmony_think", "map_messages", "map_tools"]

_BUILT_IN: Final = frozenset({"browser.open", "browser.search", "browser.find", "python"})
_UNDERSCORED: Final = frozenset(" -.")
_DIGITS: Final = frozenset("0123456789")


def map_tools(tools: Sequence[Tool]) -> tuple[tuple[Tool, ...], dict[str, str]]:
    """Rename tools to identifiers.

    Returns:
        The tools under their new names, and a mapping from these to the request's names.
    """
    mapping: dict[str, str] = {}
    renamed = []
    for tool in tools:
        name = tool.name if tool.name in _BUILT_IN else _free_name(tool.name, mapping)
        mapping[name] = tool.name
        whole = {**tool.whole, "function": {**tool.function, "name": name}}
        renamed.append(attrs.evolve(tool, name=name, whole=whole))
    return tuple(renamed), mapping


def map_messages(
    messages: Sequence[ChatMessage], mapping: Mapping[str, str]
) -> tuple[ChatMessage, ...]:
    """Put the new names into the calls and results of a conversation; unknown ones become identifiers, too.

    Args:
        mapping: as `map_tools` returned it.
    """
    new_names = {old: new for new, old in mapping.items()}

    def renamed(name: str) -> str:
        is_identifier = not name or name in _BUILT_IN
        return new_names.get(name) or (name if is_identifier else _identifier(name))

    return tuple(
        msgspec.structs.replace(
            message,
            tool_name=renamed(message.tool_name),
            tool_calls=tuple(
                msgspec.structs.replace(call, name=renamed(call.name))
                for call in message.tool_calls
            ),
        )
        if message.tool_name or message.tool_calls
        else message
        for message in messages
    )


def harmony_think(think: Think | None) -> Think | None:
    """Lower `max` to `high`, the most that harmony knows (spec/ollama §1.5)."""
    return "high" if think == "max" else think


def _free_name(name: str, taken: Mapping[str, str]) -> str:
    base = candidate = _identifier(name)
    number = 2  # the first of several keeps its name, so the next is the second
    while candidate in taken:
        candidate = f"{base}_{number}"
        number += 1
    return candidate


def _identifier(name: str) -> str:
    candidate = "".join(_allowed(char) for char in name)
    if candidate[:1] in _DIGITS:
        return "_" + candidate
    return candidate or "unnamed"


def _allowed(char: str) -> str:
    if char in _UNDERSCORED:
        return "_"
    category = unicodedata.category(char)
    return char if category[0] == "L" or category == "Nd" or char in "_$" else ""
