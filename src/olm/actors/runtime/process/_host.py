"""The parent's side of a process actor: an `Actor` whose mailbox is forwarded to a child process.

To its supervisor and its callers it is an actor like any other: a dead child is a crash, and the same rules answer everybody.
"""

from __future__ import annotations

import functools
import itertools
import logging
import signal
from collections.abc import Callable
from typing import ClassVar, Final, assert_never

import msgspec
import trio

from olm.actors.runtime._actor import Actor
from olm.actors.runtime._address import Address
from olm.actors.runtime._calls import Call
from olm.actors.runtime._exits import Crashed, Died, Killed, Normal, RemoteCrash, describe_exit
from olm.actors.runtime._messages import (
    Handler,
    Message,
    Mode,
    StreamMessage,
    result_type,
    wire_name,
)
from olm.actors.runtime._signal import Signal
from olm.actors.runtime._streams import Stream
from olm.actors.runtime.process import _frames as frames
from olm.actors.runtime.process._child_process import ChildProcess, signal_name
from olm.actors.runtime.process._link import ProtocolError
from olm.actors.runtime.process._options import ProcessOptions
from olm.actors.runtime.process._spare import take_spare

__all__ = ["ProcessActor", "process_actor"]

_log = logging.getLogger("olm.actors.process")

# The parts of `stop_within_s` for each rung of the ladder; the little that is left is for book-keeping.
_ORDERLY_FRAC: Final = 0.6
_CANCEL_FRAC: Final = 0.2
_TERM_FRAC: Final = 0.1
_KILL_FRAC: Final = 0.08
# A heartbeat is checked so often per `heartbeat_s`. Counting checks rather than time forgives a suspended machine.
_BEATS: Final = 6
_NIL: Final = b"\xc0"
# How long a child without a socket may take to be gone, and a hung one to print its stacks.
_LAST_GASP_S: Final = 1.0


def process_actor(
    target: str,
    *,
    config: msgspec.Struct | None = None,
    options: ProcessOptions | None = None,
    spare: Address | None = None,
) -> Callable[[], Actor]:
    """Make the factory of an actor that runs in a process of its own, for a `ChildSpec`.

    Args:
        target: the actor class as `module:Class`. This process never imports it.
        config: the one argument of the class, sent as msgpack and decoded as the type its `__init__` declares.
        options: environment, limits, heartbeat and so on.
        spare: a `SpareProcess` with equal options; its process is used if one is ready.
    """
    data = None if config is None else msgspec.msgpack.encode(config)
    return functools.partial(ProcessActor, target, data, options or ProcessOptions(), spare)


class _Types:
    """What is known of a message type: its name over there, and how to decode what comes back."""

    __slots__ = ("decoder", "name")

    def __init__(self, message_type: type) -> None:
        self.name = wire_name(message_type)
        self.decoder = msgspec.msgpack.Decoder(result_type(message_type))


