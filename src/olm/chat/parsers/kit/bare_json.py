"""A call that is a JSON object by itself, without markers: it ends with its last brace, whatever follows."""

from __future__ import annotations

from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.json_calls import JsonCalls, JsonKeys, JsonSpan
from olm.chat.types import AnswerEvent

__all__ = ["BareJsonCall"]


class BareJsonCall:
    """Reads one such object as a section; its opening brace is pushed, too. One that cannot be read fails alone."""

    def __init__(self, writer: CallWriter, keys: JsonKeys) -> None:
        self._call = JsonCalls(writer, "", "", keys=keys)
        self._span = JsonSpan()

    def push(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Take more text: events, and the text behind the object or None."""
        end = self._span.push(text)
        if end < 0:
            return self._call.push(text)[0], None
        events, rest = self._call.push(text[:end])
        if rest is None:
            events += self._call.finish()[0]
        return events, text[end:]

    def finish(self) -> tuple[list[AnswerEvent], str]:
        """The text is over."""
        return self._call.finish()
