"""What renderers of several families share: messages with their media marks in place, arguments of calls as values.

No family's own words or tokens: these are in the family's file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from olm.chat.media import with_marks
from olm.chat.types import ChatMessage, ToolCall
from olm.errors import InvalidRequest

__all__ = ["arguments_of", "marked"]


def marked(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Copy a conversation with every picture and sound marked in the content of its message."""
    copies, first = [], 0
    for message in messages:
        if message.images:
            copies.append(msgspec.structs.replace(message, content=with_marks(message, first)))
            first += len(message.images)
        else:
            copies.append(message)
    return copies


def arguments_of(call: ToolCall) -> Mapping[str, object]:
    """Read the arguments of a call in a conversation, in their order.

    Go keeps numbers of unknown type as float64 and prints whole ones without a point, so `1.0` comes out as `1`.

    Raises:
        InvalidRequest: they are no JSON object.
    """
    try:
        arguments = msgspec.json.decode(call.arguments_json, type=dict[str, object])
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise InvalidRequest(
            f"the arguments of the call of {call.name} must be a JSON object: {exc}"
        ) from exc
    return {name: _as_go_prints(value) for name, value in arguments.items()}


def _as_go_prints(value: object) -> object:
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 1e21 else value
    if isinstance(value, dict):
        return {key: _as_go_prints(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_go_prints(item) for item in value]
    return value
