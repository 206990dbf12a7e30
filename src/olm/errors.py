"""The error tree of olm: one class per thing a caller can act on, and the HTTP status of each.

    OlmError
    ├─ InvalidRequest          400  the caller asked for something that cannot be
    │  ├─ InvalidName          400
    │  ├─ InvalidOption        500  (Ollama answers a mistyped option with 500)
    │  ├─ ModelfileError       400
    │  ├─ ContextTooLong       400
    │  ├─ NotSupported         400  the model cannot do it
    │  └─ NotYetSupported      501  olm cannot do it yet
    ├─ NotFound                404
    │  └─ ModelNotFound        404
    ├─ Busy                    503  try again; carries retry_after_s
    │  └─ ShuttingDown         503
    ├─ StoreError              500  the disk or the store said no
    │  ├─ DiskFull             507
    │  ├─ DigestMismatch       400
    │  ├─ CorruptStore         500
    │  └─ StoreLocked          500  another daemon owns the store
    ├─ GgufError               400  a weights file is damaged, hostile or unsupported
    ├─ ModelError              500
    │  ├─ LoadFailed           500
    │  ├─ TemplateError        500
    │  └─ RunnerCrashed        500  the worker died under a request
    ├─ NativeError             500  an error code of the engine's C ABI (see olm.native.lib)
    └─ ActorError              500
       ├─ ActorStopped         500  the actor is gone; nobody will answer
       └─ MailboxFull          503

Errors cross process boundaries by name, message and `details`, so a subclass adds no constructor arguments of
its own. Anything that is not an OlmError is a bug or a broken world and crashes the actor that met it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

__all__ = [
    "ActorError",
    "ActorStopped",
    "Busy",
    "CheckpointError",
    "ContextTooLong",
    "CorruptStore",
    "DigestMismatch",
    "DiskFull",
    "GgufError",
    "InvalidName",
    "InvalidOption",
    "InvalidRequest",
    "LoadFailed",
    "MailboxFull",
    "ModelError",
    "ModelNotFound",
    "ModelfileError",
    "NativeError",
    "NotFound",
    "NotSupported",
    "NotYetSupported",
    "OlmError",
    "RunnerCrashed",
    "ShuttingDown",
    "StoreError",
    "StoreLocked",
    "TemplateError",
    "error_from_wire",
    "first_error",
]

Detail = str | int | float | bool | None


class OlmError(Exception):
    """Base of every expected failure.

    Args:
        message: one line for the user: what was wanted, what was found, what to do.
        details: small facts for machines (`retry_after_s`, `status`); they travel with the error between processes.
            A `status` detail overrides the class's HTTP status where Ollama's differs by route.
    """

    status: ClassVar[int] = 500

    def __init__(self, message: str, **details: Detail) -> None:
        super().__init__(message)
        self.message = message
        self.details: Mapping[str, Detail] = details

    def __str__(self) -> str:
        return self.message

    @property
    def http_status(self) -> int:
        """The HTTP status this error answers with: the `status` detail if there is one, else the class's."""
        override = self.details.get("status")
        return override if isinstance(override, int) else self.status


class InvalidRequest(OlmError):
    """The request is wrong in itself; repeating it will not help."""

    status = 400


class InvalidName(InvalidRequest):
    """A model name or digest does not follow the rules."""


class InvalidOption(InvalidRequest):
    """A model option has the wrong type. Ollama answers 500 here, so we do."""

    status = 500


class ModelfileError(InvalidRequest):
    """A Modelfile does not parse; the message carries the line."""


class ContextTooLong(InvalidRequest):
    """The prompt does not fit the context and may not be cut."""


class NotSupported(InvalidRequest):
    """The model lacks a capability that the request needs."""


class NotYetSupported(OlmError):
    """olm does not have this feature yet."""

    status = 501


class NotFound(OlmError):
    """Something named by the caller does not exist."""

    status = 404


class ModelNotFound(NotFound):
    """No such model in the store."""


class Busy(OlmError):
    """Every place in the queue is taken. `retry_after_s` in the details says when to try again."""

    status = 503


class ShuttingDown(Busy):
    """The daemon is draining and takes no new work."""


class StoreError(OlmError):
    """The store could not do it: permissions, I/O errors, damage."""


class DiskFull(StoreError):
    """No room left on the store's file system."""

    status = 507


class DigestMismatch(StoreError):
    """The bytes do not hash to the digest they were announced under."""

    status = 400


class CorruptStore(StoreError):
    """A manifest or blob in the store is damaged."""


class StoreLocked(StoreError):
    """Another daemon uses this store."""


class GgufError(InvalidRequest):
    """A GGUF file is truncated, hostile or of an unsupported kind."""


class CheckpointError(InvalidRequest):
    """A checkpoint is truncated, hostile or of a kind that cannot be converted; names the file and the tensor."""


class ModelError(OlmError):
    """A model could not be loaded or run."""


class LoadFailed(ModelError):
    """The engine refused the weights; the message ends with its own words."""


class TemplateError(ModelError):
    """The model's chat template failed."""


class RunnerCrashed(ModelError):
    """The worker process died while it was serving."""


class NativeError(OlmError):
    """An error code of the engine; `code` in the details is its name."""


class ActorError(OlmError):
    """Base of what the actor runtime itself reports."""


class ActorStopped(ActorError):
    """The actor is gone, was never started, or crashed under the request; nobody will answer it."""


class MailboxFull(ActorError):
    """`tell` found the mailbox full. Use `ask`, which waits, or shed the load."""

    status = 503


def _subclasses(cls: type[OlmError]) -> Iterator[type[OlmError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _subclasses(child)


def error_from_wire(name: str, message: str, details: Mapping[str, Detail]) -> OlmError:
    """Rebuild an error that crossed a process boundary; an unknown name becomes a plain `OlmError`."""
    for cls in _subclasses(OlmError):
        if cls.__name__ == name:
            return cls(message, **details)
    return OlmError(message, **details)


def first_error(group: BaseExceptionGroup[BaseException]) -> OlmError | None:
    """Find the first `OlmError` anywhere in an exception group; None when there is none.

    Use it once, at the edge of an actor, route or command, and raise a *new* error `from` the group.
    """
    for exc in group.exceptions:
        if isinstance(exc, OlmError):
            return exc
        if isinstance(exc, BaseExceptionGroup):
            found = first_error(exc)
            if found is not None:
                return found
    return None
