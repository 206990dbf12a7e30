"""How the process of a process actor is set up: one frozen value."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import attrs

__all__ = ["ProcessOptions"]


@attrs.frozen
class ProcessOptions:
    """What the process gets. Two equal values can share a spare process; `late_env` and `title` do not count."""

    env: Mapping[str, str] = attrs.field(factory=dict)
    """Variables set before the program starts, over the inherited ones."""
    inherit_env: bool = True
    """Whether the rest of the environment is this process's."""
    cwd: str = "/"
    nice: int = 0
    """Added to this process's niceness."""
    rlimits: Mapping[int, tuple[int, int]] = attrs.field(factory=dict)
    """Soft and hard limits by `resource.RLIMIT_*`. Core dumps are off unless RLIMIT_CORE is given: a worker may map many GB."""
    late_env: Mapping[str, str] = attrs.field(factory=dict, eq=False)
    """Variables set just before the actor's module is imported, in a spare too: for libraries that read them when loaded."""
    title: str = attrs.field(default="olm worker", eq=False)
    """Shown in the process list."""
    heartbeat_s: float = 30.0
    """A child whose loop has been silent for so long, once started, is killed. Generous: a busy machine is no hang."""
    max_frame_bytes: int = 64 * 1024 * 1024
    """No message, reply or item is larger. Held on both sides."""
    report_bytes: int = 16 * 1024
    """How much of the end of standard error is kept as the crash report."""
    python: str = sys.executable
    """The interpreter."""
