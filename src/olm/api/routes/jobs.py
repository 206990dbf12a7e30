"""`/api/create`, `/api/pull` and `/api/push`, and how every job is told: with progress as it goes, or at its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from functools import partial

import attrs
from quart import Quart, Response

from olm.actors.client import Olm
from olm.actors.jobs_client import CreateRequest, Progress, PullRequest
from olm.api import schemas as wire
from olm.api.body import decode
from olm.api.dialects.ollama import create_request, pull_request, push_request
from olm.api.gate import Call
from olm.api.routes.endpoint import add, json_reply
from olm.api.routes.local import check_local
from olm.api.streaming import StreamResponse, progress_json, progress_lines
from olm.errors import InvalidRequest, OlmError

__all__ = ["progress_reply", "register"]


def register(app: Quart, olm: Olm) -> None:
    """Add these routes to the application."""
    routes = _Routes(olm)
    add(app, ("POST",), "/api/create", routes.create)
    add(app, ("POST",), "/api/pull", routes.pull)
    add(app, ("POST",), "/api/push", routes.push)


async def progress_reply(
    call: Call, job: AbstractAsyncContextManager[AsyncIterator[Progress]], stream: bool | None
) -> Response:
    """Run a job: a line for each step of it, or with `stream` false its last step alone."""
    if stream is not False:
        return StreamResponse(call, partial(progress_lines, job))
    last: Progress | None = None
    async with job as steps:
        async for step in steps:
            last = step
    if last is None:
        raise OlmError("the job ended without a word")
    return json_reply(progress_json(last))


@attrs.frozen
class _Routes:
    olm: Olm

    async def create(self, call: Call) -> Response:
        request = decode(call.take_body(), wire.CreateRequest)
        wanted = create_request(request)
        _check_named(wanted)
        if wanted.links:
            check_local(call, "upload the files instead of linking them")
        return await progress_reply(call, self.olm.jobs.create(wanted), request.stream)

    async def pull(self, call: Call) -> Response:
        request = decode(call.take_body(), wire.PullRequest)
        wanted = pull_request(request)
        _check_named(wanted)
        return await progress_reply(call, self.olm.jobs.pull(wanted), request.stream)

    async def push(self, call: Call) -> Response:
        request = decode(call.take_body(), wire.PushRequest)
        wanted = push_request(request)
        if not wanted.model:
            raise InvalidRequest("model is required")
        return await progress_reply(call, self.olm.jobs.push(wanted), request.stream)


def _check_named(wanted: CreateRequest | PullRequest) -> None:
    if not wanted.model:
        raise InvalidRequest("invalid model name")
