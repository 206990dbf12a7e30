"""Tool calls in answers of models that have only a Go template: one reader for every form of JSON they come in.

The forms are those that Ollama's generic parser takes (`tools/tools.go`, spec/ollama §10.2): an object with `name` and
`arguments` or `parameters`, alone, in lists or inside other objects; the tool's name before an object of arguments; an
object with the tool's name as its key. Ollama reads the whole text again with each token and gives a call when it is
over; here every character is read once, and arguments go on as they are generated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

import attrs
import msgspec

from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.json_span import JsonSpan, object_or_none
from olm.chat.parsers.kit.sections import TextBefore
from olm.chat.types import AnswerEvent, Piece

__all__ = ["CallScanner"]

_NAMES: Final = ("name", "tool_name", "tool", "function")
_ARGUMENTS: Final = ("arguments", "parameters", "args")
_KNOWN: Final = (*_NAMES, *_ARGUMENTS, "tool_calls", "tool_call", "type", "id")
_NOT_BLANK: Final = re.compile(r"\S")
_SCALAR_END: Final = re.compile(r"[\s,:{}\[\]<\"]")


@attrs.define
class _Frame:
    """An object or a list that is being read.

    Attributes:
        n_calls: how many calls there were when it began.
        is_read: a call came of it, or it is a part of something that is none.
        is_key_next: what comes next in an object is a key, else the value of `key`.
        is_foreign: it has members that calls do not have.
        is_unusable: its arguments are no object.
        name: the tool that one of its members names.
        arguments: text of arguments that came before the name, or as a string.
    """

    is_object: bool
    n_calls: int
    is_read: bool = False
    is_key_next: bool = True
    is_foreign: bool = False
    is_unusable: bool = False
    key: str = ""
    name: str = ""
    arguments: str = ""


class CallScanner:
    """Reads calls from behind the tag that opened them: a `SectionReader` of `olm.chat.parsers.kit.sections`.

    Args:
        names: of the tools that were offered.
        begin: the tag, for the text of calls that fail.
        end: what closes the section; empty when that is not known: then it lasts to the end of the answer.
        is_bare: there was no tag, the text begins with a bracket. It may be an answer in JSON, so it comes back as
            content as soon as it cannot become a call, and a call begins only with its arguments.
    """

    def __init__(
        self,
        writer: CallWriter,
        names: Sequence[str],
        begin: str = "",
        end: str = "",
        *,
        is_bare: bool = False,
    ) -> None:
        self._writer, self._names, self._is_bare = writer, frozenset(names), is_bare
        self._markers = ("{", end) if end else ("{",)
        self._step: Callable[[str, int], int] = self._at_bracket if is_bare else self._between
        self._is_over = self._is_unread = self._is_list = False
        self._raw, self._n_raw = [begin], len(begin)  # everything since the end of the last call
        self._n_calls = 0
        self._frames: list[_Frame] = []
        self._object_at = 0  # where the outermost object begins in `_raw`
        self._leave_objects()

    def push(self, text: str) -> tuple[list[AnswerEvent], str | None]:
        """Take more text: events, and the text behind the section or None."""
        self._events: list[AnswerEvent] = []
        self._kept = at = 0
        while at < len(text) and not self._is_over:
            at = self._step(text, at)
        self._keep(text, at)
        if not self._is_over:
            return self._events, None
        return [*self._events, *self._leftover()], text[at:]

    def finish(self) -> tuple[list[AnswerEvent], str]:
        """The text is over; nothing of it is to be read again."""
        return self._leftover(), ""

    def _leftover(self) -> list[AnswerEvent]:
        """Give back what no call came of. Noise behind calls, as closing brackets, is dropped, as Ollama does."""
        raw, is_open = "".join(self._raw), self._writer.is_open
        if self._is_bare and not self._n_calls and not is_open:
            return [Piece(content=raw)] if raw else []
        is_whole = self._n_calls and not (is_open or self._is_unread or self._has_begun)
        return [] if is_whole else self._writer.fail(raw)

    @property
    def _has_begun(self) -> bool:
        """Whether an object is open of which no call has come."""
        return any(not frame.is_read and frame.n_calls == self._n_calls for frame in self._frames)

    def _keep(self, text: str, at: int) -> None:
        part = text[self._kept : at]
        self._raw.append(part)
        self._n_raw += len(part)
        self._kept = at

    def _forget(self, at: int) -> None:
        """Let what stands before `at` go: it became a call, or is noise between calls."""
        self._raw, self._n_raw, self._kept = [], 0, at

    # Each step reads from `at` in `text` and returns the place where the next one goes on.

    def _at_bracket(self, text: str, at: int) -> int:
        """Bare text: calls begin with `{` or `[{`, everything else is content."""
        found = _NOT_BLANK.search(text, at)
        if found is None:
            return len(text)
        at = found.start()
        if text[at] == "{":
            self._enter(at)
        elif text[at] == "[" and not self._is_list:
            self._is_list = True
        else:
            self._is_over = True
            return at
        return at + 1

    def _between(self, text: str, at: int) -> int:
        """Outside of objects: look for the next one, and for the end of the section."""
        before, marker, rest = self._outside.push(text[at:])
        self._before.append(before)
        at = len(text) - len(rest) if marker else len(text)
        if marker == "{":
            self._enter(at - 1)
        self._is_over = bool(marker) and marker != "{"
        return at

    def _in_ruins(self, text: str, at: int) -> int:
        """Behind something that is no JSON: only the end of the section counts."""
        _, marker, rest = self._outside.push(text[at:])
        self._is_over = bool(marker)
        return len(text) - len(rest) if marker else len(text)

    def _leave_objects(self) -> None:
        self._frames.clear()
        self._outside = TextBefore(self._markers, trims=False)
        self._before: list[str] = []
        self._name_before = ""
        self._is_list = False

    def _enter(self, at: int) -> None:
        """Begin an outermost object. A tool's name before it is the name of the call, unless it has one itself."""
        self._name_before = self._tool_in("".join(self._before))
        if self._n_calls and not self._is_unread:
            self._forget(at)
        self._object_at = self._n_raw + at - self._kept
        self._frames.append(_Frame(True, self._n_calls))
        self._step = self._in_object

    def _in_object(self, text: str, at: int) -> int:
        found = _NOT_BLANK.search(text, at)
        if found is None:
            return len(text)
        at, mark, frame = found.start(), found.group(), self._frames[-1]
        match mark:
            case "{" | "[":
                return self._open(mark, at)
            case "}" | "]":
                self._close(text, at + 1)
            case ",":
                frame.is_key_next = True
            case ":":
                frame.is_key_next = False
            case '"':
                self._begin_value(self._in_string)
                return at
            case _ if mark == "<" or (frame.is_object and frame.is_key_next):
                self._give_up()
                return at
            case _:
                self._begin_value(self._in_scalar)
                return at
        return at + 1

    def _begin_value(self, step: Callable[[str, int], int]) -> None:
        self._span, self._step = JsonSpan(), step
        self._value: list[str] = []

    def _take_value(self, text: str, at: int) -> tuple[str, int]:
        """Take more of a value: the part that was taken, and the end of the value or -1."""
        end = self._span.push(text, at)
        part = text[at : end if end >= 0 else None]
        self._value.append(part)
        return part, end

    def _in_scalar(self, text: str, at: int) -> int:
        found = _SCALAR_END.search(text, at)
        end = found.start() if found else len(text)
        self._value.append(text[at:end])
        if found:
            frame, self._step = self._frames[-1], self._in_object
            if frame.is_object and frame.key in _ARGUMENTS:
                frame.is_unusable = "".join(self._value) != "null"
        return end

    def _in_string(self, text: str, at: int) -> int:
        _, end = self._take_value(text, at)
        if end < 0:
            return len(text)
        self._step, frame = self._in_object, self._frames[-1]
        value = _string_or_none("".join(self._value))
        if value is None:
            self._give_up()
        elif frame.is_object and frame.is_key_next:
            self._take_key(frame, value, text, end)
        elif frame.is_object and not frame.is_read:
            self._take_string(frame, value)
        return end

    def _take_key(self, frame: _Frame, key: str, text: str, end: int) -> None:
        is_known = key in _KNOWN or key in self._names
        if self._name_before and len(self._frames) == 1 and not frame.key and not is_known:
            # The object itself is the arguments.
            self._begin_value(self._in_arguments)
            self._start(self._name_before)
            self._in_arguments(self._object_text(text, end), 0)
        frame.key, frame.is_key_next = key, False
        frame.is_foreign = frame.is_foreign or not is_known

    def _take_string(self, frame: _Frame, value: str) -> None:
        if frame.key in _ARGUMENTS or frame.key in self._names:
            if object_or_none(value) is not None:  # some models write the object as a string
                frame.arguments = value
                frame.name = frame.name or (frame.key if frame.key in self._names else "")
            else:
                frame.is_unusable = frame.is_unusable or frame.key in _ARGUMENTS
        elif frame.key in _NAMES and not frame.name:
            frame.name = value if value in self._names else self._tool_in(value)
            if frame.name and not frame.arguments and not self._is_bare:
                self._start(frame.name)
        if frame.name and frame.arguments and not frame.is_read:
            self._finish_call(frame, frame.arguments)

    def _open(self, mark: str, at: int) -> int:
        """Begin an object or list inside of another one: arguments, or something that may hold a call."""
        frame = self._frames[-1]
        is_member = frame.is_object and not frame.is_read
        is_arguments = is_member and frame.key in _ARGUMENTS
        if mark == "{" and is_member and not frame.name and frame.key in self._names:
            frame.name, is_arguments = frame.key, True
        if is_arguments and mark == "{":
            self._begin_value(self._in_arguments if frame.name else self._in_early_arguments)
            if frame.name:
                self._start(frame.name)
            return at
        frame.is_unusable = frame.is_unusable or is_arguments
        inner = _Frame(mark == "{", self._n_calls)
        inner.is_read = frame.is_read or is_arguments or bool(frame.name)
        if self._n_calls and not inner.is_read and not self._has_begun and not self._is_unread:
            self._forget(at)
        self._frames.append(inner)
        return at + 1

    def _in_arguments(self, text: str, at: int) -> int:
        part, end = self._take_value(text, at)
        self._events += self._writer.arguments(part)
        if end < 0:
            return len(text)
        if self._span.is_broken or object_or_none("".join(self._value)) is None:
            self._give_up()
            return end
        self._finish_call(self._frames[-1])
        self._forget(end)
        if self._name_before and len(self._frames) == 1 and not self._frames[0].name:
            self._leave_objects()
            self._step = self._between
        else:
            self._step = self._in_object
        return end

    def _in_early_arguments(self, text: str, at: int) -> int:
        """Arguments before the name: nothing can be said yet."""
        _, end = self._take_value(text, at)
        if end < 0:
            return len(text)
        frame, self._step = self._frames[-1], self._in_object
        value = "".join(self._value)
        frame.is_unusable = self._span.is_broken or object_or_none(value) is None
        frame.arguments = "" if frame.is_unusable else value
        return end

    def _close(self, text: str, end: int) -> None:
        """End an object or list; brackets of the wrong kind are forgiven, as the call inside may be whole."""
        frame = self._frames.pop()
        if frame.is_object and not frame.is_read:
            is_outermost = not self._frames
            if frame.name and not (frame.is_unusable or frame.is_foreign):
                self._finish_call(frame, "{}")
                self._forget(end)
            elif frame.name and self._writer.is_open:
                self._give_up()
                return
            elif self._name_before and is_outermost:
                arguments = self._object_text(text, end)
                if object_or_none(arguments) is not None:
                    frame.name = self._name_before
                    self._finish_call(frame, arguments)
                    self._forget(end)
        if not self._frames:
            self._is_unread = self._is_unread or frame.n_calls == self._n_calls
            self._is_over = self._is_bare and not self._n_calls
            self._leave_objects()
            self._step = self._between

    def _object_text(self, text: str, end: int) -> str:
        """Give the text of the outermost object up to `end`. No call has come of it, so `_raw` has the whole."""
        return ("".join(self._raw) + text[self._kept : end])[self._object_at :]

    def _start(self, name: str) -> None:
        if not self._writer.is_open:
            self._events += self._writer.start(name)

    def _finish_call(self, frame: _Frame, arguments: str = "") -> None:
        """End the call of a frame; with `arguments` where they were not streamed."""
        self._start(frame.name or self._name_before)
        self._events += [*self._writer.arguments(arguments), *self._writer.end()]
        self._n_calls += 1
        frame.is_read = True

    def _give_up(self) -> None:
        """What stands here is no JSON: wait for the end of the section, or give bare text back at once."""
        is_open = self._writer.is_open
        self._is_unread = self._is_unread or is_open or self._has_begun or not self._n_calls
        self._is_over = self._is_bare and not self._n_calls and not is_open
        self._events += self._writer.fail("")
        self._frames.clear()
        self._outside = TextBefore(self._markers[1:], trims=False)
        self._step = self._in_ruins

    def _tool_in(self, text: str) -> str:
        """Find the first tool that is named in a text, as a word of its own; empty when there is none."""
        if not text.strip():
            return ""
        names = "|".join(re.escape(name) for name in sorted(self._names, key=len, reverse=True))
        found = re.search(rf"(?<![\w-])(?:{names})(?![\w-])", text)
        return found.group() if found else ""


def _string_or_none(text: str) -> str | None:
    try:
        return msgspec.json.decode(text, type=str)
    except msgspec.MsgspecError:
        return None
