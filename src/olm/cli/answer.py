"""An answer as it streams in: what is printed for each event, and the request that brings it.

`AnswerView` is pure: pieces in, characters out. `stream_answer` is the rim over the client and the terminal.
Thinking is shown dim between `Thinking...` and `...done thinking.`, as Ollama does (spec §3); a tool call, which
nothing here could run, as a line of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from typing import Final

import attrs

from olm.cli.client import Client
from olm.cli.progress import Progress, terminal_size
from olm.cli.text import WordWrapper
from olm.cli.views import statistics
from olm.cli.wire import Json, children, mapping, text

__all__ = ["THINK_LEVELS", "Answer", "AnswerView", "Look", "parse_think", "stream_answer"]

GREY: Final = "\x1b[38;5;245m"
BOLD: Final = "\x1b[1m"
PLAIN: Final = "\x1b[0m"
# A model can be made to write escape sequences; on a terminal they would act. Newline and tab stay.
_UNSAFE: Final = {code: None for code in (*range(32), *range(0x7F, 0xA0)) if code not in (9, 10)}
THINK_LEVELS: Final = ("high", "medium", "low", "max")


def parse_think(value: str) -> bool | str | None:
    """Read a value of `--think`: a boolean, a level, or None for what is neither."""
    if value in THINK_LEVELS:
        return value
    return {"true": True, "false": False}.get(value)


@attrs.frozen
class Look:
    """How answers are shown. `hide_thinking` drops the reasoning, `verbose` adds the statistics on stderr."""

    wordwrap: bool = True
    verbose: bool = False
    hide_thinking: bool = False


@attrs.frozen
class Answer:
    """What came: the text, the reasoning, the last event, and whether Ctrl-C ended it early.

    Calls of tools are shown and then forgotten: without results they would only confuse what follows.
    """

    content: str
    thinking: str
    final: Json
    interrupted: bool = False


class AnswerView:
    """Turns pieces of reasoning and of text into characters for the screen or a pipe.

    Args:
        terminal: colours, and control characters removed; a pipe gets the text as it is.
        hide_thinking: leave the reasoning out.
    """

    def __init__(self, *, terminal: bool, hide_thinking: bool = False) -> None:
        self._terminal = terminal
        self._hide_thinking = hide_thinking
        self._wrapper = WordWrapper()
        self._is_thinking = False
        self._last_thought = ""
        self._is_mid_line = False
        self._ending = ""

    def feed(self, thinking: str, content: str, width: int = 0) -> str:
        """Show the next pieces, wrapped for `width` columns; 0 for no wrapping."""
        out = ""
        if thinking and not self._hide_thinking:
            if not self._is_thinking:
                self._is_thinking = True
                out += "\n" if self._is_mid_line else ""
                out += self._heading("Thinking...") + "\n" + self._colour(GREY)
            out += self._body(thinking, width)
            self._last_thought = thinking[-1]
        if content:
            out += self.finish() + self._body(content, width)
            self._is_mid_line, self._ending = content[-1] != "\n", "\n\n"
        return out

    def calls(self, calls: Sequence[Json]) -> str:
        """Show tool calls, each on a line of its own."""
        if not calls:
            return ""
        out = self.finish() + ("\n" if self._is_mid_line else "")
        self._wrapper, self._is_mid_line, self._ending = WordWrapper(), False, "\n"
        return out + "".join(self._call(mapping(call, "function")) for call in calls)

    def _call(self, function: Json) -> str:
        arguments = json.dumps(mapping(function, "arguments"), ensure_ascii=False)
        line = f"Tool call: {text(function, 'name')} {arguments}"
        if self._terminal:
            line = f"{GREY}{line.translate(_UNSAFE)}{PLAIN}"
        return f"{line}\n"

    def finish(self) -> str:
        """Close what is open; the text that follows starts on a line of its own."""
        if not self._is_thinking:
            return ""
        self._is_thinking = self._is_mid_line = False
        self._wrapper = WordWrapper()
        gap = "" if self._last_thought == "\n" else "\n"
        return f"{gap}{self._colour(PLAIN)}{self._heading('...done thinking.')}\n\n"

    def end(self) -> str:
        """Close what is open, and set what was said off from what follows."""
        return self.finish() + self._ending

    def _heading(self, words: str) -> str:
        return f"{GREY}{BOLD}{words}{PLAIN}" if self._terminal else words

    def _colour(self, code: str) -> str:
        return code if self._terminal else ""

    def _body(self, piece: str, width: int) -> str:
        if self._terminal:
            piece = piece.translate(_UNSAFE)
        return self._wrapper.feed(piece, width) if width else piece


def _pieces(event: Json) -> tuple[str, str, list[Json]]:
    """Reasoning, text and tool calls of one event of /api/chat or /api/generate."""
    message = mapping(event, "message")
    if message:
        return text(message, "thinking"), text(message, "content"), children(message, "tool_calls")
    return text(event, "thinking"), text(event, "response"), children(event, "tool_calls")


def stream_answer(client: Client, path: str, body: Json, look: Look) -> Answer:
    """Send a request and print its answer as it comes; a spinner turns until the first event.

    Ctrl-C closes the connection, which makes the server stop, and returns what came so far.

    Raises:
        OlmError: the server refused or failed; what was printed stays, on a finished line.
    """
    out = sys.stdout
    view = AnswerView(terminal=out.isatty(), hide_thinking=look.hide_thinking)
    thinking: list[str] = []
    content: list[str] = []
    final: Json = {}
    interrupted = False
    try:
        with Progress() as progress, closing(client.stream("POST", path, body)) as events:
            progress.spinner("")
            try:
                for event in events:
                    progress.clear()
                    more_thinking, more, calls = _pieces(event)
                    thinking.append(more_thinking)
                    content.append(more)
                    width = terminal_size(out)[0] if look.wordwrap and out.isatty() else 0
                    out.write(view.feed(more_thinking, more, width) + view.calls(calls))
                    out.flush()
                    if event.get("done") is True:
                        final = event
            except KeyboardInterrupt:
                interrupted = True
            finally:
                progress.clear()
    finally:
        out.write(view.end())
        out.flush()
    if look.verbose and final:
        print("\n".join(statistics(final)), file=sys.stderr)
    return Answer("".join(content), "".join(thinking), final, interrupted)
