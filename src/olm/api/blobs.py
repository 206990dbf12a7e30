"""`POST /api/blobs/:digest`, served on ASGI's `receive` itself: each piece is on disk before the next is taken.

Quart collects a body whatever the handler does; here hypercorn's queue of ten pieces fills, then the socket, then the
client waits. A 2 GB upload so takes a few MB of memory. Source: Ollama's CreateBlobHandler (spec/ollama §1.15).
"""

from __future__ import annotations

import re
from typing import Final

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable

from olm.actors.client import BlobWriter, StoreClient
from olm.api.body import ClientGone
from olm.api.errors import SHUTTING_DOWN, SlowBody, expected_error
from olm.api.gate import Call
from olm.api.replies import answer, answer_error
from olm.errors import InvalidName, ShuttingDown

__all__ = ["BLOB_PREFIX", "parse_digest", "upload"]

BLOB_PREFIX: Final = "/api/blobs/"
UPLOAD_IDLE_S: Final = 300.0
"""A client that sends nothing for so long is gone; it may have been reading its own slow disk."""

WRITE_BYTES: Final = 1 << 20
"""Pieces of 64 KiB are put together to this before a write: a hop to a thread costs 70 µs."""

_DIGEST: Final = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")


def parse_digest(text: str) -> str:
    """Read a digest as `sha256:<64 lower-case hex digits>`.

    Raises:
        InvalidName: `invalid digest format`.
    """
    match = _DIGEST.fullmatch(text)
    if match is None:
        raise InvalidName("invalid digest format")
    return f"sha256:{match[1].lower()}"


async def upload(
    store: StoreClient, call: Call, receive: ASGIReceiveCallable, send: ASGISendCallable
) -> None:
    """Take one blob: 201 when it is new, 200 when the store has it, an error otherwise.

    Cancellation and a client that leaves remove what was written.
    """
    body = _Body(receive)
    status = 0
    try:
        with call.working() as scope:
            status = await _store(store, parse_digest(call.path[len(BLOB_PREFIX) :]), body)
        if scope.cancelled_caught:
            raise ShuttingDown(SHUTTING_DOWN)
    except Exception as exc:
        # The edge of this route, as `endpoint` is for the others.
        if _client_left(exc):
            return
        error = await expected_error(exc, request_id=call.id)
        await answer_error(receive, send, error, body_pending=not body.ended)
        return
    await answer(receive, send, status, [], body_pending=not body.ended)


async def _store(store: StoreClient, digest: str, body: _Body) -> int:
    if await store.has_blob(digest):
        return 200
    async with store.open_blob_writer(digest) as writer:
        await _copy(body, writer)
        return 201 if await writer.commit() else 200


async def _copy(body: _Body, writer: BlobWriter) -> None:
    while not body.ended:
        pieces: list[bytes] = []
        n_bytes = 0
        while n_bytes < WRITE_BYTES and not body.ended:
            pieces.append(await body.next())
            n_bytes += len(pieces[-1])
        if n_bytes:
            await writer.write(b"".join(pieces))


def _client_left(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return exc.subgroup(ClientGone) is not None
    return isinstance(exc, ClientGone)


class _Body:
    """The pieces of a body, and whether its end has come."""

    def __init__(self, receive: ASGIReceiveCallable) -> None:
        self._receive = receive
        self.ended = False

    async def next(self) -> bytes:
        """The next piece, maybe empty. Raises ClientGone, SlowBody."""
        with trio.move_on_after(UPLOAD_IDLE_S) as patience:
            message = await self._receive()
        if patience.cancelled_caught:
            raise SlowBody("the upload stopped in the middle")
        if message["type"] != "http.request":
            raise ClientGone
        self.ended = not message.get("more_body", False)
        return message.get("body", b"")
