"""`/api/imatrix`: an importance matrix, as lines of progress with the file at their end, or as the file alone."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Final

import attrs
from quart import Quart, Response

from olm.actors.client import Olm
from olm.actors.jobs_client import ImatrixRequest, Progress
from olm.api.body import decode
from olm.api.encoding import to_json
from olm.api.gate import Call
from olm.api.routes.archive import BytesResponse
from olm.api.routes.endpoint import add
from olm.api.schemas_imatrix import ImatrixBody, ImatrixLine
from olm.api.streaming import Framing, StreamResponse
from olm.errors import InvalidRequest

__all__ = ["register"]

_FILE: Final = Framing(b"application/octet-stream", lambda _error, _id: b"")
_WRITING: Final = "writing imatrix"


def register(app: Quart, olm: Olm) -> None:
    """Add the route to the application."""
    add(app, ("POST",), "/api/imatrix", _Routes(olm).imatrix)


@attrs.frozen
class _Routes:
    olm: Olm

    async def imatrix(self, call: Call) -> Response:
        body = decode(call.take_body(), ImatrixBody)
        if not body.model:
            raise InvalidRequest("model is required")
        request = ImatrixRequest(
            model=body.model,
            text=body.text or "",
            dataset=body.dataset or "",
            n_ctx=body.ctx or 0,
            n_chunks=body.chunks or 0,
            parse_special=body.parse_special is True,
            n_threads=body.num_thread or 0,
            n_gpu_layers=body.num_gpu or 0,
        )
        job = partial(self.olm.jobs.imatrix, request)
        if body.stream is False:
            return BytesResponse(call, lambda: _opened(job(), _file_part), _FILE)
        return StreamResponse(call, lambda: _opened(job(), _Lines().write))


Write = Callable[[Progress | bytes], bytes]


@asynccontextmanager
async def _opened(
    job: AbstractAsyncContextManager[AsyncIterator[Progress | bytes]], write: Write
) -> AsyncIterator[AsyncIterator[bytes]]:
    async with job as steps:
        yield _Written(steps, write)


class _Written:
    """The steps of a job as bytes. No generator: a client that leaves would leave it open."""

    def __init__(self, steps: AsyncIterator[Progress | bytes], write: Write) -> None:
        self._steps, self._write = steps, write

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not (written := self._write(await self._steps.__anext__())):
            pass
        return written


def _file_part(step: Progress | bytes) -> bytes:
    return step if isinstance(step, bytes) else b""


class _Lines:
    """Writes steps as lines; the last one tells what the pieces before it must make up."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._n_bytes = 0

    def write(self, step: Progress | bytes) -> bytes:
        """The line of a step."""
        if isinstance(step, bytes):
            self._hash.update(step)
            self._n_bytes += len(step)
            line = ImatrixLine(status=_WRITING, data=step)
        elif step.status == "success":
            digest = f"sha256:{self._hash.hexdigest()}"
            line = ImatrixLine(status=step.status, digest=digest, total=self._n_bytes)
        else:
            line = ImatrixLine(status=step.status, total=step.total, completed=step.completed)
        return to_json(line) + b"\n"
