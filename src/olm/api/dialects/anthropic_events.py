"""What a turn sends back, in Anthropic's form: server-sent events, or one whole message. Pure.

A stream is a message that begins, content blocks one after the other, each begun, filled by deltas and ended, and the
end of the message with why and what it cost. Arguments of calls are told as they are generated. A streamed token must be
cheap, so the constant parts of a delta are made once a block. Source of the form: spec/ollama §2.7, Anthropic's
documents of its streaming, and what its Python client 2.12 expects.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from olm.api import schemas_anthropic as wire
from olm.api.dialects.turn import end_of, reason_of
from olm.api.encoding import json_text, to_json
from olm.api.errors import error_body
from olm.chat.types import CallArguments, CallEnd, CallStart, Done, Piece, ToolCall, TurnEvent
from olm.errors import OlmError

__all__ = ["PING", "MessageForm", "count_json", "error_event"]

PING: Final = b'event: ping\ndata: {"type":"ping"}\n\n'
SIGNATURE: Final = "olm"
"""Clients keep a thinking block for the next turn only if it is signed. olm takes any back, so there is nothing to prove."""

_END: Final = b"}}\n\n"

_Kind = Literal["text", "thinking", "tool_use"]
_Block = wire.TextBlock | wire.ThinkingBlock | wire.ToolUseBlock


def _new_message_id() -> str:
    """A fresh id of a message."""
    return f"msg_{secrets.token_hex(12)}"


def error_event(error: OlmError, request_id: str) -> bytes:
    """An error in the middle of a stream."""
    return _event("error", error_body(error, "anthropic", request_id))


def count_json(n_tokens: int) -> bytes:
    """The answer of `/v1/messages/count_tokens`."""
    return to_json(wire.TokenCount(n_tokens))


class MessageForm:
    """Writes the events of one turn; made anew for each.

    Args:
        model: as the request names it.
        stops: the request's stop sequences; a stop string of the Modelfile's is an ordinary end of the turn.
        n_input: a guess at the prompt's tokens for the beginning of a stream; the end has the true count.
    """

    def __init__(
        self, model: str, *, stops: Sequence[str] = (), n_input: int = 0, message_id: str = ""
    ) -> None:
        self._id = message_id or _new_message_id()
        self._model = model
        self._stops = frozenset(stops)
        self._n_input = n_input
        self._open: _Kind | None = None
        self._index = -1
        self._delta = b""
        self._n_whole_calls = 0
        self._n_broken_calls = 0
        self._has_arguments = False

    def start(self) -> bytes:
        """The beginning of a stream."""
        usage = wire.Usage(input_tokens=self._n_input)
        message = wire.MessageResponse(id=self._id, model=self._model, content=[], usage=usage)
        return _event("message_start", to_json(wire.MessageStartEvent(message))) + PING

    def event(self, event: TurnEvent) -> bytes:
        """The server-sent events for one event of the turn; none for one that says nothing.

        Raises:
            OlmError: the turn was cancelled.
        """
        if isinstance(event, Piece):
            return self._piece(event)
        if isinstance(event, CallArguments):
            self._has_arguments = True
            return self._spell(event.json) if event.json else b""
        if isinstance(event, CallStart):
            self._has_arguments = False
            block = wire.ToolUseBlock(event.id, event.name, msgspec.Raw(b"{}"))
            return self._begin("tool_use", block)
        if isinstance(event, CallEnd):
            return self._end_call(event.call)
        return self._end_message(event)

    def whole(self, events: Sequence[TurnEvent]) -> bytes:
        """Everything in one JSON document (no `stream`). Raises OlmError for a cancelled or unfinished turn."""
        done = end_of(events)
        blocks = _Blocks()
        for event in events:
            if isinstance(event, Piece):
                blocks.say("thinking", event.thinking)
                blocks.say("text", event.content)
            elif isinstance(event, CallEnd):
                self._count_call(event.call)
                if event.call is not None:
                    blocks.call(event.call)
        blocks.close()
        reason, stop = self._reason(done)
        message = wire.MessageResponse(
            id=self._id,
            model=self._model,
            content=blocks.content,
            stop_reason=reason,
            stop_sequence=stop,
            usage=_usage(done),
        )
        return to_json(message)

    def _piece(self, piece: Piece) -> bytes:
        written = b""
        if piece.thinking:
            if self._open != "thinking":
                written = self._begin("thinking", wire.ThinkingBlock("", ""))
            written += self._spell(piece.thinking)
        if piece.content:
            if self._open != "text":
                written += self._begin("text", wire.TextBlock(""))
            written += self._spell(piece.content)
        return written

    def _spell(self, text: str) -> bytes:
        return self._delta + json_text(text) + _END

    def _begin(self, kind: _Kind, block: _Block) -> bytes:
        ended = self._end_block()
        self._open = kind
        self._index += 1
        self._delta = self._delta_head(*_DELTAS[kind])
        data = b'{"type":"content_block_start","index":%d,"content_block":%b}'
        return ended + _event("content_block_start", data % (self._index, to_json(block)))

    def _delta_head(self, kind: bytes, field: bytes) -> bytes:
        """A delta up to its text."""
        return (
            b"event: content_block_delta\n"
            b'data: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":'
        ) % (self._index, kind, field)

    def _end_block(self) -> bytes:
        if self._open is None:
            return b""
        signed = b""
        if self._open == "thinking":
            head = self._delta_head(b"signature_delta", b"signature")
            signed = head + json_text(SIGNATURE) + _END
        self._open = None
        data = b'{"type":"content_block_stop","index":%d}' % self._index
        return signed + _event("content_block_stop", data)

    def _end_call(self, call: ToolCall | None) -> bytes:
        self._count_call(call)
        if self._open != "tool_use":
            return b""
        late = b""
        if call is not None and not self._has_arguments:
            late = self._spell(call.arguments_json)
        return late + self._end_block()

    def _end_message(self, done: Done) -> bytes:
        reason, stop = self._reason(done)
        delta = wire.MessageDeltaEvent(wire.MessageDelta(reason, stop), _usage(done))
        return (
            self._end_block()
            + _event("message_delta", to_json(delta))
            + _event("message_stop", b'{"type":"message_stop"}')
        )

    def _count_call(self, call: ToolCall | None) -> None:
        if call is None:
            self._n_broken_calls += 1
        else:
            self._n_whole_calls += 1

    def _reason(self, done: Done) -> tuple[str, str | None]:
        """`stop_reason` and `stop_sequence`. A call that broke off at the limit must not look like one to be made."""
        is_full = reason_of(done) == "length"
        if self._n_whole_calls and not (is_full and self._n_broken_calls):
            return "tool_use", None
        if is_full:
            return "max_tokens", None
        if done.stop and done.stop in self._stops:
            return "stop_sequence", done.stop
        return "end_turn", None


_DELTAS: Final[dict[_Kind, tuple[bytes, bytes]]] = {
    "text": (b"text_delta", b"text"),
    "thinking": (b"thinking_delta", b"thinking"),
    "tool_use": (b"input_json_delta", b"partial_json"),
}


def _event(name: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


def _usage(done: Done) -> wire.Usage:
    return wire.Usage(
        input_tokens=max(0, done.n_prompt - done.n_cached),
        cache_read_input_tokens=done.n_cached,
        output_tokens=done.n_generated,
    )


class _Blocks:
    """The blocks of a whole answer, in the order in which they were said."""

    def __init__(self) -> None:
        self.content: list[_Block] = []
        self._kind: _Kind = "text"
        self._parts: list[str] = []

    def say(self, kind: Literal["text", "thinking"], text: str) -> None:
        """Add to the last block if that is of this kind, else begin one."""
        if text:
            if kind != self._kind:
                self.close()
                self._kind = kind
            self._parts.append(text)

    def call(self, call: ToolCall) -> None:
        """Add a whole call."""
        self.close()
        arguments = msgspec.Raw(call.arguments_json.encode())
        self.content.append(wire.ToolUseBlock(call.id, call.name, arguments))

    def close(self) -> None:
        """End the block of text that is open."""
        text = "".join(self._parts)
        self._parts.clear()
        if text:
            thinking = self._kind == "thinking"
            block = wire.ThinkingBlock(text, SIGNATURE) if thinking else wire.TextBlock(text)
            self.content.append(block)
