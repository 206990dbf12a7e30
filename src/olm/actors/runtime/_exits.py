"""How an actor's life ended: the `Exit` union, and the errors that tell callers about it.

Who decides what to do about an exit is in `_policy` and `_supervisor`.
"""

from __future__ import annotations

from typing import Final, assert_never

import attrs

from olm.errors import ActorError, ActorStopped

__all__ = [
    "Crashed",
    "Died",
    "Exit",
    "Killed",
    "Normal",
    "RemoteCrash",
    "Shutdown",
    "TooManyRestarts",
    "describe_exit",
    "stopped_error",
    "unwrap_single",
]

_FATAL: Final = "Fatal Python error"


@attrs.frozen
class Normal:
    """The actor called `finish()`; its work was done."""


@attrs.frozen
class Shutdown:
    """Somebody asked it to stop: its supervisor, `stop_child`, or the end of the tree."""

    reason: str = ""


@attrs.frozen
class Crashed:
    """An exception that was not an `OlmError` came out of the actor or of a task in its nursery.

    `report` is the tail of the standard error of a process actor; empty for an actor in this process.
    """

    exc: BaseException
    report: str = ""


@attrs.frozen
class Killed:
    """A signal ended the process of a process actor. `signal` is its name, such as SIGSEGV."""

    signal: str
    report: str = ""
    exc: BaseException | None = attrs.field(default=None, eq=False, repr=False)


Exit = Normal | Shutdown | Crashed | Killed


class Died(Exception):
    """Crash an actor with an exit of its own choosing; process actors use it for signals and statuses."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.exit: Exit = Crashed(self)


class RemoteCrash(Exception):
    """An exception that crashed an actor in its own process. The text of its traceback is in `remote_traceback`."""

    def __init__(self, type_name: str, message: str, remote_traceback: str) -> None:
        super().__init__(f"{type_name}: {message}" if message else type_name)
        self.remote_traceback = remote_traceback


class TooManyRestarts(ActorError):
    """A supervisor met more crashes within its period than its policy allows; the last crash is the cause."""


def describe_exit(exit_: Exit) -> str:
    """Say in a few words how a life ended; fits behind the name of the actor."""
    match exit_:
        case Normal():
            return "finished"
        case Shutdown(reason):
            return f"was stopped: {reason}" if reason else "was stopped"
        case Crashed(exc, report):
            if isinstance(exc, RemoteCrash | Died):
                text = f"crashed: {exc}"
            else:
                text = f"crashed: {type(exc).__name__}: {exc}" if str(exc) else f"crashed: {exc!r}"
            # A traceback from the child ends with what `exc` says already.
            return text if isinstance(exc, RemoteCrash) else _with_last_line(text, report)
        case Killed(signal, report):
            return _with_last_line(f"was killed by {signal}", report)
        case _:
            assert_never(exit_)


def _with_last_line(text: str, report: str) -> str:
    lines = [line.strip() for line in report.splitlines() if line.strip()]
    if not lines:
        return text
    # Python's fault handler puts the point first and details after it.
    line = next((line for line in reversed(lines) if line.startswith(_FATAL)), lines[-1])
    return f"{text}; its last words: {line[:200]}"


def stopped_error(name: str, exit_: Exit | None) -> ActorStopped:
    """Make a fresh `ActorStopped` for one caller, with the crash as its cause.

    Each caller gets an object of its own: an exception raised in two tasks would mix their tracebacks.
    """
    if exit_ is None:
        return ActorStopped(f"actor {name} is not running", actor=name, exit="")
    error = ActorStopped(
        f"actor {name} {describe_exit(exit_)}", actor=name, exit=type(exit_).__name__.lower()
    )
    if isinstance(exit_, Crashed | Killed):
        error.__cause__ = exit_.exc
    return error


def unwrap_single(exc: BaseException) -> BaseException:
    """Take the only member out of nested one-member groups; anything else comes back as it is."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc
