"""A program that pulls one model into a folder, for tests that kill it: `pull_process.py FOLDER NAME`."""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from olm.actors.jobs import Jobs
from olm.actors.jobs_client import PullRequest
from olm.actors.parts import Pace
from olm.actors.pull import Pulls
from olm.actors.runtime import SupervisorSpec, open_supervisor
from olm.actors.store import Store, store_spec


async def main(root: Path, name: str) -> None:
    pace = Pace(part_bytes=100_000, record_s=0.005, small_bytes=1000)
    async with open_supervisor(children=[store_spec(root), SupervisorSpec("jobs")]) as top:
        store, work = Store(top.address("store"), root), top.supervisor("jobs")
        jobs = Jobs(work, store, pulls=Pulls(work, store, root.parent, pace))
        async with jobs.pull(PullRequest(name, insecure=True)) as progress:
            async for _ in progress:
                pass


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), sys.argv[2])
