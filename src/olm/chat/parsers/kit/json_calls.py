"""Calls as JSON objects, `<tool_call>{"name": …, "arguments": {…}}</tool_call>`: alone in a section, in a list, or bare.

The arguments are passed on literally as they are generated, and checked when they end. An end marker inside a JSON
string does not end the section. Families that write the name outside of the JSON: `named_json`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import attrs
import msgspec

from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.json_span import JsonSpan, object_or_none
from olm.chat.parsers.kit.sections import TextBefore
from olm.chat.types import AnswerEvent

__all__ = ["BareJsonCall", "JsonCall", "JsonCallList", "JsonKeys"]

_BLANKS: Final = " \t\r\n"
_NOT_BLANK: Final = re.compile(r"[^ \t\r\n]")
_SCALAR_END: Final = re.compile(r"[,}\]< \t\r\n]")
_STRAY: Final = _BLANKS + "}]"


def _string_or_none(text: str) -> str | None:
    try:
        return msgspec.json.decode(text, type=str)
    except msgspec.MsgspecError:
        return None


@attrs.frozen
class JsonKeys:
    """What a family calls the members of a call. `id` may be empty; of several `arguments` the first found counts."""

    name: str = "name"
    arguments: tuple[str, ...] = ("arguments", "parameters")
    id: str = ""


class JsonCall:
    """Reads a section of one JSON call.

    A section that does not begin with an object is none: its marker is text. A call that cannot be read fails with the
    text up to the end marker. What models forget is forgiven where the
    arguments are whole: the last brace, the end marker; and stray closing brackets.

    Args:
        begin: the marker that opened the section, given back in the text of a call that fails.
        end: the marker that closes it; empty when there is none.
    """

    def __init__(
        self,
        writer: CallWriter,
        begin: str,
        end: str,
        *,
        keys: JsonKeys = JsonKeys(),
    ) -> None:
        self._writer, self._end, self._keys = writer, end, keys
        self._raw = [begin]
        """The text so far, should it have to be given back."""
        self._events: list[AnswerEvent] = []
        self._step: Callable[[str, int], int] = self._before_object
        self._is_none = self._is_closing = self._is_broken = False
        self._held = ""
        self._name = self._id = self._key = ""
        self._value: list[str] = []
        self._arguments: list[str] | None = None
        self._has_all_arguments = False
        self._span = JsonSpan()

    def push(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Take more text: events, and the text behind the section or None."""
        self._events = []
        is_broken_before = self._is_broken
        at = 0 if is_broken_before else self._run(text)
        if self._is_none:
            raw = "".join(self._raw)
            return self._writer.fail(raw[: len(raw) - len(text) + at]), text[at:]
        if self._is_broken:
            return self._push_broken(text if is_broken_before else "")
        if not self._is_closing:
            return self._events, None
        return self._events, self._push_closing(text[at:])

    def _run(self, text: str) -> int:
        """Take the text step by step, until it ends, the section does, or something is wrong. Returns the place."""
        at = 0
        self._raw.append(text)
        while at < len(text) and not (self._is_closing or self._is_broken or self._is_none):
            at = self._step(text, at)
        return at

    def finish(self) -> tuple[list[AnswerEvent], str]:
        """The text is over."""
        self._events = []
        if self._is_closing:
            return [], self._held
        may_end = self._step == self._after_value and self._has_all_arguments
        if may_end and not self._is_broken and self._end_object():
            return self._events, ""
        raw = "".join(self._raw)
        ended, end, rest = raw.partition(self._end) if self._end else (raw, "", "")
        return self._writer.fail(ended + end), rest

    # Each step reads from `at` in `text` and returns the place where the next one goes on.

    def _before_object(self, text: str, at: int) -> int:
        at = _skip(text, at)
        if at == len(text):
            return at
        if text[at] != "{":
            self._is_none = True
            return at
        self._step = self._before_key
        return at + 1

    def _before_key(self, text: str, at: int) -> int:
        at = _skip(text, at)
        if at == len(text):
            return at
        if text[at] == "}":
            self._end_object()
            return at + 1
        if text[at] == '"':
            self._span, self._value, self._step = JsonSpan(), [], self._in_key
        else:
            self._is_broken = True
        return at

    def _in_key(self, text: str, at: int) -> int:
        end = self._span.push(text, at)
        self._value.append(text[at : end if end >= 0 else None])
        if end < 0:
            return len(text)
        key = _string_or_none("".join(self._value))
        self._is_broken = key is None
        self._key, self._step = key or "", self._before_colon
        return end

    def _before_colon(self, text: str, at: int) -> int:
        at = _skip(text, at)
        if at < len(text):
            self._is_broken = text[at] != ":"
            self._step = self._before_value
            at += 1
        return at

    def _before_value(self, text: str, at: int) -> int:
        at = _skip(text, at)
        if at == len(text):
            return at
        if text[at] in ",:}]<":
            self._is_broken = True
            return at
        self._span, self._value = JsonSpan(), []
        self._step = self._in_value if text[at] in '"{[' else self._in_scalar
        if self._key in self._keys.arguments and self._arguments is None:
            self._arguments = self._value
        return at

    def _in_value(self, text: str, at: int) -> int:
        end = self._span.push(text, at)
        self._take(text[at : end if end >= 0 else None])
        if end < 0:
            return len(text)
        self._end_value()
        return end

    def _in_scalar(self, text: str, at: int) -> int:
        found = _SCALAR_END.search(text, at)
        end = found.start() if found else len(text)
        self._take(text[at:end])
        if found:
            self._end_value()
        return end

    def _after_value(self, text: str, at: int) -> int:
        at = _skip(text, at)
        if at == len(text):
            return at
        if text[at] == ",":
            self._step = self._before_key
        elif text[at] == "}":
            self._end_object()
        elif text[at] == "<" and self._has_all_arguments:
            self._end_object()  # the last brace was forgotten
            return at
        else:
            self._is_broken = True
        return at + 1

    def _take(self, part: str) -> None:
        """Take a part of a value. Arguments that are an object stream as soon as the name is known."""
        self._value.append(part)
        if self._arguments is self._value and self._writer.is_open and self._value[0][0] == "{":
            self._events += self._writer.arguments(part)

    def _end_value(self) -> None:
        self._step = self._after_value
        if self._arguments is self._value:
            self._has_all_arguments = True
        elif self._key == self._keys.name and not self._name:
            name = _string_or_none("".join(self._value))
            self._is_broken = not name
            self._name = name or ""
            self._start_if_known()
        elif self._keys.id and self._key == self._keys.id and not self._id:
            self._id = _string_or_none("".join(self._value)) or ""

    def _start_if_known(self) -> None:
        """Begin the call when its name has come; the id counts only when it came before. Arguments may have come first."""
        if self._name and not self._writer.is_open:
            self._events += self._writer.start(self._name, self._id)
            if self._arguments and self._arguments[0][0] == "{":
                self._events += self._writer.arguments("".join(self._arguments))

    def _end_object(self) -> bool:
        """End the call if its name and arguments are good; else the section is broken."""
        missing = self._missing_arguments()
        if missing is None or not self._writer.is_open:
            self._is_broken = True
            return False
        self._events += self._writer.arguments(missing)
        self._events += self._writer.end()
        self._is_closing = True
        return True

    def _missing_arguments(self) -> str | None:
        """Return what of the arguments has not been streamed; None when they are no object."""
        whole = "".join(self._arguments or [])
        if whole in {"", "null", '""'}:
            return ""
        if whole[0] != '"':
            return "" if object_or_none(whole) is not None else None
        inner = _string_or_none(whole)  # some models write the object as a string
        return inner if inner and object_or_none(inner) is not None else None

    def _push_closing(self, text: str) -> str | None:
        """Look for the end marker; anything else than stray brackets before it belongs to what follows."""
        text = (self._held + text).lstrip(_STRAY)
        if self._end and text.startswith(self._end):
            return text[len(self._end) :]
        if len(text) < len(self._end) and self._end.startswith(text):
            self._held = text
            return None
        return text

    def _push_broken(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Wait for the end marker, with which everything is given up."""
        before = "".join(self._raw) if not text else self._held
        if text:
            self._raw.append(text)
        at = (before + text).find(self._end) if self._end else -1
        if at < 0:
            self._held = (before + text)[-len(self._end) :] if self._end else ""
            return self._events, None
        end = sum(map(len, self._raw)) - len(before + text) + at + len(self._end)
        raw = "".join(self._raw)
        return [*self._events, *self._writer.fail(raw[:end])], raw[end:]


def _skip(text: str, at: int) -> int:
    found = _NOT_BLANK.search(text, at)
    return found.start() if found else len(text)


class BareJsonCall:
    """Reads one object that stands by itself as a section, its opening brace included: it ends with its last brace."""

    def __init__(self, writer: CallWriter, keys: JsonKeys) -> None:
        self._call = JsonCall(writer, "", "", keys=keys)
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


class JsonCallList:
    """Reads a section of JSON calls, a list of objects. One that cannot be read fails alone; brackets and commas may be missing.

    Args:
        end: the marker that closes the section.
    """

    def __init__(self, writer: CallWriter, end: str, *, keys: JsonKeys = JsonKeys()) -> None:
        self._writer, self._end, self._keys = writer, end, keys
        self._before = TextBefore(("{", end), trims=False)
        self._junk: list[str] = []
        self._call: BareJsonCall | None = None

    def push(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Take more text: events, and the text behind the section or None."""
        events: list[AnswerEvent] = []
        while text:
            if self._call is not None:
                more, rest = self._call.push(text)
                events += more
                self._call = self._call if rest is None else None
                text = rest or ""
                continue
            between, marker, text = self._before.push(text)
            self._junk.append(between)
            if marker:
                events += self._take_junk()
            if marker == self._end:
                return events, text
            if marker:
                self._call = BareJsonCall(self._writer, self._keys)
                text = marker + text
        return events, None

    def _take_junk(self) -> list[AnswerEvent]:
        """Give back what stood between calls if it is more than the list's own marks."""
        text, self._junk = "".join(self._junk), []
        return self._writer.fail(text) if text.strip(_BLANKS + "[],") else []

    def finish(self) -> tuple[list[AnswerEvent], str]:
        """The text is over."""
        if self._call is not None:
            return self._call.finish()
        self._junk.append(self._before.finish())
        return self._take_junk(), ""
