"""The outer ASGI application: everything that holds for all requests, before Quart sees one.

Request ids, Host and CORS rules, API keys, header and body limits, drain mode, requests in flight; and blob uploads,
which must not pass through Quart. The lifespan is answered here, so that Quart never opens the nursery whose crash would
end it unnoticed (runtime trap: hypercorn then serves on without lifespan). Routes are in `app`, the access log in
`access`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, cast
from urllib.parse import urlsplit

import trio
from hypercorn.typing import (
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    HTTPRequestEvent,
    HTTPScope,
    Scope,
)

from olm.actors.client import Olm
from olm.api.archives import is_archive, receive_archive
from olm.api.auth import Authorizer, peer_name
from olm.api.blobs import BLOB_PREFIX, upload
from olm.api.body import MAX_BODY_BYTES, ClientGone, read_body
from olm.api.connection import CHUNK_WRITER_KEY, ChunkWriter
from olm.api.encodings import Decompressor
from olm.api.errors import SHUTTING_DOWN, dialect_of
from olm.api.gate import CALL_KEY, Buffer, Call, Gate
from olm.api.guards import Guard
from olm.api.replies import answer, answer_error
from olm.errors import InvalidRequest, OlmError, ShuttingDown

__all__ = ["MAX_HEAD_BYTES", "Api", "AsgiApp", "Constant"]

Constant = tuple[Sequence[tuple[bytes, bytes]], bytes]
"""Header fields and body of an answer that never changes."""

MAX_HEADERS: Final = 64
MAX_HEAD_BYTES: Final = 32 << 10
"""Target, names and values. What is still incomplete at this size never gets here (see `serve`)."""
MAX_ID_CHARS: Final = 128


class AsgiApp(Protocol):
    """An ASGI application, such as Quart."""

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None: ...


class Api:
    """One server's application.

    Args:
        inner: what serves the routes.
        auth: who may do what.
        constants: answers to GET and HEAD by path; the routes are in `inner` too, for their other methods.

    Attributes:
        gate: the requests in flight; `serve` drains through it.
        auth: see above; `serve` tells it to read its keys again.
    """

    def __init__(
        self,
        olm: Olm,
        inner: AsgiApp,
        guard: Guard,
        auth: Authorizer,
        constants: Mapping[str, Constant],
    ) -> None:
        self.gate = Gate()
        self.auth = auth
        self._olm = olm
        self._inner = inner
        self._guard = guard
        self._constants = constants
        self._decompressor = Decompressor()

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Serve one connection event; a request's errors all become answers."""
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000, "reason": None})

    async def _serve(
        self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        headers = dict(scope["headers"])
        call = _open_call(scope, headers, Buffer(self.gate))
        sender = _Sender(send, call)
        with self.gate.track(call):
            try:
                await self._admit(scope, headers, call, receive, sender)
            except ClientGone:
                call.status = 499

    async def _admit(
        self,
        scope: HTTPScope,
        headers: dict[bytes, bytes],
        call: Call,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
    ) -> None:
        body_pending = (
            b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
        )
        try:
            refused = self._judge(scope, headers, call)
            if refused:
                await answer(receive, send, refused, [], body_pending=body_pending)
                return
            if await self._answer_directly(call, receive, send, body_pending=body_pending):
                return
            if is_archive(call, headers):
                query = scope["query_string"]
                await receive_archive(self._olm.jobs, call, query, receive, send)
                return
            call.body = await read_body(receive, headers, call.buffer)
            body_pending = False
            encoding = headers.get(b"content-encoding", b"").decode("latin1")
            if encoding and call.body:
                call.body = await self._decompressor.decoded(
                    call.body, encoding, MAX_BODY_BYTES, call.buffer
                )
        except OlmError as error:
            await answer_error(
                receive,
                send,
                error,
                dialect=dialect_of(call.path),
                request_id=call.id,
                body_pending=body_pending,
            )
            return
        cast("dict[str, object]", scope)[CALL_KEY] = call  # ASGI lets applications add keys
        await self._inner(scope, _after_body(receive), send)

    def _judge(self, scope: HTTPScope, headers: dict[bytes, bytes], call: Call) -> int:
        """Apply the rules that need no body; 0, or the status of a refusal without words.

        Raises:
            OlmError: a refusal with words.
        """
        try:
            _check_head(scope, headers)
            host = _normalise_target(scope, headers)
        except OlmError:
            # What follows may not be what the client, or a proxy before us, takes it for.
            call.headers.append((b"connection", b"close"))
            raise
        call.path = scope["path"]
        verdict = self._guard.judge(call.method, headers, host)
        call.headers.extend(verdict.headers)
        if verdict.status:
            return verdict.status
        self.auth.keyring.refresh(call.started_s)
        call.client = self.auth.admit(call.method, call.path, headers, host=host, peer=call.client)
        if self.gate.is_draining:
            raise ShuttingDown(SHUTTING_DOWN)
        return 0

    async def _answer_directly(
        self,
        call: Call,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
        *,
        body_pending: bool,
    ) -> bool:
        """Answer what must or need not go through Quart; whether it was that."""
        if call.path.startswith("//"):
            # werkzeug would take away all but one slash, and route what the rules above never saw
            text = [(b"content-type", b"text/plain")]
            not_found = b"404 page not found"
            await answer(receive, send, 404, text, not_found, body_pending=body_pending)
            return True
        constant = self._constants.get(call.path)
        if constant is not None and call.method in ("GET", "HEAD") and not body_pending:
            # Liveness probes come often; Quart would take half of what the whole answer costs.
            await answer(receive, send, 200, list(constant[0]), constant[1])
            return True
        if call.method == "POST" and call.path.startswith(BLOB_PREFIX):
            await upload(self._olm.store, call, receive, send)
            return True
        return False


class _Sender:
    """ASGI's send, adding the call's header fields and noting its status."""

    __slots__ = ("_call", "_send")

    def __init__(self, send: ASGISendCallable, call: Call) -> None:
        self._send = send
        self._call = call

    async def __call__(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start":
            self._call.status = int(message["status"])
            message["headers"] = [*message["headers"], *self._call.headers]
        await self._send(message)


def _open_call(scope: HTTPScope, headers: dict[bytes, bytes], buffer: Buffer) -> Call:
    request_id = _request_id(headers.get(b"x-request-id", b""))
    client = scope.get("client")
    return Call(
        id=request_id,
        method=scope["method"],
        path=scope["path"],
        client=peer_name(client[0] if client else None),
        started_s=trio.current_time(),
        buffer=buffer,
        user_agent=headers.get(b"user-agent", b"").decode("latin1"),
        headers=[(b"x-request-id", request_id.encode("ascii"))],
        chunk_writer=scope["state"].get(CHUNK_WRITER_KEY, _no_writer),
    )


def _no_writer() -> ChunkWriter | None:
    """Under another server than ours there is no direct way."""
    return None


def _request_id(given: bytes) -> str:
    """The client's id if it is short and harmless in a log, else a fresh one."""
    text = given.decode("latin1")
    if (
        0 < len(text) <= MAX_ID_CHARS
        and text.isascii()
        and text.replace("-", "").replace("_", "").isalnum()
    ):
        return text
    return secrets.token_hex(8)


def _check_head(scope: HTTPScope, headers: Mapping[bytes, bytes]) -> None:
    """Refuse heads that are too large or say two things at once. Raises OlmError."""
    fields = list(scope["headers"])
    size_bytes = len(scope["raw_path"]) + len(scope["query_string"])
    size_bytes += sum(len(name) + len(value) for name, value in fields)
    if len(fields) > MAX_HEADERS or size_bytes > MAX_HEAD_BYTES:
        raise OlmError("too many or too long header fields", status=431)
    if not scope["http_version"].startswith("1."):
        raise OlmError("olm speaks HTTP/1.1", status=505)
    if b"transfer-encoding" in headers and b"content-length" in headers:
        # Somebody before us may have believed the other one (request smuggling, RFC 9112 §6.1).
        raise InvalidRequest("Content-Length and Transfer-Encoding exclude each other")


def _normalise_target(scope: HTTPScope, headers: dict[bytes, bytes]) -> str:
    """Bring a target in absolute form (`GET http://host/path`) to a path; its authority then is the Host (RFC 9112).

    Returns:
        The Host, with its port.

    Raises:
        InvalidRequest: a target that is neither a path nor an http URL.
    """
    host = headers.get(b"host", b"").decode("latin1")
    if scope["path"].startswith("/"):
        return host
    try:
        parts = urlsplit(scope["path"])
    except ValueError as exc:
        raise InvalidRequest("malformed request target") from exc
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidRequest("malformed request target")
    scope["path"] = parts.path or "/"
    return parts.netloc


def _after_body(receive: ASGIReceiveCallable) -> ASGIReceiveCallable:
    """What Quart receives: an empty body at once (the real one is in the call), then only the disconnect."""
    empty: HTTPRequestEvent = {"type": "http.request", "body": b"", "more_body": False}
    pending: list[ASGIReceiveEvent] = [empty]

    async def next_event() -> ASGIReceiveEvent:
        return pending.pop() if pending else await receive()

    return next_event


async def _lifespan(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
