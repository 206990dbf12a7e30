"""Request bodies: reading them within limits, and decoding JSON as Go's encoding/json does, with its error texts.

The fast way is msgspec straight into the wire struct. Whatever that refuses, and bodies that spell a field's name in
another case (Go does not mind), goes through the slow way in `gojson`, which finds Go's words for it.
Source of behaviour: Go 1.24 encoding/json and gin's ShouldBindJSON as Ollama uses it (spec/ollama §1.1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec
import trio
from hypercorn.typing import ASGIReceiveCallable

from olm.api.errors import BodyTooLarge, SlowBody
from olm.api.gate import Buffer
from olm.api.gojson import decode_slowly, field_names
from olm.errors import InvalidRequest

__all__ = ["MAX_BODY_BYTES", "ClientGone", "declared_length", "decode", "read_body"]

T = TypeVar("T", bound=msgspec.Struct)

MAX_BODY_BYTES: Final = 64 << 20
"""Largest JSON body: a dozen photographs in base64. Uploads of weights have their own way (`blobs`)."""
MAX_VALUES: Final = 1 << 20
"""Most commas and opening brackets in a body: each may become a Python object of 50 bytes and more."""
MAX_SLOW_BYTES: Final = 1 << 20
"""Bodies above this get msgspec's words instead of Go's, and names matched exactly, so that none holds the loop."""
BODY_IDLE_S: Final = 60.0
"""A client that sends nothing for so long in the middle of its body is gone."""
MIN_BYTES_PER_S: Final = 1024
"""After the first `BODY_IDLE_S` a body must have come at least so fast; drips would hold a connection for months."""

_CAPITAL_KEY: Final = re.compile(rb'"([A-Za-z_]{0,40}[A-Z][A-Za-z_]{0,40})"[ \t\r\n]{0,8}:')


class ClientGone(Exception):
    """The client left before its request was complete; there is nobody to answer."""


def declared_length(headers: Mapping[bytes, bytes]) -> int | None:
    """The Content-Length, None when there is none (chunked, or no body)."""
    text = headers.get(b"content-length", b"")
    return int(text) if text.isdigit() else None


async def read_body(
    receive: ASGIReceiveCallable, headers: Mapping[bytes, bytes], buffer: Buffer
) -> bytes:
    """Read a whole body into memory, within the limits of one body and of all together.

    Raises:
        BodyTooLarge, SlowBody, Busy: to be answered. ClientGone: nobody is left to answer.
    """
    if (declared_length(headers) or 0) > MAX_BODY_BYTES:
        raise _too_large()
    started_s = trio.current_time()
    first = b""
    body = (
        bytearray()
    )  # not a list of pieces: a hostile client makes millions of them, of one byte each
    n_bytes = 0
    while True:
        slowest_s = started_s + n_bytes / MIN_BYTES_PER_S
        with trio.CancelScope(
            deadline=min(trio.current_time(), slowest_s) + BODY_IDLE_S
        ) as patience:
            message = await receive()
        if patience.cancelled_caught:
            raise SlowBody("the request body did not arrive in time")
        if message["type"] != "http.request":
            raise ClientGone
        chunk = message.get("body", b"")
        if chunk:
            n_bytes += len(chunk)
            if n_bytes > MAX_BODY_BYTES:
                raise _too_large()
            buffer.grow(len(chunk))
            if n_bytes == len(chunk):
                first = chunk
            else:
                body += chunk
        if not message.get("more_body", False):
            return first + body if body else first


def _too_large() -> BodyTooLarge:
    # Made where it is raised: in a variable of the reader's it would be a cycle, which keeps the body until the collector runs.
    return BodyTooLarge(f"request body too large: olm takes up to {MAX_BODY_BYTES >> 20} MiB")


def decode(body: bytes, kind: type[T]) -> T:
    """Decode a request body into its wire struct.

    Raises:
        InvalidRequest: empty, malformed, too deep, or of the wrong types, in Go's words.
    """
    if not body or body.isspace():
        raise InvalidRequest("missing request body")
    if body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_VALUES:
        raise InvalidRequest("request body has too many values")
    if len(body) > MAX_SLOW_BYTES or not _has_folded_name(body, kind):
        try:
            return msgspec.json.decode(body, type=kind)
        except RecursionError:
            raise InvalidRequest("exceeded max depth") from None
        except ValueError as exc:
            # msgspec's errors and UnicodeDecodeError are ValueErrors; the slow way has the words for them
            if len(body) > MAX_SLOW_BYTES:
                raise InvalidRequest(str(exc)) from None
    return msgspec.json.decode(decode_slowly(body, kind), type=kind)


def _has_folded_name(body: bytes, kind: type[msgspec.Struct]) -> bool:
    """Whether a field is named in another case. Schemas are full of capitals (`anyOf`), so only our names count."""
    keys = {key.lower().decode() for key in _CAPITAL_KEY.findall(body)}
    return not keys.isdisjoint(field_names(kind))
