"""Frames over a stream socket: what is queued in one tick goes out with one send. Either side of a process actor uses it.

Who may send how much is not decided here; the windows in `_host` and `_peer` bound what is queued.
"""

from __future__ import annotations

import socket
from typing import Final, Generic, TypeVar

import msgspec
import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, reschedule

from olm.errors import ActorError

__all__ = ["FrameTooLarge", "Link", "ProtocolError"]

F = TypeVar("F")

_HEAD: Final = 4
_CHUNK_BYTES: Final = 256 * 1024


class ProtocolError(Exception):
    """The other side sent what is no frame. A bug or an attack: the child is killed."""


class FrameTooLarge(ActorError):
    """A message or reply does not fit into a frame; it was not sent."""


class Link(Generic[F]):
    """One end. `F` is the union of frames that arrive here.

    The socket is owned by the link, and non-blocking. One task may run `read`, one `write_forever`.
    """

    def __init__(
        self, sock: socket.socket, decoder: msgspec.msgpack.Decoder[F], max_frame_bytes: int
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._decoder = decoder
        self._encoder = msgspec.msgpack.Encoder()
        self.max_frame_bytes = max_frame_bytes
        self._in = bytearray()
        self._out = bytearray()
        self._writer: Task | None = None
        self._waiting = trio.Lock()
        self.n_received_bytes = 0
        self.is_broken = False

    def send(self, frame: object) -> None:
        """Queue a frame and have it written in the next turn of the scheduler. Raises as `queue` does."""
        self.queue(frame)
        self._wake_writer()

    def queue(self, frame: object) -> None:
        """Queue a frame; `flush_nowait` must follow. Dropped in silence once the other side is gone: `read` reports that.

        Raises:
            FrameTooLarge: over the limit; nothing was queued.
            TypeError: msgpack has no form for something in it.
        """
        data = self._encoder.encode(frame)
        if len(data) > self.max_frame_bytes:
            raise FrameTooLarge(
                f"a message of {len(data)} bytes does not fit a frame of {self.max_frame_bytes} bytes"
            )
        if self.is_broken:
            return
        self._out += len(data).to_bytes(_HEAD, "big")
        self._out += data

    def _wake_writer(self) -> None:
        task = self._writer
        if task is not None:
            self._writer = None
            reschedule(task)

    def flush_nowait(self) -> None:
        """Write what the socket takes at once; the rest is left to `write_forever`."""
        out = self._out
        while out and not self.is_broken:
            try:
                n_sent = self._socket.send(out)
            except BlockingIOError:
                self._wake_writer()
                return
            except OSError:
                self.is_broken = True
                return
            del out[:n_sent]

    async def flush(self) -> None:
        """Write all that is queued, or find the link broken. No checkpoint if the socket takes it at once."""
        self.flush_nowait()
        while self._out and not self.is_broken:
            async with self._waiting:  # two tasks must not wait for one socket
                if self._out:
                    await trio.lowlevel.wait_writable(self._socket)
            self.flush_nowait()

    async def write_forever(self) -> None:
        """Write what gets queued, until cancelled."""
        while True:
            await self.flush()
            if not self._out or self.is_broken:
                self._writer = current_task()
                await trio.lowlevel.wait_task_rescheduled(self._abort_write)

    def _abort_write(self, _: RaiseCancelT) -> Abort:
        self._writer = None
        return Abort.SUCCEEDED

    async def read(self) -> list[F] | None:
        """Wait for frames and return all that are complete, possibly none; None at the end of the stream.

        Cancellation loses nothing.

        Raises:
            ProtocolError: a frame that is too large, malformed, or of no known type.
        """
        await trio.lowlevel.wait_readable(self._socket)
        try:
            data = self._socket.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            return None
        self.n_received_bytes += len(data)
        self._in += data
        return self._split()

    def _split(self) -> list[F]:
        buffer = self._in
        frames: list[F] = []
        start = 0
        while len(buffer) - start >= _HEAD:
            size = int.from_bytes(buffer[start : start + _HEAD], "big")
            if size > self.max_frame_bytes:
                raise ProtocolError(f"a frame of {size} bytes; the limit is {self.max_frame_bytes}")
            end = start + _HEAD + size
            if end > len(buffer):
                break
            try:
                # A copy: the payload is decoded later, and the buffer moves on.
                frames.append(self._decoder.decode(bytes(buffer[start + _HEAD : end])))
            except msgspec.DecodeError as exc:
                raise ProtocolError(f"a malformed frame: {exc}") from exc
            start = end
        del buffer[:start]
        return frames

    def close(self) -> None:
        """Close the socket. Tasks that wait on it must be gone."""
        self.is_broken = True
        self._socket.close()
