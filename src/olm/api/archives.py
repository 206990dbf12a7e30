"""`POST /api/import` with an archive as its body, taken from ASGI's `receive` itself, as uploads of blobs are.

Quart would collect the whole body. Here each piece is on disk before the next is taken, so memory stays the same for
any size. The answer comes at the end: clients that send do not read. Imports by path are in `routes.archive`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable

from olm.actors.jobs_client import ImportRequest, JobsClient, Progress
from olm.api.body import ClientGone
from olm.api.errors import SHUTTING_DOWN, SlowBody, expected_error
from olm.api.gate import Call
from olm.api.replies import answer, answer_error
from olm.api.streaming import progress_json
from olm.errors import OlmError, ShuttingDown

__all__ = ["is_archive", "receive_archive"]

IMPORT_PATH: Final = "/api/import"
TYPES: Final = (b"application/x-tar", b"application/zstd", b"application/octet-stream")
IDLE_S: Final = 300.0
PIECE_BYTES: Final = 1 << 20
"""Pieces of 64 KiB are put together to this: each is a hop between threads."""

_JSON: Final = (b"content-type", b"application/json; charset=utf-8")


def is_archive(call: Call, headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request brings an archive."""
    if call.method != "POST" or call.path != IMPORT_PATH:
        return False
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower() in TYPES


async def receive_archive(
    jobs: JobsClient, call: Call, query: bytes, receive: ASGIReceiveCallable, send: ASGISendCallable
) -> None:
    """Import the body; the query may give a `name`. What was verified stays when the client leaves."""
    body = _Body(receive)
    last = Progress("success")
    try:
        with call.working() as scope:
            name = parse_qs(query.decode("latin1"), max_num_fields=8).get("name", [""])[0]
            async with jobs.import_(ImportRequest(name=name, source=body)) as steps:
                async for step in steps:
                    last = step
        if scope.cancelled_caught:
            raise ShuttingDown(SHUTTING_DOWN)
    except Exception as exc:
        # The edge of this route, as `endpoint` is for the others.
        if body.is_gone:
            return
        error = await expected_error(exc, request_id=call.id)
        await answer_error(receive, send, error, body_pending=not body.ended)
        return
    await answer(receive, send, 200, [_JSON], progress_json(last), body_pending=not body.ended)


class _Body:
    """The pieces of a body. Reads run as the import's, one at a time."""

    def __init__(self, receive: ASGIReceiveCallable) -> None:
        self._receive = receive
        self.ended = False
        self.is_gone = False

    async def next(self) -> bytes:
        """The next piece, empty at the end. Raises SlowBody, and OlmError for a client that left."""
        pieces: list[bytes] = []
        n_bytes = 0
        while n_bytes < PIECE_BYTES and not self.ended:
            with trio.move_on_after(IDLE_S) as patience:
                message = await self._receive()
            if patience.cancelled_caught:
                raise SlowBody("the upload stopped in the middle")
            if message["type"] != "http.request":
                self.is_gone = True
                raise OlmError("the client left in the middle of its archive") from ClientGone()
            self.ended = not message.get("more_body", False)
            pieces.append(message.get("body", b""))
            n_bytes += len(pieces[-1])
        return b"".join(pieces)
