'''Lines in, messages out: the state machine of `"""` blocks. Pure.

A block keeps its line breaks as typed, the first and the last included, as Ollama does (`cmd/interactive.go`).
'''

from __future__ import annotations

from enum import Enum
from typing import Final

import attrs

__all__ = ["FENCE", "Composed", "Composer", "Purpose"]

FENCE: Final = '"""'


class Purpose(Enum):
    """What a finished text is for."""

    MESSAGE = "message"
    SYSTEM = "system"


@attrs.frozen
class Composed:
    """A finished text."""

    text: str
    purpose: Purpose


class Composer:
    """Collects the lines of one message."""

    def __init__(self) -> None:
        self._lines: list[str] | None = None
        self._purpose = Purpose.MESSAGE

    @property
    def is_open(self) -> bool:
        """Whether a block has begun and not ended; the prompt is `... ` then."""
        return self._lines is not None

    def feed(self, line: str, purpose: Purpose = Purpose.MESSAGE) -> Composed | None:
        """Take the next line; None while a block is open.

        Args:
            line: without its line break; pasted text may hold some inside.
            purpose: what a text that begins here is for; ignored inside a block.
        """
        if self._lines is None:
            if not line.startswith(FENCE):
                return Composed(line, purpose)
            self._lines, self._purpose = [], purpose
            line = line.removeprefix(FENCE)
        self._lines.append(line.removesuffix(FENCE))
        if not line.endswith(FENCE):
            return None
        done = Composed("\n".join(self._lines), self._purpose)
        self._lines = None
        return done

    def reset(self) -> None:
        """Throw an open block away (Ctrl-C)."""
        self._lines = None
