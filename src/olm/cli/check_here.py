"""A look through the store without a server: the check job of the server, run in this process over the folder itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import trio

from olm.actors.jobs import Jobs
from olm.actors.jobs_client import CheckRequest
from olm.actors.runtime import SupervisorSpec, open_supervisor
from olm.actors.store import Store, store_spec
from olm.api.schemas_check import line_of
from olm.cli.wire import Json
from olm.errors import OlmError, StoreError, StoreLocked, first_error

__all__ = ["check_here"]


def check_here(root: Path, request: CheckRequest, take: Callable[[Json], None]) -> str:
    """Check the store at `root`, giving each line of the check to `take`.

    Looking needs no lock, so a store that somebody has, or that cannot be written, is looked at all the same.

    Returns:
        what is to be said about that; empty when the store was ours.

    Raises:
        StoreLocked, StoreError: it was to be repaired, or cannot be read.
    """
    try:
        _run(root, request, take, locked=True)
    except StoreError as exc:
        if request.repair:
            raise
        note = str(exc)
        if isinstance(exc, StoreLocked):
            note += ", and does not answer here: what it is changing may be told wrongly"
    else:
        return ""
    _run(root, request, take, locked=False)
    return note


def _run(root: Path, request: CheckRequest, take: Callable[[Json], None], *, locked: bool) -> None:
    spec = store_spec(root, as_it_is="locked" if locked else "unlocked")

    async def check() -> None:
        async with open_supervisor(children=[spec, SupervisorSpec("jobs")]) as top:
            jobs = Jobs(top.supervisor("jobs"), Store(top.address("store"), root))
            async with jobs.check(request) as steps:
                async for step in steps:
                    take(msgspec.to_builtins(line_of(step)))

    try:
        trio.run(check)
    except* KeyboardInterrupt as group:
        raise KeyboardInterrupt from group
    except* OlmError as group:
        error = first_error(group)
        assert error is not None, "the group has nothing else"
        raise type(error)(error.message) from group
