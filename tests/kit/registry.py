"""A model registry on loopback that behaves as badly as a test asks: resets, stalls, errors, wrong bytes, no ranges.

Speaks HTTP/1.1 by hand, because a real server would not break off where a test wants it to.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
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

__all__ = ["Fault", "Registry", "digest_of", "open_registry"]

Fault = Literal["reset", "stall", "500", "429", "expired", "short"]
_SMALL_BYTES = 1000
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def digest_of(data: bytes) -> str:
    """The digest of bytes, as manifests write it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@attrs.define
class _Request:
    target: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        return urlsplit(self.target).path


@attrs.define
class Registry:
    """What is served, and how.

    Attributes:
        faults: one for each request for a blob's bytes, taken in turn; none when it is empty.
        log: path and Range of each request.
        gate: bodies of blobs, but for very small ones, wait for it in their middle.
        redirects: blobs are elsewhere: under `/direct` of the other port.
        needs_token: nothing without a token, which has to be asked for with a good signature.
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
        """The requests for bytes of blobs."""
        return [(path, span) for path, span in self.log if "sha256" in path]

    async def serve(self, stream: trio.SocketStream, *, is_direct: bool) -> None:
        """Answer the requests of one connection."""
        buffer = bytearray()
        try:
            while True:
                while b"\r\n\r\n" not in buffer:
                    data = await stream.receive_some()
                    if not data:
                        return
                    buffer += data
                head, _, rest = bytes(buffer).partition(b"\r\n\r\n")
                buffer = bytearray(rest)
                first, *lines = head.decode().split("\r\n")
                headers = {
                    name.lower(): value for name, value in (line.split(": ", 1) for line in lines)
                }
                request = _Request(first.split(" ")[1], headers)
                self.log.append((request.path, headers.get("range", "")))
                if not await self._answer(stream, request, is_direct=is_direct):
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        finally:
            with trio.CancelScope() as scope:
                scope.cancel()
                await stream.aclose()

    async def _answer(
        self, stream: trio.SocketStream, request: _Request, *, is_direct: bool
    ) -> bool:
        path = request.path
        if path == "/token":
            return await self._token(stream, request)
        if is_direct:
            assert "authorization" not in request.headers, "a token went to another host"
        elif self.needs_token and request.headers.get("authorization") != "Bearer good":
            realm = f'Bearer realm="http://127.0.0.1:{self.port}/token",service="s",scope="a b"'
            return await _send(stream, 401, b"", {"www-authenticate": realm})
        _, _, last = path.rpartition("/")
        if "/manifests/" in path:
            model = path.split("/")[3]
            found = self.manifests.get(model)
            return await _send(stream, 404 if found is None else 200, found or b"no such thing")
        if self.redirects and not is_direct:
            where = f"http://127.0.0.1:{self.direct_port}/direct/{last}?signature=x"
            return await _send(stream, 307, b"", {"location": where})
        return await self._blob(stream, request, self.blobs.get(last))

    async def _token(self, stream: trio.SocketStream, request: _Request) -> bool:
        public, _, signature = request.headers["authorization"].partition(":")
        key = load_ssh_public_key(f"ssh-ed25519 {public}".encode())
        assert isinstance(key, Ed25519PublicKey)
        url = f"http://127.0.0.1:{self.port}{request.target}"
        empty = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()
        key.verify(base64.b64decode(signature), f"GET,{url},{empty}".encode())
        self.tokens_for += parse_qs(urlsplit(request.target).query)["scope"]
        return await _send(stream, 200, b'{"token":"good"}')

    async def _blob(self, stream: trio.SocketStream, request: _Request, data: bytes | None) -> bool:
        fault = self.faults.popleft() if self.faults else None
        if data is None:
            return await _send(stream, 404, b"")
        if fault in ("500", "429", "expired"):
            status = {"500": 500, "429": 429, "expired": 403}[fault]
            return await _send(stream, status, b"go away", {"retry-after": "0"})
        status, headers = 200, {}
        span = request.headers.get("range", "")
        if span and not self.ignores_ranges:
            start, _, last = span.removeprefix("bytes=").partition("-")
            status = 206
            headers["content-range"] = f"bytes {start}-{last}/{len(data)}"
            data = data[int(start) : int(last) + 1]
        half = len(data) // 2
        if fault == "short":
            return await _send(stream, status, data[:half], headers)
        await stream.send_all(_head(status, len(data), headers) + data[:half])
        if fault == "reset":
            return False
        if fault == "stall":
            await trio.sleep(math.inf)
        if self.gate is not None and len(data) > _SMALL_BYTES:
            self.waiting.set()
            await self.gate.wait()
        await stream.send_all(data[half:])
        return True


def _head(status: int, size_bytes: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} x", f"content-length: {size_bytes}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def _send(
    stream: trio.SocketStream, status: int, body: bytes, headers: dict[str, str] | None = None
) -> bool:
    await stream.send_all(_head(status, len(body), headers or {}) + body)
    return True


@asynccontextmanager
async def open_registry() -> AsyncIterator[Registry]:
    """Serve a registry while the block runs."""
    registry = Registry()
    async with trio.open_nursery() as nursery:
        ports = []
        for is_direct in (False, True):
            listeners = await nursery.start(
                partial(
                    trio.serve_tcp,
                    partial(registry.serve, is_direct=is_direct),
                    0,
                    host="127.0.0.1",
                )
            )
            ports.append(listeners[0].socket.getsockname()[1])
        registry.port, registry.direct_port = ports
        yield registry
        nursery.cancel_scope.cancel()
