"""The child's side: run one actor and speak frames for it. The actor itself lives as `_life` says, as anywhere.

The parent's side is `_host`.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import inspect
import os
import signal
import socket
import sys
import traceback
import typing
from typing import Final, NoReturn

import msgspec
import trio

from olm.actors.runtime._actor import Actor
from olm.actors.runtime._address import Address
from olm.actors.runtime._calls import Call
from olm.actors.runtime._exits import Crashed, Exit, Killed, Normal, Shutdown
from olm.actors.runtime._life import live
from olm.actors.runtime._messages import wire_name
from olm.actors.runtime._streams import Stream
from olm.actors.runtime.process import _frames as frames
from olm.actors.runtime.process._link import FrameTooLarge, Link
from olm.errors import ActorError, ActorStopped, OlmError

__all__ = ["run_child"]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
# Until `Boot` brings the real one.
_MAX_FRAME_BYTES: Final = 1 << 31
_FLUSH_WITHIN_S: Final = 5.0


def run_child(fd: int, parent: int) -> NoReturn:
    """Be the process of an actor; end with it. `fd` is the socket, `parent` the process id to die with."""
    os.set_inheritable(fd, False)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    libc.prctl(_PR_SET_NAME, b"olm-worker")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    decoder = msgspec.msgpack.Decoder(frames.ToChild)
    link: Link[frames.ToChild] = Link(socket.socket(fileno=fd), decoder, _MAX_FRAME_BYTES)
    status = trio.run(_Peer(link).run)
    sys.stdout.flush()
    sys.stderr.flush()
    # No interpreter shutdown: threads and destructors of native code must not keep a worker alive, or crash it now.
    os._exit(status)


class _Peer:
    """The actor's outside in the child."""

    def __init__(self, link: Link[frames.ToChild]) -> None:
        self.link = link
        self._address = Address("not started")
        self._messages: dict[str, msgspec.msgpack.Decoder[object]] = {}
        self._streams: dict[str, msgspec.msgpack.Decoder[object]] = {}
        self._calls: dict[int, _RemoteCall | _RemoteStream] = {}
        self._n_taken = 0
        self._report_taken_at = 1
        self._is_up = False
        self._has_life = False
        self._status = 0
        self._nursery: trio.Nursery | None = None

    async def run(self) -> int:
        """Serve the link until the actor's end; return the exit status."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self.link.write_forever)
            while (batch := await self.link.read()) is not None:
                for frame in batch:
                    self._handle(frame)
            # The parent is gone. Nobody can be answered, but the actor may clean up, within its bound.
            self._stop("the parent process is gone", hard=True)
            if self._has_life:
                await trio.sleep_forever()
            nursery.cancel_scope.cancel("nothing to do")
        return self._status

    def _handle(self, frame: frames.ToChild) -> None:
        match frame:
            case frames.Ask():
                self._ask(frame)
            case frames.Tell():
                self._tell(frame)
            case frames.Credit():
                stream = self._calls.get(frame.id)
                if isinstance(stream, _RemoteStream):
                    stream.grant(frame.count)
            case frames.Open():
                self._open(frame)
            case frames.Cancel():
                self._cancel(frame.id)
            case frames.Ping():
                self.link.send(frames.Pong())
            case frames.Boot():
                self._has_life = True
                assert self._nursery is not None, "frames are read inside the nursery"
                self._nursery.start_soon(self._live, frame)
            case frames.Preload():
                importlib.import_module(frame.module)
                self.link.send(frames.Preloaded())
            case frames.Stop():
                self._stop(frame.reason, hard=frame.hard)
            case _:
                typing.assert_never(frame)

    # -- the actor's life --------------------------------------------------------------------------------------------

    async def _live(self, boot: frames.Boot[msgspec.Raw]) -> None:
        self.link.max_frame_bytes = boot.max_frame_bytes
        os.environ.update(boot.env)
        try:
            cls = _import_target(boot.target)
            factory = _make_factory(cls, boot)
        except Exception as exc:
            exit_: Exit = Crashed(exc)
        else:
            self._address = Address(boot.name)
            self._address.on_taken = self._note_taken
            # Replies leave as soon as there is nothing more to handle, a scheduler's turn before the writer task would.
            self._address.on_idle = self.link.flush_nowait
            exit_ = await live(
                self._address, factory, boot.stop_within_s, lambda: self._started(cls)
            )
        self._status = self._say_goodbye(exit_)
        with trio.move_on_after(_FLUSH_WITHIN_S, shield=True):
            await self.link.flush()
        assert self._nursery is not None, "this runs in it"
        self._nursery.cancel_scope.cancel("the actor's life is over")

    def _started(self, cls: type[Actor]) -> None:
        for table, types in (
            (cls.handler_table, self._messages),
            (cls.stream_table, self._streams),
        ):
            for message_type in table:
                types[wire_name(message_type)] = msgspec.msgpack.Decoder(message_type)
        self._is_up = True
        # Report in halves of the mailbox, so that the parent seldom has to wait and seldom has to listen.
        self._report_taken_at = max(1, cls.mailbox_size // 2)
        self.link.send(frames.Started(cls.mailbox_size, [*self._messages, *self._streams]))

    def _say_goodbye(self, exit_: Exit) -> int:
        match exit_:
            case Normal() | Shutdown():
                self.link.send(frames.Bye(isinstance(exit_, Normal)))
                return 0
            case Crashed(OlmError() as error, _) if not self._is_up:
                self.link.send(frames.StartFailed(frames.WireError.of(error)))
                return 0
            case Crashed(exc, _):
                text = "".join(traceback.format_exception(exc))
                sys.stderr.write(text)
                self.link.send(frames.Crash(type(exc).__qualname__, str(exc), text))
                return 1
            case Killed():
                raise AssertionError("an actor in its own process is not killed by an exit value")

    def _stop(self, reason: str, *, hard: bool) -> None:
        address = self._address
        if not address.is_down:
            address.close(Shutdown(reason))
            if hard and address.nursery is not None:
                address.nursery.cancel_scope.cancel(reason)

    # -- requests ----------------------------------------------------------------------------------------------------

    def _ask(self, frame: frames.Ask[msgspec.Raw]) -> None:
        try:
            call = _RemoteCall(
                self._decode(self._messages, frame.type_name, frame.message),
                self._address,
                self,
                frame.id,
            )
            self._address.post(call)
        except OlmError as exc:
            self.link.send(frames.Failure(frame.id, frames.WireError.of(exc)))
        else:
            self._calls[frame.id] = call

    def _tell(self, frame: frames.Tell[msgspec.Raw]) -> None:
        try:
            self._address.tell(self._decode(self._messages, frame.type_name, frame.message))  # type: ignore[arg-type] # a Message, by its decoder
        except OlmError as exc:
            sys.stderr.write(f"a told {frame.type_name} was lost: {exc}\n")

    def _open(self, frame: frames.Open[msgspec.Raw]) -> None:
        try:
            message = self._decode(self._streams, frame.type_name, frame.message)
            stream = _RemoteStream(self._address, message, frame.window, self, frame.id)
            stream.opened = True
            self._address.post(stream)
        except OlmError as exc:
            self.link.send(frames.End(frame.id, frames.WireError.of(exc)))
        else:
            self._calls[frame.id] = stream

    def _cancel(self, id_: int) -> None:
        call = self._calls.pop(id_, None)
        if isinstance(call, _RemoteStream):
            call.close()
        elif call is not None:
            call.abandon()

    def _decode(
        self,
        types: dict[str, msgspec.msgpack.Decoder[object]],
        type_: str,
        payload: msgspec.Raw,
    ) -> object:
        decoder = types.get(type_)
        if decoder is None:
            raise ActorError(f"actor {self._address.name} has no handler for {type_}")
        try:
            return decoder.decode(payload)
        except msgspec.DecodeError as exc:
            raise ActorError(f"a {type_} that does not decode: {exc}") from exc

    def _note_taken(self) -> None:
        self._n_taken += 1
        if self._n_taken >= self._report_taken_at:
            self.link.send(frames.Taken(self._n_taken))
            self._n_taken = 0

    def settle(self, call: _RemoteCall) -> None:
        """Send the outcome of a call. What is no message crashes the actor, as any bug."""
        self._calls.pop(call.id, None)
        error = call.error
        if self._is_last_word(error):
            return
        if error is None:
            try:
                self.link.send(frames.Value(call.id, call.value))
            except FrameTooLarge as exc:
                error = exc
        if isinstance(error, OlmError):
            self.link.send(frames.Failure(call.id, frames.WireError.of(error)))
        # Any other error is a crash, and the end of this process tells the parent's callers.

    def _is_last_word(self, error: BaseException | None) -> bool:
        """Tell whether this is the news of our own crash. The parent tells it better, to everybody at once, with the cause."""
        return (
            isinstance(error, ActorStopped)
            and error.details.get("actor") == self._address.name
            and error.details.get("exit") == "crashed"
        )

    def end_stream(self, stream: _RemoteStream, error: BaseException | None) -> None:
        """Send the end of a stream that the consumer did not leave."""
        if self._calls.pop(stream.id, None) is None or self._is_last_word(error):
            return
        if error is None or isinstance(error, OlmError):
            wire = None if error is None else frames.WireError.of(error)
            self.link.send(frames.End(stream.id, wire))


class _RemoteCall(Call):
    """An ask from the parent."""

    __slots__ = ("_peer", "id")

    def __init__(self, message: object, home: Address, peer: _Peer, id_: int) -> None:
        super().__init__(message, home)
        self._peer = peer
        self.id = id_

    def _deliver(self) -> None:
        self._peer.settle(self)


class _RemoteStream(Stream[object]):
    """A stream to the parent: items leave at once, and `credit` says how many more may."""

    __slots__ = ("_n_credits", "_peer", "id")

    def __init__(
        self, address: Address, message: object, window: int, peer: _Peer, id_: int
    ) -> None:
        super().__init__(address, message, window)
        self._n_credits = window
        self._peer = peer
        self.id = id_

    @property
    def is_full(self) -> bool:
        return self._n_credits <= 0

    def push(self, item: object) -> None:
        self._peer.link.send(frames.Item(self.id, item))
        self._n_credits -= 1

    def grant(self, count: int) -> None:
        """The consumer took items."""
        self._n_credits += count
        self._taken(count)

    def end(self, error: BaseException | None = None) -> None:
        if not self.ended:
            super().end(error)
            self._peer.end_stream(self, error)


def _import_target(target: str) -> type[Actor]:
    module, _, name = target.partition(":")
    cls: object = importlib.import_module(module)
    for part in name.split("."):
        cls = getattr(cls, part)
    if not (isinstance(cls, type) and issubclass(cls, Actor)):
        raise TypeError(f"{target} is not a subclass of Actor")
    return cls


def _make_factory(cls: type[Actor], boot: frames.Boot[msgspec.Raw]) -> typing.Callable[[], Actor]:
    if not boot.has_config:
        return cls
    names = list(inspect.signature(cls).parameters)
    hints = typing.get_type_hints(cls.__init__)
    if not names or names[0] not in hints:
        raise TypeError(f"{boot.target} must annotate the first parameter of __init__, its config")
    config: object = msgspec.msgpack.decode(boot.config, type=hints[names[0]])
    return lambda: cls(config)  # type: ignore[call-arg] # checked against the signature above
