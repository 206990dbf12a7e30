"""Streams of items out of an actor: the envelope, the consumer's end and the producer's end.

The buffer between them holds at most `window` items. The consumer that leaves cancels the producer. An actor
that dies lets the consumer have what was already sent, then raises `ActorStopped` there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

import trio
from trio.lowlevel import ParkingLot, checkpoint

from olm.actors.runtime._calls import Cancellable
from olm.errors import ActorError

if TYPE_CHECKING:
    from olm.actors.runtime._address import Address

__all__ = ["Sink", "Stream", "StreamClosed", "StreamSink"]

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class StreamClosed(ActorError):
    """`send` found that the consumer is gone. A handler need not catch it."""


class StreamSink(Protocol[T_contra]):
    """The producer's end, given to an `@streams` handler."""

    @property
    def closed(self) -> bool:
        """Whether the consumer is gone."""

    async def send(self, item: T_contra) -> None:
        """Send one item; wait while the window is full. All or nothing under cancellation.

        Raises:
            StreamClosed: the consumer is gone and this task is not the handler's (that one is cancelled instead).
        """

    def send_nowait(self, item: T_contra) -> None:
        """Send one item without waiting. Raises `trio.WouldBlock` when the window is full, or `StreamClosed`."""


class Stream(Generic[T]):
    """The consumer's end: a context manager, then an async iterator of items. Also the envelope in the mailbox.

    Leaving the `async with` block is the cancel signal to the actor; it does not wait for the producer to end.
    """

    __slots__ = (
        "_address", "_arrived", "_buffer", "_room", "closed", "credit", "ended", "error", "message",
        "opened", "registry", "scope", "window",
    )  # fmt: skip

    def __init__(self, address: Address, message: object, window: int) -> None:
        self._address = address
        self._buffer: deque[T] = deque()
        self._arrived: ParkingLot | None = None
        self._room: ParkingLot | None = None
        self.message = message
        self.window = window
        self.opened = False
        self.closed = False
        self.ended = False
        self.error: BaseException | None = None
        # How to cancel the producer, and whom to tell about taken items where it is in another process.
        self.scope: Cancellable | None = None
        self.credit: Callable[[int], None] | None = None
        self.registry: set[Stream[object]] | None = None

    # -- consumer ----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Send the message. Does not wait for the actor; the first item does.

        Raises:
            ActorStopped: the actor is down.
            RuntimeError: the stream was opened before.
        """
        await checkpoint()
        if self.opened:
            raise RuntimeError("a stream is opened once; call address.stream() again")
        self.opened = True
        self._address.post(self)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave: cancel the producer and drop what waits. May be called twice."""
        if self.closed:
            return
        self.closed = True
        self._buffer.clear()
        if not self.ended:
            self._leave()
        self._wake(self._arrived)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Return the next item. All or nothing under cancellation.

        Raises:
            StopAsyncIteration: the handler returned.
            OlmError: the handler raised it, or `ActorStopped`: the actor is gone. Items sent before come first.
        """
        buffer = self._buffer
        if buffer or self.ended or self.closed:
            await checkpoint()
        while not buffer:
            if self.closed:
                raise trio.ClosedResourceError("this stream was closed")
            if self.ended:
                if self.error is not None:
                    raise self.error
                raise StopAsyncIteration
            if self._arrived is None:
                self._arrived = ParkingLot()
            await self._arrived.park()
        item = buffer.popleft()
        self._taken(1)
        return item

    def drain(self) -> list[T]:
        """Take all items that already wait, possibly none, without waiting."""
        items = list(self._buffer)
        if items:
            self._buffer.clear()
            self._taken(len(items))
        return items

    # -- producer side, used by the runtime --------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether the window is used up."""
        return len(self._buffer) >= self.window

    def push(self, item: T) -> None:
        """Hand over one item; the caller has seen to the window."""
        self._buffer.append(item)
        if self._arrived is not None:
            self._arrived.unpark()

    def end(self, error: BaseException | None = None) -> None:
        """Note the end of the stream, once; with an error the consumer meets it after the items that wait."""
        if self.ended:
            return
        self.ended = True
        self.error = error
        if self.registry is not None:
            self.registry.discard(self)
        self._wake(self._arrived)
        self._wake(self._room)

    def make_sink(self) -> StreamSink[T]:
        """Make the producer's end that the handler gets."""
        return Sink(self)

    async def wait_room(self) -> None:
        """Wait until an item was taken or the stream is over."""
        if self._room is None:
            self._room = ParkingLot()
        await self._room.park()

    def _taken(self, count: int) -> None:
        if self._room is not None:
            self._room.unpark(count=count)
        if self.credit is not None:
            self.credit(count)

    def _leave(self) -> None:
        """Tell the producer that nobody listens."""
        if self.opened:
            self._address.forget(self)  # type: ignore[arg-type] # a stream of anything will do
        self.end()
        if self.scope is not None:
            self.scope.cancel("the consumer left")

    @staticmethod
    def _wake(lot: ParkingLot | None) -> None:
        if lot is not None:
            lot.unpark_all()


class Sink(Generic[T]):
    """The producer's end of a stream within one process; implements `StreamSink`."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Stream[T]) -> None:
        self._stream = stream

    @property
    def closed(self) -> bool:
        return self._stream.ended

    async def send(self, item: T) -> None:
        stream = self._stream
        if not stream.is_full or stream.ended:
            await checkpoint()
        while True:
            if stream.ended:
                raise StreamClosed("the consumer of this stream is gone")
            if not stream.is_full:
                break
            await stream.wait_room()
        stream.push(item)

    def send_nowait(self, item: T) -> None:
        stream = self._stream
        if stream.ended:
            raise StreamClosed("the consumer of this stream is gone")
        if stream.is_full:
            raise trio.WouldBlock
        stream.push(item)