class ProcessActor(Actor):
    """The host of a child process. Made by the factory that `process_actor` returns."""

    # All messages are accepted here; the child says which ones it knows. None of these is ever called.
    handler_table: ClassVar[dict[type, Handler]] = {
        Message: Handler(lambda *_: None, Mode.DEFERRED)
    }
    stream_table: ClassVar[dict[type, Handler]] = {
        StreamMessage: Handler(lambda *_: None, Mode.STREAM)
    }

    def __init__(
        self, target: str, config: bytes | None, options: ProcessOptions, spare: Address | None
    ) -> None:
        self._target = target
        self._config = config
        self._options = options
        self._spare = spare
        self._ids = itertools.count(1)
        self._calls: dict[int, Call] = {}
        self._streams: dict[int, Stream[object]] = {}
        self._types: dict[type, _Types] = {}
        self._accepted: frozenset[str] = frozenset()
        self._window = 0
        self._started: Signal[frames.Started | frames.StartFailed] = Signal()
        self._crash: frames.Crash | None = None
        self._hung = False
        self._has_finished = False
        self._is_stopping = False
        self._eof = trio.Event()
        self._exited: Signal[int] = Signal()

    # -- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the process and wait until its actor is up. What the actor's `start` raises is raised here."""
        self._log = logging.getLogger(f"olm.actors.process.{self.name.replace('/', '.')}")
        self.nursery.start_soon(self._own_process, name=f"{self.name} process")
        answer = await self._started.wait()
        if isinstance(answer, frames.StartFailed):
            self._is_stopping = True
            raise answer.error.rebuild()
        self._accepted = frozenset(answer.types)
        self._window = answer.mailbox_size

    async def stop(self) -> None:
        """Go down the ladder: ask, cancel, SIGTERM, SIGKILL. After a crash the process is gone already."""
        self._is_stopping = True
        reason = describe_exit(self.address.ending or Normal())
        process = self._process
        ladder: tuple[tuple[Callable[[], None], float], ...] = (
            (lambda: process.link.send(frames.Stop(reason, hard=False)), _ORDERLY_FRAC),
            (lambda: process.link.send(frames.Stop(reason, hard=True)), _CANCEL_FRAC),
            (lambda: process.signal(signal.SIGTERM), _TERM_FRAC),
            (lambda: process.signal(signal.SIGKILL), _KILL_FRAC),
        )
        for act, frac in ladder:
            if not self._exited.is_set:
                act()
                with trio.move_on_after(self.stop_within_s * frac):
                    await self._exited.wait()

    async def _own_process(self) -> None:
        """Hold the process from its start until it is reaped; its end is this task's end, and a crash unless wanted."""
        process = await take_spare(self._spare, self._options) or ChildProcess(self._options)
        self._process = process
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read)
                nursery.start_soon(process.link.write_forever)
                nursery.start_soon(process.forward_output, self._log)
                nursery.start_soon(self._beat)
                process.link.send(
                    frames.Boot(
                        self._target,
                        self.name,
                        self.stop_within_s,
                        self._options.max_frame_bytes,
                        dict(self._options.late_env),
                        self._config is not None,
                        msgspec.Raw(self._config or _NIL),
                    )
                )
                status = await process.wait()
                # What it said before it died is still in the socket.
                with trio.move_on_after(_LAST_GASP_S):
                    await self._eof.wait()
                nursery.cancel_scope.cancel("the process is gone")
            process.read_output(self._log)
        finally:
            await process.kill_and_wait()
            self._exited.fire(process.status or 0)
        if not (self._is_stopping or self._has_finished):
            raise self._explain(status, process.report)

    def _explain(self, status: int, report: str) -> Died:
        """Say why the process is gone, as the crash of this actor."""
        if self._crash is not None:
            crash = self._crash
            died = Died(f"{crash.type_name}: {crash.message}")
            died.exit = Crashed(
                RemoteCrash(crash.type_name, crash.message, crash.traceback), report
            )
        elif self._hung:
            died = Died(f"its loop was silent for {self._options.heartbeat_s:g} s; it was killed")
            died.exit = Crashed(died, report)
        elif status < 0:
            died = Died(f"its process was killed by {signal_name(-status)}")
            died.exit = Killed(signal_name(-status), report, died)
        else:
            died = Died(f"its process exited with status {status}")
            died.exit = Crashed(died, report)
        return died

    async def _beat(self) -> None:
        """Ping the child; end it when it has been silent for too long. Any frame from it counts as life."""
        process = self._process
        # How long a start may take is for the one who waits for it to say: imports and loading block the loop.
        await self._started.wait()
        n_silent = 0
        while n_silent <= _BEATS:
            n_before = process.link.n_received_bytes
            process.link.send(frames.Ping())
            await trio.sleep(self._options.heartbeat_s / _BEATS)
            n_silent = n_silent + 1 if process.link.n_received_bytes == n_before else 0
        self._hung = True
        # Its fault handler prints the stacks of its threads on SIGABRT, which is the best report there is.
        process.signal(signal.SIGABRT)
        await trio.sleep(_LAST_GASP_S)
        process.signal(signal.SIGKILL)

    # -- what goes to the child --------------------------------------------------------------------------------------

    async def run_mailbox(self) -> None:
        """Forward messages, as far ahead of the child as its mailbox is deep."""
        address = self.address
        queue = address.queue
        while address.ending is None:
            while queue and self._window > 0:
                entry = queue.popleft()
                if address.has_overflow:
                    address.refill()
                self._forward(entry)
            self._process.link.flush_nowait()
            await address.wait_mail()

    def _forward(self, entry: object) -> None:
        if isinstance(entry, Call):
            self._forward_call(entry)
        elif isinstance(entry, Stream):
            self._forward_stream(entry)
        else:
            try:
                self._send(frames.Tell(self._types_of(entry).name, entry))
            except Exception as exc:
                self.address.n_refused += 1
                _log.warning("actor %s cannot be told: %s", self.name, exc)

    def _forward_call(self, call: Call) -> None:
        id_ = next(self._ids)
        try:
            self._send(frames.Ask(id_, self._types_of(call.message).name, call.message))
        except Exception as exc:
            # The caller's mistake: too large, not encodable, or unknown to the actor.
            call.fail(exc)
            return
        self.address.defer(call)
        call.scope = _RemoteWork(self, id_)
        self._calls[id_] = call

    def _forward_stream(self, stream: Stream[object]) -> None:
        id_ = next(self._ids)
        message = stream.message
        try:
            self._send(frames.Open(id_, self._types_of(message).name, stream.window, message))
        except Exception as exc:
            stream.end(exc)
            return
        self.address.adopt(stream)
        stream.scope = _RemoteWork(self, id_)
        stream.credit = _Credits(self, id_, max(1, stream.window // 2)).taken
        self._streams[id_] = stream

    def _send(self, frame: object) -> None:
        self._process.link.queue(frame)
        self._window -= 1

    def _types_of(self, message: object) -> _Types:
        cls = type(message)
        types = self._types.get(cls)
        if types is None:
            types = _Types(cls)
            if types.name not in self._accepted:
                raise TypeError(f"actor {self.name} has no handler for {cls.__qualname__}")
            self._types[cls] = types
        return types

    def note_left(self, id_: int) -> None:
        """Tell the child that a caller or consumer left."""
        if self._calls.pop(id_, None) is not None or self._streams.pop(id_, None) is not None:
            self._process.link.send(frames.Cancel(id_))

    def note_credit(self, id_: int, count: int) -> None:
        """Tell the child that a consumer took items."""
        if id_ in self._streams:
            self._process.link.send(frames.Credit(id_, count))

    # -- what comes from the child -----------------------------------------------------------------------------------

    async def _read(self) -> None:
        link = self._process.link
        while (batch := await link.read()) is not None:
            for frame in batch:
                self._handle(frame)
        self._eof.set()
        # Without its socket it is of no use, should it still run.
        await trio.sleep(_LAST_GASP_S)
        self._process.signal(signal.SIGKILL)

    def _handle(self, frame: frames.FromChild) -> None:
        match frame:
            case frames.Value():
                call = self._calls.pop(frame.id, None)
                if call is not None:
                    call.answer(self._decode(call.message, frame.value))
            case frames.Item():
                stream = self._streams.get(frame.id)
                if stream is not None:
                    if stream.is_full:
                        raise ProtocolError("an item beyond the window of its stream")
                    stream.push(self._decode(stream.message, frame.item))
            case frames.Failure():
                call = self._calls.pop(frame.id, None)
                if call is not None:
                    call.fail(frame.error.rebuild())
            case frames.End():
                stream = self._streams.pop(frame.id, None)
                if stream is not None:
                    stream.end(None if frame.error is None else frame.error.rebuild())
            case _:
                self._handle_news(frame)

    def _handle_news(
        self,
        frame: frames.Started
        | frames.StartFailed
        | frames.Preloaded
        | frames.Taken
        | frames.Pong
        | frames.Crash
        | frames.Bye,
    ) -> None:
        match frame:
            case frames.Taken():
                self._window += frame.count
                self.address.wake()
            case frames.Started() | frames.StartFailed():
                self._started.fire(frame)
            case frames.Crash():
                self._crash = frame
            case frames.Bye():
                if frame.finished and not self._is_stopping:
                    self._has_finished = True
                    self.finish()
            case frames.Pong() | frames.Preloaded():
                pass
            case _:
                assert_never(frame)

    def _decode(self, message: object, payload: msgspec.Raw) -> object:
        types = self._types[type(message)]
        try:
            return types.decoder.decode(payload)
        except msgspec.DecodeError as exc:
            raise ProtocolError(f"the answer to {types.name} does not decode: {exc}") from exc


class _RemoteWork:
    """Work in the child that can be cancelled from here."""

    __slots__ = ("_host", "_id")

    def __init__(self, host: ProcessActor, id_: int) -> None:
        self._host = host
        self._id = id_

    def cancel(self, reason: str | None = None) -> None:
        self._host.note_left(self._id)


class _Credits:
    """Count what a consumer took, and report it in portions of half the window."""

    __slots__ = ("_host", "_id", "_n_taken", "_portion")

    def __init__(self, host: ProcessActor, id_: int, portion: int) -> None:
        self._host = host
        self._id = id_
        self._portion = portion
        self._n_taken = 0

    def taken(self, count: int) -> None:
        self._n_taken += count
        if self._n_taken >= self._portion:
            self._host.note_credit(self._id, self._n_taken)
            self._n_taken = 0
