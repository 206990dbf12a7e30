"""Creating from a model that is not in the store: it is pulled as the job's first step."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import attrs
import pytest
import trio

from kit.registry import Registry, open_registry
from olm.actors.jobs import Jobs
from olm.actors.jobs_client import CreateRequest, Progress, PullRequest
from olm.actors.pull import Pulls
from olm.actors.runtime import SupervisorSpec, open_supervisor
from olm.actors.store import Store, store_spec
from olm.registry.errors import RegistryError
from store.conftest import Shop
from store.gguf_files import model

CONFIG = b'{"model_format":"gguf","model_family":"llama"}'


class _Insecure(Pulls):
    """Pulls without TLS: the registry of the tests has none, and a create has no word for it."""

    def pull(self, request: PullRequest) -> AbstractAsyncContextManager[AsyncIterator[Progress]]:
        return super().pull(attrs.evolve(request, insecure=True))


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with open_registry() as opened:
        opened.add("base", [("model", model()), ("system", b"Be brief.")], CONFIG)
        yield opened


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    root = tmp_path / "models"
    async with open_supervisor(children=[store_spec(root), SupervisorSpec("jobs")]) as top:
        store, work = Store(top.address("store"), root), top.supervisor("jobs")
        yield Shop(store, Jobs(work, store, pulls=_Insecure(work, store, tmp_path)), root)


async def test_the_statuses_of_the_pull_come_first_and_success_once(
    shop: Shop, registry: Registry
) -> None:
    with trio.fail_after(20):
        statuses = await shop.create(
            model="m", from_=registry.name("base"), parameters={"top_k": 3}
        )

    child = await shop.store.get("m")
    assert statuses[0] == "pulling manifest"
    assert statuses.index("verifying sha256 digest") < statuses.index("success")
    assert statuses.count("writing manifest") == 2
    assert statuses.count("success") == 1
    assert (child.system, child.parameters) == ("Be brief.", {"top_k": 3})
    assert (await shop.store.get(registry.name("base"))).system == "Be brief."


async def test_what_no_registry_has_is_its_error(shop: Shop, registry: Registry) -> None:
    with pytest.raises(RegistryError, match=r"pull model manifest: file does not exist"):
        await shop.create(model="m", from_=registry.name("nope"))

    assert [item.name for item in await shop.store.list()] == ["tiny:latest"]
    assert not shop.jobs.supervisor.tree().children


async def test_leaving_ends_the_pull_too(shop: Shop, registry: Registry) -> None:
    request = CreateRequest(model="m", from_=registry.name("base"))
    with trio.fail_after(20):
        async with shop.jobs.create(request) as steps:
            assert (await anext(aiter(steps))).status == "pulling manifest"

    assert not shop.jobs.supervisor.tree().children
    assert "m:latest" not in [item.name for item in await shop.store.list()]
