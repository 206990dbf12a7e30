"""What a turn sends back, as events of the Responses API, or as the one object they add up to. Pure.

Reasoning, text and calls are output items; each is opened, told in parts, and closed, in the order the model writes
them. A streamed token must be cheap, so the constant parts of its event are made when its item is opened. Sources:
spec/ollama §2.5 and appendix B, and OpenAI's API reference for what Ollama leaves out: `reasoning_summary_part`,
arguments in parts, text beside calls, and the truth about answers that were cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs
import msgspec

from olm.api import schemas_responses as wire
from olm.api.dialects.openai_responses_output import Call, Message, OutputItem, Reasoning
from olm.api.dialects.turn import reason_of
from olm.api.encoding import json_text, to_json
from olm.api.errors import unfinished
from olm.api.response_store import Item
from olm.chat.types import (
    CallArguments,
    CallEnd,
    CallStart,
    Done,
    Piece,
    TurnEvent,
)
from olm.errors import Busy, ContextTooLong, InvalidRequest, OlmError

__all__ = ["Finished", "ResponseForm"]

_OF_CALLS: Final = (CallStart, CallArguments, CallEnd)
_INCOMPLETE: Final = wire.IncompleteDetails(reason="max_output_tokens")


@attrs.frozen
class Finished:
    """A response that has come to its end: the whole object as JSON, and its output as items to keep."""

    json: bytes
    output: Sequence[Item]


class ResponseForm:
    """Writes the events of one response.

    Args:
        response: the object as it is when nothing is said yet.
        groups: group and short name of functions that are told in two names.
        new_id: makes an id that begins with a prefix.
        epoch_s: the wall clock, in seconds.
        finished: told the end, before the event that ends the stream is written.
    """

    def __init__(
        self,
        response: wire.ResponseObject,
        groups: Mapping[str, tuple[str, str]],
        *,
        new_id: Callable[[str], str],
        epoch_s: Callable[[], int],
        finished: Callable[[Finished], None],
    ) -> None:
        self._response = response
        self._groups = groups
        self._new_id = new_id
        self._epoch_s = epoch_s
        self._finished = finished
        self._number = 0
        self._items: list[OutputItem] = []
        self._open: OutputItem | None = None
        self._n_thoughts = 0
        self._delta = b""

    def start(self) -> bytes:
        """The events with which every stream begins."""
        response = b'"response":' + to_json(self._response)
        return self._event(b"response.created", response) + self._event(
            b"response.in_progress", response
        )

    def line(self, event: TurnEvent) -> bytes:
        """The events of one event of the turn, empty when it says nothing. Raises OlmError for a cancelled turn."""
        if isinstance(event, Piece):
            return self._piece(event)
        if isinstance(event, CallArguments):
            return self._part(event.json) if isinstance(self._open, Call) else b""
        if isinstance(event, CallStart):
            return self._call(event)
        if isinstance(event, CallEnd):
            return self._call_end(event)
        return self._end(event)

    def whole(self, events: Sequence[TurnEvent]) -> bytes:
        """The object they add up to. Calls that broke off are left out: their text is in a message.

        Raises:
            OlmError: the turn was cancelled, or ended without saying how.
        """
        broken = {e.index for e in events if isinstance(e, CallEnd) and e.call is None}
        for event in events:
            if not (isinstance(event, _OF_CALLS) and event.index in broken):
                self.line(event)
        if self._response.status == "in_progress":
            raise unfinished()
        return to_json(self._response)

    def failed(self, error: OlmError, _request_id: str) -> bytes:
        """The event that ends a stream in which something went wrong."""
        if self._open is not None:
            self._open.status = "incomplete"
        failure = wire.ResponseError(code=_code(error), message=error.message)
        response = msgspec.structs.replace(
            self._response, status="failed", error=failure, output=self._output()
        )
        return self._event(b"response.failed", b'"response":' + to_json(response))

    # --- events ---------------------------------------------------------------------------------------------------------

    def _event(self, kind: bytes, fields: bytes) -> bytes:
        number, self._number = self._number, self._number + 1
        return b'event: %b\ndata: {"type":"%b","sequence_number":%d,%b}\n\n' % (
            kind,
            kind,
            number,
            fields,
        )

    def _part(self, text: str, logprobs: bytes = b"") -> bytes:
        """The next part of the open item: the commonest event by far."""
        item = self._open
        assert item is not None, "parts belong to an open item"
        item.texts.append(text)
        number, self._number = self._number, self._number + 1
        head = self._delta % number
        return head + json_text(text) + (logprobs or item.part_end) + b"}\n\n"

    # --- items ----------------------------------------------------------------------------------------------------------

    def _piece(self, piece: Piece) -> bytes:
        written = b""
        if piece.thinking:
            self._n_thoughts += 1
            if not isinstance(self._open, Reasoning):
                written = self._opened(Reasoning(self._new_id("rs"), len(self._items)))
            written += self._part(piece.thinking)
        if piece.content or (piece.logprobs and isinstance(self._open, Message)):
            if not isinstance(self._open, Message):
                written += self._opened(Message(self._new_id("msg"), len(self._items)))
            assert isinstance(self._open, Message), "it was just opened"
            written += self._part(piece.content, self._open.add_logprobs(piece.logprobs))
        return written

    def _call(self, start: CallStart) -> bytes:
        group, name = self._groups.get(start.name, ("", start.name))
        item_id = self._new_id("fc")
        return self._opened(Call(item_id, len(self._items), start.id, name, group))

    def _call_end(self, end: CallEnd) -> bytes:
        call = self._open
        if not isinstance(call, Call):
            return b""
        if end.call is None:
            return self._closed("incomplete")
        # The engine's last word on the arguments, should the parts have been written otherwise.
        call.texts[:] = [end.call.arguments_json]
        return self._closed("completed")

    def _opened(self, item: OutputItem) -> bytes:
        """Close what is open, and open an item."""
        written = self._closed("completed")
        self._open = item
        self._items.append(item)
        self._delta = item.delta_head()
        return written + b"".join(self._event(kind, fields) for kind, fields in item.opening())

    def _closed(self, status: str) -> bytes:
        item, self._open = self._open, None
        if item is None:
            return b""
        item.status = status
        return b"".join(self._event(kind, fields) for kind, fields in item.closing())

    def _output(self) -> list[wire.OutputItem]:
        return [item.told() for item in self._items]

    # --- the end --------------------------------------------------------------------------------------------------------

    def _end(self, done: Done) -> bytes:
        status = "incomplete" if reason_of(done) == "length" else "completed"
        written = self._closed(status)
        if not self._items:
            # Clients look for a message in every answer.
            written += self._opened(Message(self._new_id("msg"), 0)) + self._closed(status)
        self._response = msgspec.structs.replace(
            self._response,
            status=status,
            completed_at=self._epoch_s() if status == "completed" else None,
            incomplete_details=_INCOMPLETE if status == "incomplete" else None,
            output=self._output(),
            usage=self._usage(done),
        )
        whole = to_json(self._response)
        self._finished(Finished(whole, [Item(i.id, to_json(i.told())) for i in self._items]))
        return written + self._event(b"response." + status.encode(), b'"response":' + whole)

    def _usage(self, done: Done) -> wire.ResponseUsage:
        """Tokens of reasoning are counted by the pieces that brought them: a step of the model each."""
        is_all = all(isinstance(item, Reasoning) for item in self._items)
        n_thoughts = done.n_generated if is_all else min(self._n_thoughts, done.n_generated)
        return wire.ResponseUsage(
            input_tokens=done.n_prompt,
            input_tokens_details=wire.InputTokensDetails(cached_tokens=done.n_cached),
            output_tokens=done.n_generated,
            output_tokens_details=wire.OutputTokensDetails(reasoning_tokens=n_thoughts),
            total_tokens=done.n_prompt + done.n_generated,
        )


def _code(error: OlmError) -> str:
    """OpenAI's code of a failure. Codex reads `context_length_exceeded`, and tries again on the others."""
    if isinstance(error, ContextTooLong):
        return "context_length_exceeded"
    if isinstance(error, Busy):
        return "server_is_overloaded"
    return "invalid_prompt" if isinstance(error, InvalidRequest) else "server_error"
