"""A whole turn put together from its events, and how it ended: what every dialect tells in its own form. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs

from olm.api.errors import unfinished
from olm.chat.types import CallEnd, Done, Piece, TokenLogprob, ToolCall, TurnEvent
from olm.errors import OlmError

__all__ = ["Answer", "end_of", "merged", "reason_of"]

_CANCELLED_STATUS = 499


@attrs.frozen
class Answer:
    """What a line, or all lines of a turn together, have to say."""

    content: str = ""
    thinking: str = ""
    calls: Sequence[ToolCall] = ()
    logprobs: Sequence[TokenLogprob] = ()


def merged(events: Sequence[TurnEvent]) -> tuple[Answer, Done]:
    """Put the events of a whole turn together.

    Raises:
        OlmError: the turn ended without saying how.
    """
    done = end_of(events)
    pieces = [event for event in events if isinstance(event, Piece)]
    answer = Answer(
        content="".join(piece.content for piece in pieces),
        thinking="".join(piece.thinking for piece in pieces),
        calls=[event.call for event in events if isinstance(event, CallEnd) and event.call],
        logprobs=[entry for piece in pieces for entry in piece.logprobs],
    )
    return answer, done


def end_of(events: Sequence[TurnEvent]) -> Done:
    """Find the event that ends a turn. Raises OlmError when there is none."""
    done = next((event for event in events if isinstance(event, Done)), None)
    if done is None:
        raise unfinished()
    return done


def reason_of(done: Done) -> Literal["stop", "length"]:
    """Why a turn ended. Raises OlmError when it was called off, with Ollama's text and status."""
    if done.reason == "cancelled":
        raise OlmError("request canceled", status=_CANCELLED_STATUS)
    return done.reason
