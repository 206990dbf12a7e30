"""Arguments of calls in Gemma's syntax, turned into JSON while they come: `{city:<|"|>Oslo<|"|>,days:3}`.

Keys are bare, strings stand between the family's own delimiters; JSON's quotes are understood, too. What models get
wrong is repaired as in Ollama's `model/parsers/gemma4.go`: a last string that never closes, single quotes, and text
without quotes where the schema expects text. The other direction: `renderers.gemma_values`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Final, Literal

from olm.chat.jsontext import compact_json
from olm.chat.parsers.kit.json_span import object_or_none
from olm.chat.parsers.kit.scan import held_back

__all__ = ["GemmaArguments"]

_NOT_BLANK: Final = re.compile(r"\S")
_BARE_KEY: Final = re.compile(r'[^:{}\[\],"]*')
_BARE_END: Final = re.compile(r"[,}\]]")
_NEXT_KEY: Final = re.compile(r",\s*(\w+)\s*:")
_SCALAR: Final = re.compile(r"true|false|null|-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_SCALAR_START: Final = frozenset("-0123456789tfn")
_STOPS: Final = {'"': re.compile(r'[\\"]'), "'": re.compile(r"[\\']")}
_CLOSERS: Final = "}] \t\r\n"
_MAX_CLOSERS: Final = 32
_MAX_KEY: Final = 256
_MAX_SCALAR: Final = 64
_MAX_DEPTH: Final = 64
"""Longer or deeper than anything of use; they bound what is held back and read again."""


class GemmaArguments:
    """Reads one object, from its opening brace on.

    A string that holds the end marker of the call is in doubt: did the model forget to close it, or does it write about
    markers? It is closed before the marker unless a delimiter follows after which the object goes on. Until that is
    clear nothing streams.

    Args:
        quote: the delimiter of strings.
        end: the marker behind the call.
        texts: names of the arguments that may be text, in which missing quotes are forgiven.
        keys: names of all arguments, to find where such a text ends.
        is_bare_text: whether bare words are text everywhere, as in functiongemma.
    """

    def __init__(
        self,
        quote: str,
        end: str,
        *,
        texts: Collection[str] = (),
        keys: Collection[str] = (),
        is_bare_text: bool = False,
    ) -> None:
        self._quote, self._end = quote, end
        self._texts, self._keys, self._is_bare_text = texts, keys, is_bare_text
        self.state: Literal["open", "done", "broken"] = "open"
        self._text, self._at = "", 0
        self._is_over = False
        self._json: list[str] = []
        self._stack: list[str] = []
        self._is_first = True
        self._is_key = False
        self._key = ""
        self._step: Callable[[], str | None] = self._value

    @property
    def rest(self) -> str:
        """Text that has not been read: what follows the object, or its unreadable part."""
        return self._text[self._at :]

    def push(self, text: str) -> str:
        """Take more text, the opening brace first; returns more JSON."""
        self._text, self._at = self._text[self._at :] + text, 0
        return self._run()

    def finish(self) -> str:
        """The text is over; returns the rest of the JSON."""
        self._is_over = True
        rest = self._run()
        if self.state == "open":
            self.state = "broken"
        return rest

    def _run(self) -> str:
        parts: list[str] = []
        while self.state == "open" and (part := self._step()) is not None:
            parts.append(part)
        self._json += parts
        if self.state == "done" and object_or_none("".join(self._json)) is None:
            self.state = "broken"
        return "".join(parts)

    # Each step reads at `_at` and returns JSON, or None when it needs more text or has broken off.

    def _break(self) -> str | None:
        self.state = "broken"
        return None

    def _blank_end(self) -> int:
        """Find the place of the first character that is not white space; the text's end when there is none."""
        found = _NOT_BLANK.search(self._text, self._at)
        return found.start() if found else len(self._text)

    def _may_be_quote(self, at: int) -> bool:
        """Say whether the text ends in what may become a delimiter."""
        return (
            not self._is_over
            and 0 < len(self._text) - at < len(self._quote)
            and (self._quote.startswith(self._text[at:]))
        )

    def _comma(self) -> str:
        is_first, self._is_first = self._is_first, False
        return "" if is_first else ","

    def _open(self, at: int, closer: str, then: Callable[[], str | None]) -> str | None:
        if len(self._stack) == _MAX_DEPTH:
            return self._break()
        self._stack.append(closer)
        self._at, self._is_first, self._step = at + 1, True, then
        return self._text[at]

    def _close(self, at: int) -> str | None:
        closer = self._text[at]
        if self._stack[-1] != closer:
            return self._break()
        self._stack.pop()
        self._at, self._is_first, self._step = at + 1, False, self._after
        if not self._stack:
            self.state = "done"
        return closer

    def _before_key(self) -> str | None:
        at = self._blank_end()
        if at == len(self._text) or self._may_be_quote(at):
            return None
        if self._text[at] == "}":
            return self._close(at)
        if self._text.startswith(self._quote, at):
            self._at, self._step, self._is_key = at + len(self._quote), self._string, True
            return self._comma() + '"'
        if self._text[at] == '"':
            self._at, self._step, self._is_key = at + 1, self._json_string, True
            return self._comma() + '"'
        return self._bare_key(at)

    def _bare_key(self, at: int) -> str | None:
        found = _BARE_KEY.match(self._text, at, at + _MAX_KEY)
        end = found.end() if found else at
        if end == len(self._text):
            return None
        key = self._text[at:end].rstrip()
        if self._text[end] != ":" or not key:
            return self._break()
        self._at, self._step = end + 1, self._value
        if len(self._stack) == 1:
            self._key = key
        return f"{self._comma()}{compact_json(key)}:"

    def _colon(self) -> str | None:
        at = self._blank_end()
        if at == len(self._text):
            return None
        if self._text[at] != ":":
            return self._break()
        self._at, self._step = at + 1, self._value
        return ":"

    def _before_item(self) -> str | None:
        at = self._blank_end()
        if at == len(self._text):
            return None
        if self._text[at] == "]":
            return self._close(at)
        self._step = self._value
        return self._comma()

    def _value(self) -> str | None:
        at = self._blank_end()
        if at == len(self._text) or self._may_be_quote(at):
            return None
        char = self._text[at]
        if char == "{":
            return self._open(at, "}", self._before_key)
        if not self._stack:
            return self._break()
        if char == "[":
            return self._open(at, "]", self._before_item)
        self._is_key = False
        if self._text.startswith(self._quote, at):
            self._at, self._step = at + len(self._quote), self._string
            return '"'
        if char == '"' or (char == "'" and not self._is_bare_text):
            self._at = at + 1
            self._step = self._json_string if char == '"' else self._single_quoted
            return '"'
        return self._bare(at)

    def _bare(self, at: int) -> str | None:
        if self._is_text() and self._text[at] not in _SCALAR_START:
            self._step = self._unquoted
            return ""
        end = _BARE_END.search(self._text, at, at + _MAX_SCALAR)
        if end is None and len(self._text) - at < _MAX_SCALAR and not self._is_over:
            return None
        word = self._text[at : end.start()].rstrip() if end else ""
        if end and _SCALAR.fullmatch(word):
            self._at, self._step = end.start(), self._after
            return word
        if self._is_text():
            self._step = self._unquoted
            return ""
        if self._is_bare_text:
            self._step = self._bare_text
            return '"'
        return self._break()

    def _is_text(self) -> bool:
        return len(self._stack) == 1 and self._key in self._texts

    def _bare_text(self) -> str | None:
        """Read a word without quotes as text, up to a comma or a bracket."""
        found = _BARE_END.search(self._text, self._at)
        end = found.start() if found else len(self._text)
        marker = self._text.find(self._end, self._at, end)
        if marker >= 0:
            return self._break()
        if not found:
            end -= held_back(self._text[self._at :], (self._end,))
        if end == self._at and not found:
            return None
        part, self._at = self._text[self._at : end], end
        if found:
            self._step = self._after
        return _escaped(part) + ('"' if found else "")

    def _unquoted(self) -> str | None:
        """Read a text whose quotes were forgotten, white space and all: up to the next known name, else to the end."""
        end = self._text.find(self._end, self._at)
        if end < 0 and not self._is_over:
            return None
        end = len(self._text) if end < 0 else end
        for found in _NEXT_KEY.finditer(self._text, self._at, end):
            if found[1] in self._keys:
                end = found.start()
                break
        else:
            body = self._text[self._at : end].rstrip()
            if not body.endswith("}"):
                return self._cut(end)
            end = self._at + len(body) - 1
        part, self._at, self._step = self._text[self._at : end], end, self._after
        return f'"{_escaped(part)}"'

    def _string(self) -> str | None:
        closing = self._text.find(self._quote, self._at)
        marker = self._text.find(self._end, self._at, None if closing < 0 else closing)
        if marker >= 0:
            return self._string_in_doubt(marker, closing)
        if closing >= 0:
            return self._end_string(closing)
        if self._is_over:
            return self._cut(len(self._text), is_open=True)
        # What may become a marker waits, and so do brackets before it, which may belong to the object.
        body = self._text[self._at :]
        body = body[: len(body) - held_back(body, (self._quote, self._end))]
        tail = body[-_MAX_CLOSERS:]
        body = body[: len(body) - len(tail) + len(tail.rstrip(_CLOSERS))]
        self._at += len(body)
        return _escaped(body) if body else None

    def _string_in_doubt(self, marker: int, closing: int) -> str | None:
        if closing >= 0:
            found = _NOT_BLANK.search(self._text, closing + len(self._quote))
            if found and found[0] in (":" if self._is_key else ",}]"):
                return self._end_string(closing)
            if found is None and not self._is_over:
                return None
        elif not self._is_over:
            return None
        return self._cut(marker, is_open=True)

    def _end_string(self, closing: int) -> str:
        part = self._text[self._at : closing]
        self._at = closing + len(self._quote)
        self._step = self._colon if self._is_key else self._after
        return _escaped(part) + '"'

    def _cut(self, end: int, *, is_open: bool = False) -> str | None:
        """Close a last string, and all that is open, at `end`; brackets before it that fit are the object's."""
        if self._is_key:
            return self._break()
        body = self._text[self._at : end]
        inner, n_closed = body.rstrip(), 0
        while n_closed < len(self._stack) and inner.endswith(("}", "]")):
            inner, n_closed = inner[:-1].rstrip(), n_closed + 1
        text = inner if n_closed else body
        closers = "".join(reversed(self._stack))
        self._at, self._stack, self.state = end, [], "done"
        return ("" if is_open else '"') + _escaped(text) + '"' + closers

    def _json_string(self) -> str | None:
        part = self._up_to_quote('"')
        return part + '"' if part is not None and self._step != self._json_string else part

    def _single_quoted(self) -> str | None:
        part = self._up_to_quote("'")
        if part is None:
            return None
        if self._step == self._single_quoted:
            return _escaped(part)
        self._step = self._after_single_quote
        return _escaped(part) + '"'

    def _up_to_quote(self, quote: str) -> str | None:
        """Take text up to a quote without a backslash before it; with it, the step is done."""
        at = self._at
        while found := _STOPS[quote].search(self._text, at):
            if found[0] == quote:
                part, self._at = self._text[self._at : found.start()], found.end()
                self._step = self._colon if self._is_key else self._after
                return part
            if found.end() == len(self._text):
                break
            at = found.end() + 1
        end = found.start() if found else len(self._text)
        part, self._at = self._text[self._at : end], end
        return part or None

    def _after_single_quote(self) -> str | None:
        """Drop the delimiter that some models write behind a single quote."""
        at = self._blank_end()
        if at == len(self._text) or self._may_be_quote(at):
            return None
        self._at, self._step = at, self._after
        if self._text.startswith(self._quote, at):
            self._at += len(self._quote)
        return ""

    def _after(self) -> str | None:
        at = self._blank_end()
        if at == len(self._text):
            return None
        char = self._text[at]
        if char in "}]":
            return self._close(at)
        if char != ",":
            return self._break()
        self._at = at + 1
        self._step = self._before_key if self._stack[-1] == "}" else self._before_item
        return ""


def _escaped(text: str) -> str:
    return compact_json(text)[1:-1]
