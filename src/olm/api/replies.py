"""Raw ASGI answers for the requests that never reach Quart: refusals and blob uploads.

hypercorn hands a body over through a queue of ten pieces and also uses that queue to say that the exchange is over.
An answer given while the body still arrives must therefore keep taking pieces, or both sides wait for ever; `answer`
does, and gives the client a moment to finish sending, because a socket closed on unread data loses the answer.
"""

from __future__ import annotations

from typing import Final

import trio
from hypercorn.typing import (
    ASGIReceiveCallable,
    ASGISendCallable,
    HTTPResponseBodyEvent,
    HTTPResponseStartEvent,
)

from olm.api.errors import Dialect, error_body, error_headers
from olm.errors import OlmError

__all__ = ["answer", "answer_error"]

LINGER_S: Final = 2.0
"""How long a client may go on sending a body that was refused."""
LINGER_BYTES: Final = 128 << 20


async def answer(
    receive: ASGIReceiveCallable,
    send: ASGISendCallable,
    status: int,
    headers: list[tuple[bytes, bytes]],
    body: bytes = b"",
    *,
    body_pending: bool = False,
) -> None:
    """Send a whole answer.

    Args:
        body_pending: the request's body has not been read to its end.
    """
    length = [] if status == 204 else [(b"content-length", str(len(body)).encode())]
    start: HTTPResponseStartEvent = {
        "type": "http.response.start",
        "status": status,
        "headers": [*headers, *length],
    }
    last: HTTPResponseBodyEvent = {"type": "http.response.body", "body": b"", "more_body": False}
    if not body_pending:
        await send(start)
        await send({"type": "http.response.body", "body": body, "more_body": False})
        return
    async with trio.open_nursery() as nursery:
        ended = trio.Event()
        nursery.start_soon(_take_rest, receive, ended)
        await send(start)
        await send({"type": "http.response.body", "body": body, "more_body": True})
        with trio.move_on_after(LINGER_S):
            await ended.wait()
        await send(last)
        nursery.cancel_scope.cancel("answered")


async def answer_error(
    receive: ASGIReceiveCallable,
    send: ASGISendCallable,
    error: OlmError,
    *,
    dialect: Dialect = "ollama",
    request_id: str = "",
    body_pending: bool = False,
) -> None:
    """Send an error in a dialect's form."""
    headers = [(name.encode(), value.encode()) for name, value in error_headers(error)]
    body = error_body(error, dialect, request_id)
    await answer(receive, send, error.http_status, headers, body, body_pending=body_pending)


async def _take_rest(receive: ASGIReceiveCallable, ended: trio.Event) -> None:
    """Throw away what still comes, until the connection says that it is over."""
    n_bytes = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            ended.set()
            return
        n_bytes += len(message.get("body", b""))
        if not message.get("more_body", False) or n_bytes > LINGER_BYTES:
            ended.set()
