"""Where pictures and sound stand in a prompt: `[img-N]` marks, numbered over the whole request (spec/ollama §9.4).

The marks are data: whoever feeds the model replaces each by what its encoder makes of item N. Renderers with tokens
of their own around a picture write them around the mark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from olm.chat.types import ChatMessage

__all__ = ["kind_of", "mark", "media_of", "with_marks"]

_PLACE = "[img]"


def mark(number: int) -> str:
    """Write the mark of item `number`, which counts from 0 over the request."""
    return f"[img-{number}]"


def media_of(messages: Sequence[ChatMessage]) -> tuple[bytes, ...]:
    """List the items of a conversation in the order of their marks."""
    return tuple(item for message in messages for item in message.images)


def kind_of(item: bytes) -> Literal["audio", "image"]:
    """Tell sound (wav, mp3) from pictures by its first bytes, as Ollama does."""
    is_wav = item[:4] == b"RIFF" and item[8:12] == b"WAVE"
    is_mp3 = item[:3] == b"ID3" or (len(item) > 1 and item[0] == 0xFF and item[1] & 0xE0 == 0xE0)
    # A JPEG begins with ff d8, which the frame sync of an mp3 does not match: its third bit is 0.
    return "audio" if is_wav or is_mp3 else "image"


def with_marks(message: ChatMessage, first: int) -> str:
    """Write a message's content with its marks: each at a literal `[img]` while there are such, else in front.

    Args:
        first: the number of the message's first item.
    """
    content, in_front = message.content, ""
    for number in range(first, first + len(message.images)):
        if _PLACE in content:
            content = content.replace(_PLACE, mark(number), 1)
        else:
            in_front += mark(number)
    return in_front + content
