"""Bounds on chat templates: programs that came with the weights or a request, and may eat memory or never end.

How one is rendered is `chat`'s business; who is told, and the end of the process, are the worker's.
"""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import trio

from olm.chat.rendering import Rendered
from olm.chat.types import ChatPrompt, InfillPrompt
from olm.errors import ModelError, OlmError, TemplateError
from olm.log import get_logger
from olm.native.lib import OutOfMemory
from olm.native.prompting import Template

__all__ = [
    "TEMPLATE_MEMORY_BYTES",
    "TEMPLATE_S",
    "HereTemplate",
    "TemplateStuck",
    "ThreadTemplate",
    "bounded_here",
    "bounded_in_thread",
    "confined",
]

T = TypeVar("T")

_log = get_logger("worker")

TEMPLATE_MEMORY_BYTES: Final = 2 << 30
"""What the process may grow by while templates run. An honest one needs some copies of the conversation."""

TEMPLATE_S: Final = 10.0
"""The longest that one reading or rendering of a template may take; honest ones take milliseconds."""

_MESSAGE_S: Final = 0.001
"""More time for each message: some times what honest templates take."""

_PAGE_BYTES: Final = resource.getpagesize()
_STATM: Final = Path("/proc/self/statm")


class TemplateStuck(ModelError):
    """The template did not end in time. Its thread still runs, and cannot be stopped: the process has to end.

    No TemplateError: those who pass over a rendering that failed and try another must not pass over this one.
    """


class _MemoryLimit:
    """A soft RLIMIT_DATA while at least one template runs: the engine allocates freely at all other times."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_inside = 0
        self._before = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)

    def __enter__(self) -> None:
        with self._lock:
            self._n_inside += 1
            if self._n_inside == 1:
                self._before = soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
                # The sixth number is data and stack, in pages (proc(5)).
                wanted = int(_STATM.read_text().split()[5]) * _PAGE_BYTES + TEMPLATE_MEMORY_BYTES
                bounds = [wanted, *(n for n in (soft, hard) if n != resource.RLIM_INFINITY)]
                resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0:
                resource.setrlimit(resource.RLIMIT_DATA, self._before)


_memory_limit = _MemoryLimit()


@contextmanager
def _bounded_memory() -> Iterator[None]:
    try:
        with _memory_limit:
            yield
    except (MemoryError, OutOfMemory) as exc:
        raise TemplateError("the model's chat template needs too much memory") from exc


def bounded_here(function: Callable[[], T]) -> T:
    """Run template work in the main thread. One that does not end ends the process: SIGALRM has its default action.

    Raises:
        TemplateError: too much memory; and what the function raises.
    """
    # A little later than the others' bound, so that a thread's clear error comes first.
    signal.alarm(int(TEMPLATE_S) + 1)
    try:
        with _bounded_memory():
            return function()
    finally:
        signal.alarm(0)


def bounded_in_thread(function: Callable[[], T], timeout_s: float = TEMPLATE_S) -> T:
    """Run template work in a thread of its own and wait for it, for at most `timeout_s` seconds. Blocks.

    Raises:
        TemplateStuck: it does not end; the thread is left behind, and holds the memory limit.
        TemplateError: too much memory; and what the function raises.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with _bounded_memory():
                results.append(function())
        except BaseException as exc:  # it is raised again below, in the caller's thread
            errors.append(exc)

    thread = threading.Thread(target=run, name="template", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if errors:
        raise errors[0]
    if not results:
        raise TemplateStuck(
            f"the model's chat template does not end: it was given up after {timeout_s:.0f} s"
        )
    return results[0]


@contextmanager
def confined() -> Iterator[None]:
    """Make a bug that one request's text meets that request's error: the worker's other turns have no part in it.

    Raises:
        ModelError: for whatever is no OlmError.
    """
    try:
        yield
    except OlmError:
        raise
    except Exception as exc:
        _log.exception("a request could not be prepared")
        raise ModelError(f"the request could not be prepared: {type(exc).__name__}: {exc}") from exc


class HereTemplate:
    """A template that is rendered in the main thread."""

    def __init__(self, template: Template) -> None:
        self._template = template

    def render(self, prompt: ChatPrompt | InfillPrompt) -> Rendered:
        """See `bounded_here`."""
        return bounded_here(lambda: self._template.render(prompt))


class ThreadTemplate:
    """A template for callers in a thread of trio's: a cancel of their task takes effect at the next rendering."""

    def __init__(self, template: Template) -> None:
        self._template = template

    def render(self, prompt: ChatPrompt | InfillPrompt) -> Rendered:
        """See `bounded_in_thread`. Raises trio.Cancelled when nobody waits for it any more."""
        trio.from_thread.check_cancelled()
        n_messages = len(prompt.messages) if isinstance(prompt, ChatPrompt) else 1
        timeout_s = TEMPLATE_S + n_messages * _MESSAGE_S
        return bounded_in_thread(lambda: self._template.render(prompt), timeout_s)
