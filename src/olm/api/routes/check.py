"""`/api/store/check`: a look through the whole store, told line by line or as one list."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import attrs
import msgspec
from quart import Quart, Response

from olm.actors.client import Olm
from olm.actors.jobs_client import CheckRequest, Finding, Progress
from olm.api.body import decode
from olm.api.encoding import to_json
from olm.api.gate import Call
from olm.api.routes.endpoint import add, json_reply
from olm.api.streaming import StreamResponse, progress_json

__all__ = ["CheckAnswer", "CheckBody", "CheckLine", "FoundObject", "register"]


class CheckBody(msgspec.Struct, frozen=True, kw_only=True):
    """`repair` mends what can be mended; `quick` reads no weights."""

    repair: bool | None = None
    quick: bool | None = None
    stream: bool | None = None


class FoundObject(msgspec.Struct, frozen=True, kw_only=True):
    """Something wrong in the store, or in the way.

    `kind`: `damaged`, `missing`, `manifest`, `link` (a model does not work), `orphan`, `partial`, `stray` (only takes room).
    `what`: the blob's digest, the model's name or the file's. `size`: bytes. `repaired`: it is in order now.
    """

    kind: str
    what: str
    detail: str
    models: tuple[str, ...] = ()
    size: int = 0
    repaired: bool = False


class CheckLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of the stream: how far it is, in bytes, or what was found."""

    status: str
    total: int = 0
    completed: int = 0
    finding: FoundObject | None = None


class CheckAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer without a stream."""

    status: str
    findings: list[FoundObject]


def register(app: Quart, olm: Olm) -> None:
    """Add the route to the application."""
    add(app, ("POST",), "/api/store/check", _Routes(olm).check)


@attrs.frozen
class _Routes:
    olm: Olm

    async def check(self, call: Call) -> Response:
        body = decode(call.take_body(), CheckBody)
        request = CheckRequest(repair=body.repair is True, quick=body.quick is True)
        job = self.olm.jobs.check(request)
        if body.stream is not False:
            return StreamResponse(call, partial(_lines, job))
        findings: list[FoundObject] = []
        status = ""
        async with job as steps:
            async for step in steps:
                if isinstance(step, Finding):
                    findings.append(_found(step))
                else:
                    status = step.status
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
        step = await self._steps.__anext__()
        if isinstance(step, Progress):
            return progress_json(step) + b"\n"
        line = CheckLine(status=f"found {step.kind} {step.what}", finding=_found(step))
        return to_json(line) + b"\n"


def _found(finding: Finding) -> FoundObject:
    return FoundObject(
        kind=finding.kind,
        what=finding.what,
        detail=finding.detail,
        models=tuple(finding.models),
        size=finding.size_bytes,
        repaired=finding.is_repaired,
    )
