"""A store that may only be read, such as another user's: its models are served, and what would change it says why it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from olm.store.library import Library

SCRIPT = """
import os, sys
from pathlib import Path
import trio
import olm.actors.check, olm.actors.jobs, olm.gguf
from olm.actors.jobs import Jobs
from olm.actors.jobs_client import CheckRequest, CreateRequest, Finding
from olm.actors.runtime import SupervisorSpec, open_supervisor
from olm.actors.store import Store, store_spec
from olm.errors import OlmError

from olm.store.library import Library

root = Path(sys.argv[1])
seen = Library.look(root)  # imports what is imported late, from where nobody may not go
seen.list(), seen.get("tiny")
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)

async def tried(what, *args):
    try:
        await what(*args)
    except OlmError as exc:
        print(exc)

async def create(jobs):
    async with jobs.create(CreateRequest(model="x", from_="tiny", system="new")) as steps:
        async for _ in steps:
            pass

async def main():
    async with open_supervisor(children=[store_spec(root), SupervisorSpec("jobs")]) as top:
        store = Store(top.address("store"), root)
        jobs = Jobs(top.supervisor("jobs"), store)
        print(*[m.name for m in await store.list()])
        print((await store.get("TINY")).weights.stat().st_size > 0)
        await tried(store.copy, "tiny", "x")
        await tried(store.delete, "tiny")
        await tried(create, jobs)
        async with jobs.check(CheckRequest()) as steps:
            print([s for s in [s async for s in steps] if isinstance(s, Finding)])

trio.run(main)
"""


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "models"
    Library.open(root).close()
    for path in (root, *root.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for path in root.parents:  # so that nobody can reach it
        if path.stat().st_uid == os.getuid() and path.is_relative_to("/tmp"):
            path.chmod(path.stat().st_mode | 0o055)
    yield root
    for path in (root, *root.rglob("*")):
        path.chmod(0o755)


@pytest.mark.slow
def test_models_are_served_and_changes_say_why_not(closed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in closed.rglob("*")}

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(closed)], capture_output=True, text=True, check=False
    )

    assert done.stdout.splitlines() == [
        "tiny:latest",
        "True",
        "cannot write the manifest of x:latest: permission denied",
        "cannot write to the model store: permission denied",
        "cannot write to the model store: permission denied",
        "[]",
    ], done.stderr
    assert "its models can be run, and nothing can be pulled or made" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in closed.rglob("*")} == before
