"""Answers that come in pieces: the status decided by the first event, errors in-band after it, in any API's framing.

A stream runs as one function in the request's own task: it opens its work, writes, and closes it again, so that every
scope is left in the order it was entered, whatever ends the stream. (Quart's own way opens the work in the handler and
iterates it after the handler has returned; a client that leaves in between would leave the work's nursery open.)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol

import attrs
from hypercorn.typing import ASGISendCallable, HTTPResponseBodyEvent, HTTPResponseStartEvent
from quart_trio.wrappers import TrioResponse

from olm.actors.client import Turn
from olm.actors.jobs_client import Progress
from olm.api.encoding import to_json
from olm.api.errors import (
    SHUTTING_DOWN,
    dialect_of,
    error_body,
    error_headers,
    error_line,
    expected_error,
    unfinished,
)
from olm.api.gate import Call
from olm.api.schemas import ProgressResponse
from olm.chat.types import Done, TurnEvent
from olm.errors import OlmError, ShuttingDown

__all__ = [
    "NDJSON",
    "Framing",
    "LineForm",
    "StreamResponse",
    "Work",
    "progress_json",
    "progress_lines",
    "sse",
    "turn_lines",
    "whole_turn",
]

Work = Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]
"""Opens the work behind a stream: an iterator of whole lines, several at once where several were waiting."""


@attrs.frozen
class Framing:
    """How an API writes a stream: its type, an error in the middle of it (given the request's id), and its last words."""

    content_type: bytes
    error: Callable[[OlmError, str], bytes]
    end: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


NDJSON: Final = Framing(b"application/x-ndjson", lambda error, _: error_line(error))


def sse(error: Callable[[OlmError, str], bytes], end: bytes = b"") -> Framing:
    """How APIs that stream server-sent events write them."""
    return Framing(b"text/event-stream", error, end, ((b"cache-control", b"no-cache"),))


class LineForm(Protocol):
    """Writes the events of one turn as lines of a stream, in a dialect's form; made anew for each turn."""

    def line(self, event: TurnEvent, *, load_ns: int, total_ns: Callable[[], int]) -> bytes:
        """The line of an event, or several, empty for one that says nothing. Raises OlmError for a cancelled turn."""


class StreamResponse(TrioResponse):
    """A Quart response that writes itself; `olm.api.app` calls `run` instead of iterating a body."""

    def __init__(self, call: Call, work: Work, framing: Framing = NDJSON) -> None:
        super().__init__()
        self._call = call
        self._work = work
        self._framing = framing
        self._started = False

    async def run(self, send: ASGISendCallable) -> None:
        """Write the whole answer. Cancellation (the client left) cancels the work and writes nothing more."""
        with self._call.working() as scope:
            try:
                await self._stream(send)
            except Exception as exc:
                # The edge of the request: whatever the work raised becomes the one error of this stream.
                await self._fail(send, await expected_error(exc, request_id=self._call.id))
        if scope.cancelled_caught:
            await self._fail(send, ShuttingDown(SHUTTING_DOWN))

    async def _stream(self, send: ASGISendCallable) -> None:
        write: Callable[[bytes], Awaitable[None]] | None = None
        async with self._work() as batches:
            async for batch in batches:
                if not self._started:
                    await self._start(send, 200, self._headers())
                    write = self._call.chunk_writer()
                if write is not None:
                    await write(batch)
                else:
                    await send(_body(batch, more=True))
        if not self._started:
            await self._start(send, 200, self._headers())
        if self._framing.end:
            await send(_body(self._framing.end, more=True))
        await send(_body(b"", more=False))

    def _headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"content-type", self._framing.content_type), *self._framing.headers]

    async def _start(
        self, send: ASGISendCallable, status: int, headers: list[tuple[bytes, bytes]]
    ) -> None:
        self._started = True
        start: HTTPResponseStartEvent = {
            "type": "http.response.start",
            "status": status,
            "headers": headers,
        }
        await send(start)

    async def _fail(self, send: ASGISendCallable, error: OlmError) -> None:
        if self._started:
            await send(_body(self._framing.error(error, self._call.id), more=True))
        else:
            body = error_body(error, dialect_of(self._call.path), self._call.id)
            headers = [(name.encode(), value.encode()) for name, value in error_headers(error)]
            headers.append((b"content-length", str(len(body)).encode()))
            await self._start(send, error.http_status, headers)
            await send(_body(body, more=True))
        await send(_body(b"", more=False))


def _body(data: bytes, *, more: bool) -> HTTPResponseBodyEvent:
    return {"type": "http.response.body", "body": data, "more_body": more}


@asynccontextmanager
async def turn_lines(
    turn: AbstractAsyncContextManager[Turn], form: LineForm, call: Call
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Open a turn as lines in a dialect's form."""
    async with turn as events:
        yield _TurnLines(events, form, call)


async def whole_turn(turn: Turn) -> list[TurnEvent]:
    """Run an open turn to its end; all its events."""
    events: list[TurnEvent] = []
    async for event in turn:
        events.append(event)
        events.extend(turn.drain())
    return events


class _TurnLines:
    """The lines of one turn. Events that are already waiting come in one batch, each still its own line."""

    def __init__(self, turn: Turn, form: LineForm, call: Call) -> None:
        self._turn = turn
        self._line = form.line
        self._total_ns = call.elapsed_ns
        self._pending: OlmError | None = None
        self._last: TurnEvent | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._pending is not None:
            raise self._pending
        batch = b""
        while not batch:
            try:
                event = await self._turn.__anext__()
            except StopAsyncIteration:
                if isinstance(self._last, Done):
                    raise
                raise unfinished() from None
            batch = self._write(event)
            try:
                for waiting in self._turn.drain():
                    batch += self._write(waiting)
            except OlmError as exc:
                # What came before the error is written first.
                if not batch:
                    raise
                self._pending = exc
        return batch

    def _write(self, event: TurnEvent) -> bytes:
        self._last = event
        return self._line(event, load_ns=self._turn.load_ns, total_ns=self._total_ns)


@asynccontextmanager
async def progress_lines(
    job: AbstractAsyncContextManager[AsyncIterator[Progress]],
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Open a job as lines of progress."""
    async with job as steps:
        yield _ProgressLines(steps)


class _ProgressLines:
    def __init__(self, steps: AsyncIterator[Progress]) -> None:
        self._steps = steps

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return progress_json(await self._steps.__anext__()) + b"\n"


def progress_json(step: Progress) -> bytes:
    """One progress object."""
    return to_json(
        ProgressResponse(
            status=step.status, digest=step.digest, total=step.total, completed=step.completed
        )
    )
