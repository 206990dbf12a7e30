"""Lines from the keyboard with the standard library's `readline`: editing, history, pasted blocks.

Where the interpreter lacks `readline`, or input is no terminal, lines come in unedited.
"""

from __future__ import annotations

from types import ModuleType

from olm.cli.repl.history import HistoryFile

__all__ = ["Keyboard"]

TAB_IS_SPACES = r'"\t": "        "'


class Keyboard:
    """Reads lines and keeps their history."""

    def __init__(self, history: HistoryFile) -> None:
        self.history = history
        self._readline = _load_readline()
        if self._readline is not None:
            self._readline.set_auto_history(False)  # only whole lines of ours, and only if allowed
            self._readline.parse_and_bind("set enable-bracketed-paste on")
            self._readline.parse_and_bind(TAB_IS_SPACES)
            for line in history.lines:
                self._readline.add_history(line)

    def read(self, prompt: str) -> str:
        """Read a line, which may hold line breaks if it was pasted.

        Raises:
            EOFError: Ctrl-D on an empty line.
            KeyboardInterrupt: Ctrl-C.
        """
        line = input(prompt)
        if self.history.add(line) and self._readline is not None:
            self._readline.add_history(line)
        return line


def _load_readline() -> ModuleType | None:
    try:
        import readline
    except ImportError:
        return None
    return readline
