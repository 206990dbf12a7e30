"""`/api/create`: a job with progress, streamed or told at its end."""

from __future__ import annotations

from functools import partial

import attrs
from quart import Quart, Response

from olm.actors.client import Olm
from olm.actors.jobs_client import Progress
from olm.api import schemas as wire
from olm.api.body import decode
from olm.api.dialects.ollama import create_request
from olm.api.gate import Call
from olm.api.routes.endpoint import add, json_reply
from olm.api.streaming import StreamResponse, progress_json, progress_lines
from olm.errors import InvalidRequest, OlmError

__all__ = ["register"]


def register(app: Quart, olm: Olm) -> None:
    """Add these routes to the application."""
    add(app, ("POST",), "/api/create", _Routes(olm).create)


@attrs.frozen
class _Routes:
    olm: Olm

    async def create(self, call: Call) -> Response:
        request = decode(call.take_body(), wire.CreateRequest)
        wanted = create_request(request)
        if not wanted.model:
            raise InvalidRequest("invalid model name")
        job = self.olm.jobs.create(wanted)
        if request.stream is not False:
            return StreamResponse(call, partial(progress_lines, job))
        last: Progress | None = None
        async with job as steps:
            async for step in steps:
                last = step
        if last is None:
            raise OlmError("the job ended without a word")
        return json_reply(progress_json(last))
