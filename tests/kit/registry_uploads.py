"""The side of `kit.registry` that takes: uploads in chunks, mounts, manifests, and what can go wrong with each."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from typing import Literal

import attrs
import trio

from kit.registry_http import Out, Request, send

__all__ = ["UploadDesk", "UploadFault"]

UploadFault = Literal[
    "reset", "500", "429", "lost-location", "wrong-range", "forgets", "stall", "refuses", "swallows"
]


@attrs.define
class UploadDesk:
    """Uploads that are under way, and what came of them.

    Attributes:
        faults: one for each PATCH, taken in turn; `finish_faults` for each PUT that ends an upload, `begin_faults` for POST.
        detours: chunks are wanted at `/elsewhere` of the other port, by PUT, as Ollama's registry has it.
        mounts: (digest, repository) of each mount that was asked for; done where the blob is there and `mounting`.
        spans: the Content-Range of each PATCH.
        n_received: bytes of bodies that were kept.
        forgetful: knows no upload whose chunk broke off, as distribution 2.8.
    """

    blobs: dict[str, bytes]
    faults: deque[UploadFault] = attrs.field(factory=deque)
    begin_faults: deque[UploadFault] = attrs.field(factory=deque)
    finish_faults: deque[UploadFault] = attrs.field(factory=deque)
    detours: bool = False
    mounting: bool = True
    forgetful: bool = False
    mounts: list[tuple[str, str]] = attrs.field(factory=list)
    spans: list[str] = attrs.field(factory=list)
    etags: list[str] = attrs.field(factory=list)
    asked: list[str] = attrs.field(factory=list)
    begun: int = 0
    n_received: int = 0
    gate: trio.Event | None = None
    waiting: trio.Event = attrs.field(factory=trio.Event)
    _open: dict[str, bytearray] = attrs.field(factory=dict)
    _parts: dict[str, list[bytes]] = attrs.field(factory=dict)

    async def answer(self, stream: Out, request: Request, elsewhere: str) -> bool:
        """Answer a request below `/blobs/uploads/`; false when the connection is over."""
        repository, _, key = request.path.partition("/blobs/uploads/")
        if request.method == "POST":
            return await self._begin(stream, request, repository)
        data = self._open.get(key)
        if data is None:
            return await send(stream, 404, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}')
        where = {"location": f"{repository}/blobs/uploads/{key}"}
        if request.method == "GET":
            self.asked.append(key)
            return await send(stream, 204, b"", {**where, **_range(data)})
        if request.method == "PATCH" and self.detours and "x-redirect-uploads" in request.headers:
            await request.body()
            self.spans.append(request.headers["content-range"])
            target = {
                "location": f"{elsewhere}/elsewhere/{key}",
                "docker-upload-location": where["location"],
            }
            return await send(stream, 307, b"", target)
        if request.method == "PATCH":
            return await self._take(stream, request, data, where)
        return await self._finish(stream, request, key)

    async def take_elsewhere(self, stream: Out, request: Request) -> bool:
        """Take a chunk that was sent on here."""
        assert "authorization" not in request.headers, "a token went to another host"
        key = request.path.rpartition("/")[2]
        fault = self.faults.popleft() if self.faults else None
        body = await request.body()
        if fault == "500":
            return await send(stream, 500, b"go away", {"retry-after": "0"})
        self._open[key] += body
        self._parts.setdefault(key, []).append(hashlib.md5(body).digest())
        self.n_received += len(body)
        return await send(stream, 200)

    async def _begin(self, stream: Out, request: Request, repository: str) -> bool:
        fault = self.begin_faults.popleft() if self.begin_faults else None
        if fault in ("500", "429"):
            return await send(stream, int(fault), b"go away", {"retry-after": "0"})
        if fault == "refuses":
            return await send(stream, 403, b'{"errors":[{"code":"DENIED"}]}')
        if digest := request.field("mount"):
            self.mounts.append((digest, request.field("from")))
            if digest in self.blobs and self.mounting:
                return await send(stream, 201)
        self.begun += 1
        key = f"upload-{self.begun}"
        self._open[key] = bytearray()
        headers = (
            {}
            if fault == "lost-location"
            else {"location": f"{repository}/blobs/uploads/{key}?state=x"}
        )
        return await send(stream, 202, b"", headers)

    async def _take(
        self, stream: Out, request: Request, data: bytearray, where: dict[str, str]
    ) -> bool:
        span = request.headers["content-range"]
        self.spans.append(span)
        fault = self.faults.popleft() if self.faults else None
        if fault in ("500", "429"):
            await request.body()
            return await send(stream, int(fault), b"go away", {"retry-after": "0"})
        if int(span.partition("-")[0]) != len(data):
            await request.body()
            return await send(stream, 416, b"", _range(data))
        if fault == "stall":
            await trio.sleep(math.inf)
        half = request.n_left // 2
        while piece := await request.piece():
            data += piece
            self.n_received += len(piece)
            if self.gate is not None:
                self.waiting.set()
                await self.gate.wait()
            if fault == "reset" and request.n_left <= half:
                if self.forgetful:
                    self._open = {key: kept for key, kept in self._open.items() if kept is not data}
                return False
        if request.n_left:
            return False
        return await self._answer_chunk(stream, data, where, fault)

    async def _answer_chunk(
        self, stream: Out, data: bytearray, where: dict[str, str], fault: UploadFault | None
    ) -> bool:
        if fault == "forgets":
            self._open.clear()
        if fault == "wrong-range":
            del data[-100:]
        if fault == "swallows":
            del data[-100:]  # and says nothing of it: the digest will tell
            return await send(stream, 202, b"", {**where, "range": f"0-{len(data) + 99}"})
        headers = _range(data) if fault == "lost-location" else {**where, **_range(data)}
        return await send(stream, 202, b"", headers)

    async def _finish(self, stream: Out, request: Request, key: str) -> bool:
        fault = self.finish_faults.popleft() if self.finish_faults else None
        digest, data = request.field("digest"), bytes(self._open[key])
        if fault in ("500", "429"):
            return await send(stream, int(fault), b"go away", {"retry-after": "0"})
        if digest != f"sha256:{hashlib.sha256(data).hexdigest()}":
            return await send(stream, 400, b'{"errors":[{"code":"DIGEST_INVALID"}]}')
        if parts := self._parts.get(key):
            self.etags.append(request.field("etag"))
            assert self.etags[-1] == f"{hashlib.md5(b''.join(parts)).hexdigest()}-{len(parts)}"
        self.blobs[digest] = data
        del self._open[key]
        return False if fault == "reset" else await send(stream, 201)


def _range(data: bytearray) -> dict[str, str]:
    return {"range": f"0-{max(len(data) - 1, 0)}"}
