"""Helpers for the tests with real child processes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from olm.actors.runtime import (
    Address,
    ChildSpec,
    ProcessOptions,
    RestartPolicy,
    Supervisor,
    open_supervisor,
    process_actor,
)
from runtime.runtime_actors import (
    Config,
)

VICTIM = "runtime.runtime_actors:Victim"
STUBBORN = "runtime.runtime_actors:Stubborn"
POLICY = RestartPolicy(max_restarts=10, period_s=60)


@asynccontextmanager
async def open_victim(
    options: ProcessOptions | None = None, config: Config | None = None
) -> AsyncIterator[tuple[Supervisor, Address]]:
    async with open_supervisor("root", policy=POLICY) as root:
        factory = process_actor(VICTIM, config=config or Config(), options=options)
        yield root, await root.start_child(ChildSpec("victim", factory, "temporary"))


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children_of_this_process() -> list[int]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [pid for pid in map(int, text.split()) if is_alive(pid)]
