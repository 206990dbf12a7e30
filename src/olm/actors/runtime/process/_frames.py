"""The frames between a process actor and its host: their types and nothing else.

A frame is a msgpack array `[tag, fields...]` behind a four-byte big-endian length. `P` is the payload: whatever
object when sent, `msgspec.Raw` when received, so that it is decoded with the type that belongs to it.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from olm.errors import Detail, OlmError, error_from_wire

__all__ = [
    "Ask",
    "Boot",
    "Bye",
    "Cancel",
    "Crash",
    "Credit",
    "End",
    "Failure",
    "FromChild",
    "Item",
    "Open",
    "Ping",
    "Pong",
    "Preload",
    "Preloaded",
    "StartFailed",
    "Started",
    "Stop",
    "Taken",
    "Tell",
    "ToChild",
    "Value",
    "WireError",
]

P = TypeVar("P")


class WireError(msgspec.Struct, array_like=True, frozen=True):
    """An `OlmError` between processes."""

    name: str
    message: str
    details: dict[str, Detail]

    @classmethod
    def of(cls, error: OlmError) -> WireError:
        """Take an error apart."""
        return cls(type(error).__name__, error.message, dict(error.details))

    def rebuild(self) -> OlmError:
        """Make the error again, of the same class where this process knows it."""
        return error_from_wire(self.name, self.message, self.details)


# -- to the child --------------------------------------------------------------------------------------------------------


class Preload(msgspec.Struct, array_like=True, tag=0):
    """Import a module and say `Preloaded`; the actor comes later."""

    module: str


class Boot(msgspec.Struct, Generic[P], array_like=True, tag=1):
    """Become this actor. `config` is the argument of its class; none if `has_config` is false. `env` is set before it is imported."""

    target: str
    name: str
    stop_within_s: float
    max_frame_bytes: int
    env: dict[str, str]
    has_config: bool
    config: P


class Ask(msgspec.Struct, Generic[P], array_like=True, tag=2):
    """Handle a message and send `Value` or `Failure`."""

    id: int
    type_name: str
    message: P


class Tell(msgspec.Struct, Generic[P], array_like=True, tag=3):
    """Handle a message."""

    type_name: str
    message: P


class Open(msgspec.Struct, Generic[P], array_like=True, tag=4):
    """Produce a stream: at most `window` items at first, then as many as `Credit` allows."""

    id: int
    type_name: str
    window: int
    message: P


class Credit(msgspec.Struct, array_like=True, tag=5):
    """The consumer took `count` items."""

    id: int
    count: int


class Cancel(msgspec.Struct, array_like=True, tag=6):
    """The caller of an ask, or the consumer of a stream, left."""

    id: int


class Stop(msgspec.Struct, array_like=True, tag=7):
    """End: in order, or with everything cancelled."""

    reason: str
    hard: bool


class Ping(msgspec.Struct, array_like=True, tag=8):
    """Say `Pong`."""


# -- from the child ------------------------------------------------------------------------------------------------------


class Preloaded(msgspec.Struct, array_like=True, tag=0):
    """The module is imported."""


class Started(msgspec.Struct, array_like=True, tag=1):
    """The actor is up. It takes `mailbox_size` messages ahead, of these types."""

    mailbox_size: int
    types: list[str]


class StartFailed(msgspec.Struct, array_like=True, tag=2):
    """`start` raised an expected error."""

    error: WireError


class Value(msgspec.Struct, Generic[P], array_like=True, tag=3):
    """The reply to an ask."""

    id: int
    value: P


class Failure(msgspec.Struct, array_like=True, tag=4):
    """The expected error that answers an ask."""

    id: int
    error: WireError


class Item(msgspec.Struct, Generic[P], array_like=True, tag=5):
    """An item of a stream."""

    id: int
    item: P


class End(msgspec.Struct, array_like=True, tag=6):
    """The end of a stream, by its handler's return or expected error."""

    id: int
    error: WireError | None


class Taken(msgspec.Struct, array_like=True, tag=7):
    """The actor took `count` messages out of its mailbox."""

    count: int


class Pong(msgspec.Struct, array_like=True, tag=8):
    """The loop is alive."""


class Crash(msgspec.Struct, array_like=True, tag=9):
    """The actor crashed; the process ends now."""

    type_name: str
    message: str
    traceback: str


class Bye(msgspec.Struct, array_like=True, tag=10):
    """The actor ended in order; the process ends now. `finished` if it was its own will."""

    finished: bool


_Raw = msgspec.Raw
ToChild = Preload | Boot[_Raw] | Ask[_Raw] | Tell[_Raw] | Open[_Raw] | Credit | Cancel | Stop | Ping
FromChild = (
    Preloaded
    | Started
    | StartFailed
    | Value[_Raw]
    | Failure
    | Item[_Raw]
    | End
    | Taken
    | Pong
    | Crash
    | Bye
)
