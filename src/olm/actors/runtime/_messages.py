"""Messages, the decorators that bind them to methods, and the table of handlers of an actor class.

Nothing here runs a handler; that is `_serve`.
"""

from __future__ import annotations

import enum
import inspect
import sys
import typing
from collections.abc import Callable
from typing import ClassVar, Generic, NamedTuple, TypeVar

import msgspec

__all__ = [
    "Handler",
    "Message",
    "Mode",
    "StreamMessage",
    "build_tables",
    "handles",
    "resolve_handler",
    "result_type",
    "streams",
    "wire_name",
]

R_co = TypeVar("R_co", covariant=True)
T_co = TypeVar("T_co", covariant=True)
F = TypeVar("F", bound=Callable[..., object])

_MARK = "__olm_handles__"


class Message(msgspec.Struct, Generic[R_co], frozen=True):
    """Base of what `ask` and `tell` carry. `R` is the type of the reply; None for a message that is only told.

    The message class names the reply, so `await address.ask(Get("x"))` has the right type, and a process actor
    knows what to decode.
    """


class StreamMessage(msgspec.Struct, Generic[T_co], frozen=True):
    """Base of what `stream` carries. `T` is the type of an item.

    `window` is how many items may wait between producer and consumer; the producer then waits.
    """

    window: ClassVar[int] = 64


class Mode(enum.IntEnum):
    """How a handler is run."""

    SYNC = 0
    ASYNC = 1
    DEFERRED = 2
    ASYNC_DEFERRED = 3
    STREAM = 4


class Handler(NamedTuple):
    """A method of an actor class and how to run it."""

    function: Callable[..., object]
    mode: Mode


def handles(message_type: type[Message[object]]) -> Callable[[F], F]:
    """Bind a method to a message type.

    The method is `def` or `async def`, takes the message, and its result is the reply. With a further parameter
    named `reply` the answer is deferred: the method hands the `Reply` to a task in the actor's nursery and returns.
    A handler of a base class of messages also takes the derived ones, `handles(Message)` takes all.
    """
    return _marker(message_type, Message, "handles")


def streams(message_type: type[StreamMessage[object]]) -> Callable[[F], F]:
    """Bind an `async def` method to a stream message. It takes the message and a `StreamSink`, and runs as its own task."""
    return _marker(message_type, StreamMessage, "streams")


def _marker(message_type: type, base: type, word: str) -> Callable[[F], F]:
    if not (isinstance(message_type, type) and issubclass(message_type, base)):
        raise TypeError(f"@{word} wants a subclass of {base.__name__}, not {message_type!r}")

    def mark(function: F) -> F:
        types: tuple[type, ...] = getattr(function, _MARK, ())
        setattr(function, _MARK, (*types, message_type))
        return function

    return mark


def build_tables(cls: type) -> tuple[dict[type, Handler], dict[type, Handler]]:
    """Collect the handlers of an actor class, inherited ones included: those of messages and those of streams.

    A method that overrides a decorated one takes its place without being decorated again.
    """
    names: dict[type, str] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            for message_type in getattr(value, _MARK, ()):
                names[message_type] = name
    tables: tuple[dict[type, Handler], dict[type, Handler]] = ({}, {})
    for message_type, name in names.items():
        handler = _make_handler(cls, name, message_type)
        tables[handler.mode is Mode.STREAM][message_type] = handler
    return tables


def _make_handler(cls: type, name: str, message_type: type) -> Handler:
    function: Callable[..., object] = getattr(cls, name)
    is_async = inspect.iscoroutinefunction(function)
    parameters = list(inspect.signature(function).parameters)
    where = f"{cls.__qualname__}.{name}"
    if issubclass(message_type, StreamMessage):
        if not is_async or len(parameters) != 3:
            raise TypeError(f"{where} must be `async def {name}(self, msg, out)` to stream")
        return Handler(function, Mode.STREAM)
    if len(parameters) == 3 and parameters[2] == "reply":
        return Handler(function, Mode.ASYNC_DEFERRED if is_async else Mode.DEFERRED)
    if len(parameters) != 2:
        raise TypeError(f"{where} must take (self, msg) or (self, msg, reply)")
    return Handler(function, Mode.ASYNC if is_async else Mode.SYNC)


def resolve_handler(table: dict[type, Handler], message_type: type) -> Handler | None:
    """Find the handler of a message type or of its nearest base, and remember it in the table; None if there is none."""
    for base in message_type.__mro__:
        found = table.get(base)
        if found is not None:
            table[message_type] = found
            return found
    return None


def result_type(message_type: type) -> object:
    """Return what `R` or `T` is for a message class: `int` for `class Get(Message[int])`.

    Raises:
        TypeError: the class leaves its type argument open, so nobody could decode a reply.
    """
    for cls in message_type.__mro__:
        for base in vars(cls).get("__orig_bases__", ()):
            if typing.get_origin(base) in (Message, StreamMessage):
                (argument,) = typing.get_args(base)
                if not isinstance(argument, TypeVar):
                    return _resolve_name(argument, cls)
    raise TypeError(
        f"{message_type.__qualname__} does not say what it answers: derive from Message[...]"
    )


def _resolve_name(argument: object, cls: type) -> object:
    holder = type("_Holder", (), {"__annotations__": {"value": argument}})
    namespace = vars(sys.modules[cls.__module__]) | {cls.__name__: cls}
    return typing.get_type_hints(holder, globalns=namespace, include_extras=True)["value"]


def wire_name(message_type: type) -> str:
    """Name a message type between processes."""
    return f"{message_type.__module__}:{message_type.__qualname__}"
