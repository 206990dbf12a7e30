"""A model registry on loopback that behaves as badly as a test asks: resets, stalls, errors, wrong bytes, no ranges.

Speaks HTTP/1.1 by hand, because a real server would not break off where a test wants it to.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import ssl
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import attrs
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from kit.registry_http import Out, Request, head, read_request, send
from kit.registry_uploads import UploadDesk

__all__ = ["Fault", "Registry", "digest_of", "open_registry"]

Fault = Literal["reset", "stall", "500", "429", "expired", "short"]
PROBE = "bytes=0-0"
"""What a client asks for that wants to know where a blob is and whether there are ranges; no fault of `faults` meets it."""
_SMALL_BYTES = 1000
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def digest_of(data: bytes) -> str:
    """The digest of bytes, as manifests write it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@attrs.define
class Registry:
    """What is served, and how.

    Attributes:
        faults: one for each request for a blob's bytes, taken in turn; none when it is empty.
        log: path and Range of each request.
        gate: bodies of blobs, but for very small ones, wait for it in their middle.
        redirects: blobs are elsewhere: under `/direct` of the other port.
        needs_token: nothing without a token, which has to be asked for with a good signature.
        realm: where tokens are given out; by default here, under `/token` (which the other port has too).
        token_login: the Authorization header that tokens are given for, instead of a signature; empty for none.
        basic: the Authorization header without which there is nothing.
        is_old: answers in HTTP/1.0, bodies of blobs without their length.
        uploads: the side that takes.
    """

    port: int = 0
    direct_port: int = 0
    blobs: dict[str, bytes] = attrs.field(factory=dict)
    manifests: dict[str, bytes] = attrs.field(factory=dict)
    faults: deque[Fault] = attrs.field(factory=deque)
    log: list[tuple[str, str]] = attrs.field(factory=list)
    gate: trio.Event | None = None
    waiting: trio.Event = attrs.field(factory=trio.Event)
    ignores_ranges: bool = False
    redirects: bool = False
    needs_token: bool = False
    tokens_for: list[str] = attrs.field(factory=list)
    realm: str = ""
    token_login: str | None = None
    basic: str = ""
    is_old: bool = False
    requests: list[Request] = attrs.field(factory=list)
    manifest_faults: deque[str] = attrs.field(factory=deque)
    manifest_types: list[str] = attrs.field(factory=list)
    uploads: UploadDesk = attrs.field(
        default=attrs.Factory(lambda self: UploadDesk(self.blobs), takes_self=True)
    )

    def add(self, name: str, layers: list[tuple[str, bytes]], config: bytes = b"{}") -> bytes:
        """Serve a model; returns its manifest. Layers are (last word of the media type, bytes)."""
        for data in (config, *(data for _, data in layers)):
            self.blobs[digest_of(data)] = data

        def entry(media_type: str, data: bytes) -> dict[str, object]:
            return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": entry("application/vnd.docker.container.image.v1+json", config),
                "layers": [
                    entry(f"application/vnd.ollama.image.{kind}", data) for kind, data in layers
                ],
            }
        ).encode()
        self.manifests[name] = manifest
        return manifest

    def name(self, model: str) -> str:
        """A model's name for `pull`."""
        return f"http://127.0.0.1:{self.port}/library/{model}"

    def blob_log(self) -> list[tuple[str, str]]:
        """The requests for bytes of blobs, without those that only ask where they are."""
        return [(path, span) for path, span in self.log if "sha256" in path and span != PROBE]

    async def serve(self, stream: trio.abc.Stream, *, is_direct: bool) -> None:
        """Answer the requests of one connection."""
        out = _Old(stream) if self.is_old else stream
        buffer = bytearray()
        try:
            while (request := await read_request(stream, buffer)) is not None:
                self.log.append((request.path, request.headers.get("range", "")))
                self.requests.append(request)
                if not await self._answer(out, request, is_direct=is_direct) or self.is_old:
                    return
                await request.body()
                buffer = request.rest
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        finally:
            with trio.CancelScope() as scope:
                scope.cancel()
                await stream.aclose()

    async def _answer(self, stream: Out, request: Request, *, is_direct: bool) -> bool:
        path = request.path
        if path == "/token":
            return await self._token(stream, request)
        if path.startswith("/elsewhere/") and is_direct:
            return await self.uploads.take_elsewhere(stream, request)
        if is_direct:
            assert "authorization" not in request.headers, "a token went to another host"
        elif challenge := self._challenge(request):
            return await send(stream, 401, b"", {"www-authenticate": challenge})
        _, _, last = path.rpartition("/")
        if "/manifests/" in path:
            return await self._manifest(stream, request)
        if "/blobs/uploads/" in path:
            elsewhere = f"http://127.0.0.1:{self.direct_port}"
            return await self.uploads.answer(stream, request, elsewhere)
        if self.redirects and not is_direct:
            where = f"http://127.0.0.1:{self.direct_port}/direct/{last}?signature=x"
            return await send(stream, 307, b"", {"location": where})
        data = self.blobs.get(last)
        if request.method == "HEAD":
            await stream.send_all(head(404 if data is None else 200, len(data or b""), {}))
            return True
        return await self._blob(stream, request, data)

    def _challenge(self, request: Request) -> str:
        """What a request is refused with; empty when it may pass."""
        told = request.headers.get("authorization", "")
        if self.basic:
            return "" if told == self.basic else 'Basic realm="Registry Realm"'
        if not self.needs_token or told == "Bearer good":
            return ""
        realm = self.realm or f"http://127.0.0.1:{self.port}/token"
        return f'Bearer realm="{realm}",service="s",scope="a b"'

    async def _manifest(self, stream: Out, request: Request) -> bool:
        model = request.path.split("/")[3]
        if request.method != "PUT":
            found = self.manifests.get(model)
            return await send(stream, 404 if found is None else 200, found or b"no such thing")
        if fault := self.manifest_faults.popleft() if self.manifest_faults else None:
            return await send(stream, int(fault), b"go away", {"retry-after": "0"})
        data = await request.body()
        named = json.loads(data)
        for entry in (named["config"], *named["layers"]):
            assert entry["digest"] in self.blobs, "a manifest came before its blobs"
        self.manifests[model] = data
        self.manifest_types.append(request.headers["content-type"])
        return await send(stream, 201)

    async def _token(self, stream: Out, request: Request) -> bool:
        self.tokens_for += parse_qs(urlsplit(request.target).query)["scope"]
        if self.token_login is not None:
            is_right = request.headers.get("authorization", "") == self.token_login
            return await send(
                stream, 200 if is_right else 401, b'{"token":"good"}' if is_right else b""
            )
        public, _, signature = request.headers["authorization"].partition(":")
        key = load_ssh_public_key(f"ssh-ed25519 {public}".encode())
        assert isinstance(key, Ed25519PublicKey)
        url = f"http://127.0.0.1:{self.port}{request.target}"
        empty = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()
        key.verify(base64.b64decode(signature), f"GET,{url},{empty}".encode())
        return await send(stream, 200, b'{"token":"good"}')

    async def _blob(self, stream: Out, request: Request, data: bytes | None) -> bool:
        is_probe = request.headers.get("range") == PROBE
        fault = self.faults.popleft() if self.faults and not is_probe else None
        if data is None:
            return await send(stream, 404, b"")
        if fault in ("500", "429", "expired"):
            status = {"500": 500, "429": 429, "expired": 403}[fault]
            return await send(stream, status, b"go away", {"retry-after": "0"})
        status, headers = 200, {}
        span = request.headers.get("range", "")
        if span and not self.ignores_ranges:
            start, _, last = span.removeprefix("bytes=").partition("-")
            status = 206
            headers["content-range"] = f"bytes {start}-{last}/{len(data)}"
            data = data[int(start) : int(last) + 1]
        half = len(data) // 2
        if fault == "short":
            return await send(stream, status, data[:half], headers)
        await stream.send_all(
            head(status, None if self.is_old else len(data), headers) + data[:half]
        )
        if fault == "reset":
            return False
        if fault == "stall":
            await trio.sleep(math.inf)
        if self.gate is not None and len(data) > _SMALL_BYTES:
            self.waiting.set()
            await self.gate.wait()
        await stream.send_all(data[half:])
        return True


class _Old:
    """A connection whose answers are HTTP/1.0."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def send_all(self, data: bytes) -> None:
        """Send; the head of an answer says that it is old."""
        await self._stream.send_all(
            b"HTTP/1.0" + data[8:] if data.startswith(b"HTTP/1.1") else data
        )


async def _serve(
    registry: Registry,
    tls: ssl.SSLContext | None,
    stream: trio.SocketStream,
    *,
    is_direct: bool,
) -> None:
    if tls is None:
        await registry.serve(stream, is_direct=is_direct)
        return
    wrapped = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
    await registry.serve(wrapped, is_direct=is_direct)


@asynccontextmanager
async def open_registry(tls: ssl.SSLContext | None = None) -> AsyncIterator[Registry]:
    """Serve a registry while the block runs."""
    registry = Registry()
    async with trio.open_nursery() as nursery:
        ports = []
        for is_direct in (False, True):
            listeners = await nursery.start(
                partial(
                    trio.serve_tcp,
                    partial(_serve, registry, tls, is_direct=is_direct),
                    0,
                    host="127.0.0.1",
                )
            )
            ports.append(listeners[0].socket.getsockname()[1])
        registry.port, registry.direct_port = ports
        yield registry
        nursery.cancel_scope.cancel()
