"""Stores in temporary folders, and the store actor with its job supervisor over one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest

from olm.actors.jobs import Jobs
from olm.actors.jobs_client import CreateRequest, Progress, PullRequest
from olm.actors.pull import Pulls
from olm.actors.runtime import SupervisorSpec, open_supervisor
from olm.actors.store import Store, store_spec
from olm.errors import ModelNotFound
from olm.store.library import Library


@attrs.frozen
class Shop:
    """A running store: clients as routes have them, and the folder to look behind them."""

    store: Store
    jobs: Jobs
    root: Path

    async def upload(self, data: bytes) -> str:
        """Put a blob in as the API does; returns its digest."""
        from olm.store.names import Digest

        digest = str(Digest.of(data))
        async with self.store.open_blob_writer(digest) as writer:
            await writer.write(data)
            await writer.commit()
        return digest

    async def create(self, **fields: object) -> list[str]:
        """Create a model; returns the statuses."""
        async with self.jobs.create(CreateRequest(**fields)) as progress:  # type: ignore[arg-type]
            return [item.status async for item in progress if isinstance(item, Progress)]

    def blobs(self) -> set[str]:
        """The names of all files in `blobs/`."""
        return {path.name for path in (self.root / "blobs").iterdir()}


class _Offline(Pulls):
    """Pulls that find nothing: a test that names a model which is not there must not ask the world for it."""

    @asynccontextmanager
    async def pull(self, request: PullRequest) -> AsyncIterator[AsyncIterator[Progress]]:
        raise ModelNotFound(f"model '{request.model}' is in no registry of this test")
        yield  # what makes it a generator


@asynccontextmanager
async def open_shop(root: Path, *, noprune: bool = False) -> AsyncIterator[Shop]:
    async with open_supervisor(
        children=[store_spec(root, noprune=noprune), SupervisorSpec("jobs")]
    ) as top:
        store = Store(top.address("store"), root)
        work = top.supervisor("jobs")
        yield Shop(store, Jobs(work, store, pulls=_Offline(work, store, root.parent)), root)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path / "models") as opened:
        yield opened


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Shop]:
    """A second store, without any model."""
    async with open_shop(tmp_path / "other") as opened:
        for model in await opened.store.list():
            await opened.store.delete(model.name)
        yield opened


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    opened = Library.open(tmp_path / "models", builtin=False)
    yield opened
    opened.close()
