"""`/api/export` and `/api/import`: models as archives, by a path on this machine or through the connection.

An archive in a request's body does not come here: `olm.api.archives` takes it before Quart would collect it.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import attrs
import msgspec
from hypercorn.typing import ASGISendCallable
from quart import Quart, Response

from olm.actors.client import Olm
from olm.actors.jobs_client import ExportRequest, ImportRequest
from olm.api.body import decode
from olm.api.gate import Call
from olm.api.routes.endpoint import add
from olm.api.routes.jobs import progress_reply
from olm.api.routes.local import check_local
from olm.api.streaming import Framing, StreamResponse
from olm.errors import InvalidRequest, OlmError
from olm.log import get_logger

__all__ = ["BytesResponse", "ExportBody", "ImportBody", "register"]

_TAR: Final = b"application/x-tar"
_ZSTD: Final = b"application/zstd"
_log = get_logger("export")


class ExportBody(msgspec.Struct, frozen=True, kw_only=True):
    """Without `path` the answer is the archive. `path` is a file, or a folder when it ends in a slash or is one."""

    models: list[str] | None = None
    model: str | None = None
    path: str | None = None
    compress: bool | None = None
    stream: bool | None = None


class ImportBody(msgspec.Struct, frozen=True, kw_only=True):
    """`name` calls the model of an archive that has only one."""

    path: str | None = None
    name: str | None = None
    stream: bool | None = None


def register(app: Quart, olm: Olm) -> None:
    """Add these routes to the application."""
    routes = _Routes(olm)
    add(app, ("POST",), "/api/export", routes.export)
    add(app, ("POST",), "/api/import", routes.import_)


@attrs.frozen
class _Routes:
    olm: Olm

    async def export(self, call: Call) -> Response:
        body = decode(call.take_body(), ExportBody)
        models = [*(body.models or ()), *([body.model] if body.model else ())]
        request = ExportRequest(models=models, path=body.path or "", compress=body.compress is True)
        if not request.path:
            framing = Framing(_ZSTD if request.compress else _TAR, lambda _error, _id: b"")
            return BytesResponse(call, partial(self.olm.jobs.export_stream, request), framing)
        check_local(call, "send or take the archive itself instead")
        return await progress_reply(call, self.olm.jobs.export(request), body.stream)

    async def import_(self, call: Call) -> Response:
        body = decode(call.take_body(), ImportBody)
        if not body.path:
            raise InvalidRequest("path is required, or an archive as application/x-tar in the body")
        check_local(call, "send or take the archive itself instead")
        request = ImportRequest(path=body.path, name=body.name or "")
        return await progress_reply(call, self.olm.jobs.import_(request), body.stream)


class BytesResponse(StreamResponse):
    """A file as it is made. An error in its middle breaks the connection off, so that nobody takes it for whole."""

    async def _fail(self, send: ASGISendCallable, error: OlmError) -> None:
        if not self._started:
            await super()._fail(send, error)
            return
        _log.error("an answer was cut off: %s id=%s", error, self._call.id)
