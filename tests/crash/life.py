"""One life of a daemon, in a process of its own: it opens the store, does what the script says, and may be killed any time.

Notes in the journal say what was begun, done and failed. Also here: what is done after a crash, without any fault.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from crash.ledger import Operation
from crash.script import Fault, Life
from crash.shim import Shim
from crash.world import open_shop, upload, weights
from olm.actors.jobs_client import (
    CheckRequest,
    ExportRequest,
    Finding,
    ImportRequest,
    Progress,
    PullRequest,
    PushRequest,
)
from olm.errors import OlmError, first_error
from store.conftest import Shop

__all__ = ["BROKEN", "live", "perform"]

_OPERATION_S = 30.0
BROKEN = ("damaged", "missing", "manifest", "link")
"""What `olm doctor` must never find."""


async def _do(shop: Shop, base: Path, operation: Operation) -> list[Progress]:
    """Do it; gives the progress of a pull. Raises OlmError."""
    match operation.kind:
        case "pull":
            async with shop.jobs.pull(PullRequest(operation.models[0], insecure=True)) as steps:
                return [step async for step in steps]
        case "create" | "link" | "upload":
            await _make(shop, operation)
        case "push":
            await shop.store.copy(operation.source, operation.models[0])
            async with shop.jobs.push(PushRequest(operation.models[0], insecure=True)) as steps:
                async for _ in steps:
                    pass
        case "copy":
            await shop.store.copy(operation.source, operation.models[0])
        case "delete":
            await shop.store.delete(operation.models[0])
        case "export":
            await _export(shop, base / operation.path, operation.models)
        case "import":
            await _import(shop, operation)
        case "check":
            await _check(shop)
        case "list":
            await shop.store.list()
            await shop.store.show(operation.source)
    return []


async def _make(shop: Shop, operation: Operation) -> None:
    name, mark = operation.models[0], operation.marks[0]
    if operation.kind == "create":
        await shop.store.get(operation.source)  # else it would be asked of a registry
        options = {"temperature": operation.number / 10}
        await shop.create(model=name, from_=operation.source, system=mark, parameters=options)
    elif operation.kind == "link":
        await shop.create(model=name, links={"model.gguf": str(operation.path)}, system=mark)
    else:
        data = weights(operation.seed, operation.seed % 1_200_000)
        await upload(shop, name, data, mark)


async def _export(shop: Shop, path: Path, models: Sequence[str]) -> None:
    text = f"{path}/" if path.suffix == ".d" else str(path)
    request = ExportRequest(models=models, path=text, compress=path.suffix == ".zst")
    async with shop.jobs.export(request) as steps:
        async for _ in steps:
            pass


class _Bytes:
    """An archive as the body of a request."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    async def next(self) -> bytes:
        await trio.lowlevel.checkpoint()
        start, self._at = self._at, self._at + 65_536
        return self._data[start : self._at]


async def _import(shop: Shop, operation: Operation) -> None:
    path = operation.path
    if operation.is_stream and path.is_file():
        request = ImportRequest(source=_Bytes(path.read_bytes()))
    else:
        request = ImportRequest(path=str(path))
    async with shop.jobs.import_(request) as steps:
        async for _ in steps:
            pass


async def _check(shop: Shop) -> None:
    """Repair what is broken: nothing may be."""
    async with shop.jobs.check(CheckRequest(repair=True)) as found:
        async for item in found:
            if isinstance(item, Finding) and item.kind in BROKEN:
                raise AssertionError(f"found broken: {item}")


async def perform(
    shop: Shop, base: Path, operation: Operation, note: Callable[[str], None]
) -> list[Progress] | None:
    """Do an operation and note how it went, its traceback when that was no OlmError; None when it failed."""
    note(f"begin {operation.number}")
    try:
        with trio.fail_after(_OPERATION_S):
            steps = await _do(shop, base, operation)
    except (Exception, BaseExceptionGroup) as exc:
        note(f"failed {operation.number} {_told(exc)}")
        return None
    note(f"done {operation.number}")
    return steps


