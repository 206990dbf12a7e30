"""What a worker tells about its process. Apart from `wire` because no runner of models needs it to serve turns."""

from __future__ import annotations

from olm.actors.runtime import Message

__all__ = ["ProcessIdRequest"]


class ProcessIdRequest(Message[int], frozen=True):
    """Ask for the process id, by which the kernel tells how much memory the worker really has; 0 for "no process of its own"."""
