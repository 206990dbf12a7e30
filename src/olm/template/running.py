"""What one execution of a template carries with it: its output, its budget, and how its errors read.

The code that a template compiles to is in `expressions` and `statements`; nothing here knows the syntax but for a
node's place and text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

import attrs

from olm.errors import TemplateError
from olm.template.nodes import Node
from olm.template.quoting import quote
from olm.template.values import Function, string_size

__all__ = ["CHARS_PER_STEP", "UNSET", "Expression", "Frame", "Limits", "Run", "Site", "Statement"]

UNSET: Final = object()
"""What a variable holds before its declaration ran."""

_QUANTUM: Final = 4096
"""Steps between two looks at the clock and the output: some milliseconds."""
CHARS_PER_STEP: Final = 64
"""A text costs a step for so many characters, so that long ones are not free."""


@attrs.frozen(kw_only=True)
class Limits:
    """What one execution may use.

    The defaults are far beyond any prompt: 200 messages of 360 characters take 12,000 steps and 84 kB in the largest
    built-in template.

    Attributes:
        max_output_bytes: of the whole text, and of each text on the way to it.
        max_steps: nodes run, and 64 characters of text that is made or looked through each count as one.
        max_depth: templates that run inside one another.
        max_seconds: wall-clock time, for what steps do not see; looked at every 4096 steps.
    """

    max_output_bytes: int = 32 * 1024 * 1024
    max_steps: int = 5_000_000
    max_depth: int = 100
    max_seconds: float = 5.0


@attrs.frozen
class Site:
    """A node as errors name it. `file` is the name under which the text was parsed, `name` that of the tree."""

    file: str
    name: str
    node: Node

    def error(self, message: str) -> TemplateError:
        """Make the error that Go gives here."""
        line, column = self.node.pos
        return TemplateError(
            f"template: {self.file}:{line}:{column}: executing {quote(self.name)} at <{self.node}>: {message}"
        )


class Run:
    """One execution. `out` is its output so far, in pieces; `write` appends to it."""

    __slots__ = (
        "_checked",
        "_deadline",
        "_limits",
        "_quantum",
        "_size_bytes",
        "_steps",
        "depth",
        "functions",
        "out",
        "write",
    )

    def __init__(self, limits: Limits, functions: Mapping[str, Function]) -> None:
        self.out: Final[list[str]] = []
        self.write: Final = self.out.append
        self.functions: Final = functions
        self.depth = 0
        self._limits: Final = limits
        self._deadline: Final = time.monotonic() + limits.max_seconds
        self._steps = limits.max_steps
        self._quantum = 0
        self._refill()
        self._size_bytes = 0
        self._checked = 0

    def _refill(self) -> None:
        grant = min(_QUANTUM, self._steps)
        self._steps -= grant
        self._quantum += grant

    def charge(self, n_steps: int, site: Site) -> None:
        """Pay for work to come.

        Raises:
            TemplateError: a limit is reached; named as the fault of `site`.
        """
        self._quantum -= n_steps
        if self._quantum < 0:
            self._settle(site)

    def charge_text(self, text: str, site: Site) -> None:
        """Pay for a text that was just made. Raises as `charge`."""
        if len(text) > self._limits.max_output_bytes:
            raise site.error(f"text is longer than {self._limits.max_output_bytes} bytes")
        self.charge(len(text) // CHARS_PER_STEP, site)

    def _settle(self, site: Site) -> None:
        while self._quantum < 0:
            if self._steps <= 0:
                raise site.error(f"template takes more than {self._limits.max_steps} steps")
            self._refill()
        if time.monotonic() > self._deadline:
            raise site.error(f"template takes longer than {self._limits.max_seconds:g} s")
        self.check_output(site)

    def check_output(self, site: Site) -> None:
        """Count what was written since the last check. Raises as `charge`."""
        for at in range(self._checked, len(self.out)):
            self._size_bytes += string_size(self.out[at])
        self._checked = len(self.out)
        if self._size_bytes > self._limits.max_output_bytes:
            raise site.error(f"output is longer than {self._limits.max_output_bytes} bytes")

    def enter(self, site: Site) -> None:
        """Begin a template inside the one that runs; `leave` ends it. Raises as `charge`."""
        if self.depth >= self._limits.max_depth:
            raise site.error(f"exceeded maximum template depth ({self._limits.max_depth})")
        self.depth += 1

    def leave(self) -> None:
        """End a template that `enter` began."""
        self.depth -= 1


class Frame:
    """One tree that runs: its variables by slot (`$` is the first), and shortcuts into its run."""

    __slots__ = ("run", "slots", "write")

    def __init__(self, run: Run, n_slots: int, data: object) -> None:
        self.run: Final = run
        self.write: Final = run.write
        self.slots: Final = [UNSET] * n_slots
        self.slots[0] = data


Expression = Callable[[Frame, object], object]
"""Compiled code that gives a value; the second argument is the cursor."""
Statement = Callable[[Frame, object], None]
"""Compiled code that writes."""
