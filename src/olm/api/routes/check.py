"""`/api/store/check`: a look through the whole store, told line by line or as one list."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import attrs
from quart import Quart, Response

from olm.actors.client import Olm
from olm.actors.jobs_client import CheckRequest, Finding, Progress
from olm.api.body import decode
from olm.api.encoding import to_json
from olm.api.gate import Call
from olm.api.routes.endpoint import add, json_reply
from olm.api.schemas_check import CheckAnswer, CheckBody, FoundObject, line_of
from olm.api.streaming import StreamResponse

__all__ = ["register"]


def register(app: Quart, olm: Olm) -> None:
    """Add the route to the application."""
    add(app, ("POST",), "/api/store/check", _Routes(olm).check)


@attrs.frozen
class _Routes:
    olm: Olm

    async def check(self, call: Call) -> Response:
        body = decode(call.take_body(), CheckBody)
        job = self.olm.jobs.check(
            CheckRequest(repair=body.repair is True, quick=body.quick is True)
        )
        if body.stream is not False:
            return StreamResponse(call, partial(_lines, job))
        findings: list[FoundObject] = []
        status = ""
        async with job as steps:
            async for step in steps:
                line = line_of(step)
                status = line.status
                findings += [line.finding] if line.finding is not None else []
        return json_reply(to_json(CheckAnswer(status=status, findings=findings)))


@asynccontextmanager
async def _lines(
    job: AbstractAsyncContextManager[AsyncIterator[Progress | Finding]],
) -> AsyncIterator[AsyncIterator[bytes]]:
    async with job as steps:
        yield _Lines(steps)


class _Lines:
    """The lines of a check. No generator: a client that leaves would leave it open."""

    def __init__(self, steps: AsyncIterator[Progress | Finding]) -> None:
        self._steps = steps

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return to_json(line_of(await self._steps.__anext__())) + b"\n"