def _told(exc: BaseException) -> str:
    """An OlmError's name and message; anything else is a defect, with where it came from."""
    if isinstance(exc, trio.TooSlowError):
        return f"DEFECT it was not over after {_OPERATION_S:g} s"
    if isinstance(exc, OlmError):
        return f"{type(exc).__name__} {exc.message}"
    return f"DEFECT {''.join(traceback.format_exception(exc))}"


# -- a life ----------------------------------------------------------------------------------------------------------


def _sections(operations: Sequence[Operation]) -> list[list[Operation]]:
    """Each begins with opening the store."""
    sections: list[list[Operation]] = []
    for operation in operations:
        if operation.kind == "restart":
            sections.append([])
        sections[-1].append(operation)
    return sections


async def live(base: Path, life: Life, shim: Shim) -> None:
    """Live, with a store at `base/home/models`. Ends as the life says: by death, or by returning."""
    daemon = _Daemon(base, life, shim)
    sections = _sections(life.operations)
    for number, section in enumerate(sections):
        await daemon.section(section, is_last=number == len(sections) - 1)
    if not life.ends_well:
        os.kill(os.getpid(), signal.SIGKILL)


class _Daemon:
    """Goes through the operations of a life."""

    def __init__(self, base: Path, life: Life, shim: Shim) -> None:
        self._base = base
        self._life = life
        self._shim = shim
        self._failed: list[Operation] = []

    async def section(self, section: Sequence[Operation], *, is_last: bool) -> None:
        """Open the store, do what follows, close it. A store that does not open is tried once more."""
        opening, *rest = section
        for _ in range(2):
            self._about_to(opening)
            self._shim.note(f"begin {opening.number}")
            is_open = False
            try:
                async with open_shop(self._base / "home/models") as shop:
                    is_open = True
                    self._shim.note(f"done {opening.number}")
                    await self._all(shop, rest)
                    if is_last and self._life.tries_again:
                        await self._try_again(shop)
            except BaseExceptionGroup as group:
                error = None if is_open else first_error(group)
                self._shim.note(f"failed {opening.number} {_told(error or group)}")
            if is_open:
                return

    async def _all(self, shop: Shop, operations: Sequence[Operation]) -> None:
        waiting = list(operations)
        while waiting:
            group = [waiting.pop(0)]
            while waiting and waiting[0].is_beside:
                group.append(waiting.pop(0))
            async with trio.open_nursery() as nursery:
                for operation in group:
                    self._about_to(operation)
                    nursery.start_soon(self._one, shop, operation)

    async def _one(self, shop: Shop, operation: Operation) -> None:
        if await perform(shop, self._base, operation, self._shim.note) is None:
            self._failed.append(operation)

    async def _try_again(self, shop: Shop) -> None:
        disarm(self._shim)
        for operation in self._failed:
            await perform(shop, self._base, operation, self._shim.note)

    def _about_to(self, operation: Operation) -> None:
        if operation is self._life.operations[self._life.fault.at]:
            arm(self._shim, self._life.fault)


def arm(shim: Shim, fault: Fault) -> None:
    """Let it go wrong from here on."""
    shim.note(f"armed {fault.name}")
    if fault.kills:
        shim.kill_at(fault.step, fault.moment)
    if fault.name == "short":
        shim.cut_writes(fault.seed)
    if fault.name in ("eio", "enospc"):
        shim.fail_at(fault.step, fault.n_errors, fault.error)
    if fault.name == "full":
        shim.leave_room(fault.room_bytes, tells=fault.tells)


def disarm(shim: Shim) -> None:
    """Let nothing go wrong any more."""
    shim.kill_at(0, "before")
    shim.fail_at(0, 0, 0)
    shim.leave_room(-1, tells=False)
