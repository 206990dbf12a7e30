"""The address of an actor, and its mailbox: what senders touch.

The receiving side, the loop that empties the mailbox, is `_serve`. An address outlives the incarnations of its actor.
Mailbox and address are one object, and the mailbox is a plain deque: a memory channel would cost three times as much.
"""

from __future__ import annotations

import enum
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from trio.lowlevel import (
    Abort,
    RaiseCancelT,
    Task,
    checkpoint,
    current_task,
    enable_ki_protection,
    reschedule,
    wait_task_rescheduled,
)

from olm.actors.runtime._calls import Call
from olm.actors.runtime._exits import Exit, stopped_error
from olm.actors.runtime._messages import Handler, Message, StreamMessage, resolve_handler
from olm.actors.runtime._signal import Signal
from olm.actors.runtime._streams import Stream
from olm.errors import ActorError, ActorStopped, MailboxFull

if TYPE_CHECKING:
    import trio

    from olm.actors.runtime._actor import Actor

__all__ = ["Address", "State"]

R = TypeVar("R")
T = TypeVar("T")

_log = logging.getLogger("olm.actors")


class State(enum.Enum):
    """Where an address's current incarnation is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    DOWN = "down"  # between two incarnations, or not started yet
    GONE = "gone"  # for good


class Address:
    """How to reach an actor. Valid as long as the actor's supervisor keeps it, over restarts.

    All of it is to be used from the trio thread.
    """

    __slots__ = (
        "__weakref__", "_deferred", "_ended", "_idle", "_overflow", "_queue", "_room", "_size", "_state",
        "_stream_table", "_streams", "_table", "_up", "ending", "last_exit", "n_lost", "n_refused", "name", "nursery", "on_idle", "on_taken",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self._queue: deque[object] = deque()
        # Entries that an `ask` or `stream` brought to a full mailbox; each has a task waiting for it.
        self._overflow: deque[Call | Stream[object]] | None = None
        # The size while the mailbox is open, 0 while it is closed: one comparison serves both on the hot path.
        self._room = 0
        self._size = 0
        self._table: dict[type, Handler] = {}
        self._stream_table: dict[type, Handler] = {}
        self._idle: Task | None = None
        self._deferred: set[Call] | None = None
        self._streams: set[Stream[object]] | None = None
        self._state = State.DOWN
        self._up: Signal[None] | None = None
        self._ended: Signal[Exit] | None = None
        self.ending: Exit | None = None
        self.last_exit: Exit | None = None
        self.nursery: trio.Nursery | None = None
        # Hooks of a process actor's peer: a message left the mailbox, the mailbox is empty.
        self.on_taken: Callable[[], None] | None = None
        self.on_idle: Callable[[], None] | None = None
        self.n_lost = 0
        self.n_refused = 0

    def __repr__(self) -> str:
        return f"<Address {self.name} {self._state.value}>"

    # -- for senders -------------------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Whether the current incarnation has started and is not stopping."""
        return self._state is State.RUNNING

    @property
    def state(self) -> State:
        """Where the current incarnation is in its life."""
        return self._state

    @property
    def n_waiting(self) -> int:
        """How many messages wait in the mailbox or for a place in it."""
        return len(self._queue) + len(self._overflow or ())

    @property
    def mailbox_size(self) -> int:
        """How many messages the mailbox holds; 0 before the first start."""
        return self._size

    @enable_ki_protection
    def tell(self, message: Message[object]) -> None:
        """Put a message into the mailbox and go on; never waits, and nobody reports what became of it.

        Raises:
            MailboxFull: there is no place; the message is not sent.
            ActorStopped: the actor is down.
            TypeError: the actor has no handler for such a message.
        """
        queue = self._queue
        if len(queue) >= self._room:
            if self._room:
                raise MailboxFull(
                    f"the mailbox of actor {self.name} is full ({self._size})", actor=self.name
                )
            raise self._stopped()
        if message.__class__ not in self._table:
            self._check(message, Message)
        queue.append(message)
        task = self._idle
        if task is not None:
            self._idle = None
            reschedule(task)

    @enable_ki_protection
    async def ask(self, message: Message[R], *, wait_for_restart: bool = False) -> R:
        """Send a message and wait for its reply, as long as the caller's cancel scope allows.

        While the mailbox is full it waits for a place, in order of arrival. Cancelled before its turn, the message is
        never handled; cancelled while it is handled, the handler learns by `Reply.abandoned`.

        Args:
            message: what to ask; its class says what the reply is.
            wait_for_restart: if the actor is down but will be restarted, wait for that instead of raising. A request
                that was sent before the crash still raises: nothing is ever delivered twice.

        Raises:
            OlmError: the handler's answer.
            ActorStopped: the actor is down, or went down before it answered; the cause is its crash.
            TypeError: the actor has no handler for such a message.
        """
        call = Call(message, self)
        queue = self._queue
        if len(queue) < self._room:
            if message.__class__ not in self._table:
                self._check(message, Message)
            queue.append(call)
            task = self._idle
            if task is not None:
                self._idle = None
                reschedule(task)
        else:
            if not self._room:
                await self._wait_open(wait=wait_for_restart)
            self._check(message, Message)
            self.post(call)
        call.task = current_task()
        await wait_task_rescheduled(call.abort)
        error = call.error
        if error is None:
            return call.value  # type: ignore[return-value] # the handler of Message[R] returns R
        try:
            raise error
        finally:
            # The traceback refers to this frame; do not let the frame refer back.
            del error, call

    def stream(self, message: StreamMessage[T]) -> Stream[T]:
        """Open a stream of items: `async with address.stream(msg) as items: async for item in items: ...`.

        Nothing is sent before the block is entered. Raises TypeError if the actor has no handler for it.
        """
        if self._room:
            self._check(message, StreamMessage)
        return Stream(self, message, message.window)

    async def stopped(self) -> Exit:
        """Wait until the current incarnation is gone and return how it ended; at once if it is down."""
        if self._state in (State.DOWN, State.GONE) and self.last_exit is not None:
            await checkpoint()
            return self.last_exit
        if self._ended is None:
            self._ended = Signal()
        return await self._ended.wait()

    # -- for the runtime ---------------------------------------------------------------------------------------------

    @property
    def is_down(self) -> bool:
        """Whether there is no incarnation at all."""
        return self._state in (State.DOWN, State.GONE)

    def post(self, entry: object) -> None:
        """Queue an envelope, beyond the bound if need be: a task waits for each. Raises ActorStopped when closed."""
        if not self._room:
            raise self._stopped()
        if isinstance(entry, Stream):
            self._check(entry.message, StreamMessage)
        if len(self._queue) < self._room:
            self._queue.append(entry)
            self.wake()
        else:
            assert isinstance(entry, Call | Stream), "only envelopes may wait for a place"
            if self._overflow is None:
                self._overflow = deque()
            self._overflow.append(entry)

    def refill(self) -> None:
        """Move the envelope that waited longest into the mailbox."""
        overflow = self._overflow
        if overflow:
            self._queue.append(overflow.popleft())
        else:
            self._overflow = None

    def forget(self, entry: Call | Stream[object]) -> None:
        """Take an envelope out whose sender left, so that it fills no place."""
        for entries in (self._overflow, self._queue):
            # By identity: messages may compare equal, and comparing may be dear.
            for index, other in enumerate(entries or ()):
                if other is entry:
                    assert entries is not None, "an empty mailbox has no entries"
                    del entries[index]
                    if entries is self._queue and self._overflow:
                        self.refill()
                    return

    def wake(self) -> None:
        """Wake the actor's loop if it sleeps."""
        task = self._idle
        if task is not None:
            self._idle = None
            reschedule(task)

    @enable_ki_protection
    async def wait_mail(self) -> None:
        """Sleep until `wake`. Only the actor's own loop calls this."""
        self._idle = current_task()
        await wait_task_rescheduled(self._abort_idle)

    def _abort_idle(self, _: RaiseCancelT) -> Abort:
        self._idle = None
        return Abort.SUCCEEDED

    @property
    def queue(self) -> deque[object]:
        """The mailbox itself, for the loop."""
        return self._queue

    @property
    def table(self) -> dict[type, Handler]:
        """The handlers of the current incarnation, for the loop."""
        return self._table

    @property
    def stream_table(self) -> dict[type, Handler]:
        """The same for streams."""
        return self._stream_table

    @property
    def has_overflow(self) -> bool:
        """Whether envelopes wait for a place."""
        return self._overflow is not None

    def defer(self, call: Call) -> None:
        """Remember a request whose handler took a `Reply`."""
        if self._deferred is None:
            self._deferred = set()
        self._deferred.add(call)
        call.pending = self._deferred

    def note_dropped(self, call: Call) -> None:
        """Fail a request whose `Reply` was dropped, unless the actor's end is about to fail it with better words."""
        if not call.settled and self.ending is None and self._state is State.RUNNING:
            _log.error(
                "actor %s dropped a %s without an answer", self.name, type(call.message).__name__
            )
            call.fail(
                ActorError(
                    f"actor {self.name} dropped the request without an answer", actor=self.name
                )
            )

    def adopt(self, stream: Stream[object]) -> None:
        """Remember a stream that is being produced."""
        if self._streams is None:
            self._streams = set()
        self._streams.add(stream)
        stream.registry = self._streams

    def open(self, cls: type[Actor]) -> None:
        """Begin an incarnation: accept mail."""
        self._table = cls.handler_table
        self._stream_table = cls.stream_table
        self._size = self._room = cls.mailbox_size
        self._state = State.STARTING
        self.ending = None
        self._queue.clear()

    def note_started(self) -> None:
        """`start` is done: whoever waits for a restart goes on."""
        self._state = State.RUNNING
        if self._up is not None:
            self._up.fire(None)
            self._up = None

    def close(self, exit_: Exit) -> None:
        """End the mail: nothing more is accepted, and who is queued learns why."""
        if self.ending is None:
            self.ending = exit_
        self._room = 0
        if not self.is_down:
            self._state = State.STOPPING
        overflow, self._overflow = self._overflow, None
        entries = (*self._queue, *(overflow or ()))
        self._queue.clear()
        n_lost = 0
        for entry in entries:
            if isinstance(entry, Call):
                entry.fail(stopped_error(self.name, exit_))
            elif isinstance(entry, Stream):
                entry.end(stopped_error(self.name, exit_))
            else:
                n_lost += 1
        if n_lost:
            self.n_lost += n_lost
            _log.warning("actor %s went down with %d told messages unhandled", self.name, n_lost)
        self.wake()

    def fail_accepted(self, exit_: Exit) -> None:
        """Fail what handlers had begun: deferred replies and open streams."""
        deferred, self._deferred = self._deferred, None
        for call in list(deferred or ()):
            call.fail(stopped_error(self.name, exit_))
        streams, self._streams = self._streams, None
        for stream in list(streams or ()):
            stream.end(stopped_error(self.name, exit_))

    def note_ended(self, exit_: Exit) -> None:
        """The incarnation is gone, its tasks included."""
        self.close(exit_)
        self.fail_accepted(exit_)
        self._state = State.DOWN
        self.last_exit = exit_
        self.nursery = None
        if self._ended is not None:
            self._ended.fire(exit_)
            self._ended = None

    def retire(self) -> None:
        """No incarnation will follow; whoever waits for a restart learns it."""
        self._state = State.GONE
        if self._up is not None:
            self._up.fire(None)
            self._up = None
        if self._ended is not None and self.last_exit is not None:
            self._ended.fire(self.last_exit)

    # -- helpers -----------------------------------------------------------------------------------------------------

    def _stopped(self) -> ActorStopped:
        return stopped_error(self.name, self.ending or self.last_exit)

    async def _wait_open(self, *, wait: bool) -> None:
        while wait and not self._room and self._state is not State.GONE:
            if self._up is None:
                self._up = Signal()
            await self._up.wait()
        if not self._room:
            # A caller that retries in a loop must not starve the others.
            await checkpoint()
            raise self._stopped()

    def _check(self, message: object, base: type) -> None:
        cls = message.__class__
        if not issubclass(cls, base):
            verb = "stream" if base is StreamMessage else "ask and tell"
            raise TypeError(f"{verb} take a {base.__name__}, not {cls.__qualname__}")
        table = self._stream_table if base is StreamMessage else self._table
        if cls not in table and resolve_handler(table, cls) is None:
            raise TypeError(f"actor {self.name} has no handler for {cls.__qualname__}")
