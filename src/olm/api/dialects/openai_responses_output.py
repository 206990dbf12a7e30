"""The items of a response's output while they are written: how each kind is opened, told in parts, and closed. Pure.

Events are pairs of their type and their fields; numbers and framing are added in `openai_responses_events`, which also
decides what is opened when. Source of the fields: OpenAI's API reference (streaming events of responses).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from olm.api import schemas_openai
from olm.api import schemas_responses as wire
from olm.api.dialects.openai_events import token_logprobs
from olm.api.encoding import json_text, to_json
from olm.chat.types import TokenLogprob

__all__ = ["Call", "Message", "OutputItem", "Reasoning"]

Event = tuple[bytes, bytes]
"""The type of an event, and its fields as JSON without braces."""


class _Item(ABC):
    """What all kinds share.

    Attributes:
        index: its place in the output.
        texts: what has been written of it, in parts.
        part_end: what ends the fields of a part.
    """

    part_end: ClassVar[bytes] = b""
    _DELTA: ClassVar[bytes]
    _PLACE: ClassVar[bytes] = b""

    def __init__(self, item_id: str, index: int) -> None:
        self.id = item_id
        self.index = index
        self.status = "in_progress"
        self.texts: list[str] = []

    @abstractmethod
    def told(self) -> wire.OutputItem:
        """The item as it is now."""

    def opening(self) -> Sequence[Event]:
        """The events that open it."""
        return [self._item_event(b"response.output_item.added")]

    def closing(self) -> Sequence[Event]:
        """The events that close it."""
        return [self._item_event(b"response.output_item.done")]

    def delta_head(self) -> bytes:
        """A part's event up to its text, with a place for its number."""
        fields = self._place().replace(b"%", b"%%")
        return (
            b'event: %b\ndata: {"type":"%b","sequence_number":%%d,' % (self._DELTA, self._DELTA)
            + fields
            + b',"delta":'
        )

    def _item_event(self, kind: bytes) -> Event:
        return kind, b'"output_index":%d,"item":%b' % (self.index, to_json(self.told()))

    def _place(self) -> bytes:
        """The fields that say to which item, and where in it, an event belongs."""
        place = b'"item_id":%b,"output_index":%d' % (json_text(self.id), self.index)
        return place + self._PLACE

    def _text(self) -> str:
        return "".join(self.texts)


class Message(_Item):
    """Text of the assistant."""

    part_end: ClassVar[bytes] = b',"logprobs":[]'
    _DELTA: ClassVar[bytes] = b"response.output_text.delta"
    _PLACE: ClassVar[bytes] = b',"content_index":0'

    def __init__(self, item_id: str, index: int) -> None:
        super().__init__(item_id, index)
        self._logprobs: list[schemas_openai.TokenLogprob] = []

    def add_logprobs(self, entries: Sequence[TokenLogprob]) -> bytes:
        """Note the tokens of a part; what ends the part then, empty without any."""
        if not entries:
            return b""
        told = token_logprobs(entries)
        self._logprobs += told
        return b',"logprobs":' + to_json(told)

    def told(self) -> wire.OutputMessage:
        content = [self._part()] if self.status != "in_progress" else []
        return wire.OutputMessage(id=self.id, status=self.status, role="assistant", content=content)

    def opening(self) -> Sequence[Event]:
        empty = wire.OutputText(text="", annotations=(), logprobs=[])
        part = self._place() + b',"part":' + to_json(empty)
        return [*super().opening(), (b"response.content_part.added", part)]

    def closing(self) -> Sequence[Event]:
        part = self._part()
        text = b',"text":%b,"logprobs":%b' % (to_json(part.text), to_json(part.logprobs))
        return [
            (b"response.output_text.done", self._place() + text),
            (b"response.content_part.done", self._place() + b',"part":' + to_json(part)),
            *super().closing(),
        ]

    def _part(self) -> wire.OutputText:
        return wire.OutputText(text=self._text(), annotations=(), logprobs=self._logprobs)


class Reasoning(_Item):
    """What the model thought. It is all told as a summary, as Ollama does: clients show summaries."""

    _DELTA: ClassVar[bytes] = b"response.reasoning_summary_text.delta"
    _PLACE: ClassVar[bytes] = b',"summary_index":0'

    def told(self) -> wire.OutputReasoning:
        text = self._text()
        if not text or self.status == "in_progress":
            return wire.OutputReasoning(id=self.id, summary=[])
        summary = [wire.SummaryText(text=text)]
        return wire.OutputReasoning(id=self.id, summary=summary, encrypted_content=text)

    def opening(self) -> Sequence[Event]:
        part = self._place() + b',"part":' + to_json(wire.SummaryText(text=""))
        return [*super().opening(), (b"response.reasoning_summary_part.added", part)]

    def closing(self) -> Sequence[Event]:
        part = wire.SummaryText(text=self._text())
        return [
            (
                b"response.reasoning_summary_text.done",
                self._place() + b',"text":' + to_json(part.text),
            ),
            (
                b"response.reasoning_summary_part.done",
                self._place() + b',"part":' + to_json(part),
            ),
            *super().closing(),
        ]


class Call(_Item):
    """A call of a function, `group` for one of a namespace."""

    _DELTA: ClassVar[bytes] = b"response.function_call_arguments.delta"

    def __init__(self, item_id: str, index: int, call_id: str, name: str, group: str) -> None:
        super().__init__(item_id, index)
        self._call_id = call_id
        self._name = name
        self._group = group

    def told(self) -> wire.OutputCall:
        return wire.OutputCall(
            id=self.id,
            status=self.status,
            call_id=self._call_id,
            name=self._name,
            namespace=self._group,
            arguments=self._text(),
        )

    def closing(self) -> Sequence[Event]:
        if self.status != "completed":
            return super().closing()
        arguments = b',"name":%b,"arguments":%b' % (
            json_text(self._name),
            to_json(self._text()),
        )
        done = (b"response.function_call_arguments.done", self._place() + arguments)
        return [done, *super().closing()]


OutputItem = Message | Reasoning | Call
