"""Pulling from a registry that behaves badly: what arrives, what is said, what is left behind."""

from __future__ import annotations

import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from kit.registry import Fault, Registry, digest_of, open_registry
from olm.actors.download import Pace
from olm.actors.jobs import Jobs
from olm.actors.jobs_client import Progress, PullRequest
from olm.actors.pull import Pulls
from olm.actors.runtime import SupervisorSpec, open_supervisor
from olm.actors.store import Store, store_spec
from olm.errors import DigestMismatch, DiskFull, InvalidName, InvalidRequest, OlmError
from olm.registry.errors import RegistryError
from store.conftest import Shop
from store.gguf_files import model

GGUF = model()
WEIGHTS = GGUF + random.Random(5).randbytes(600_000)
CONFIG = b'{"model_format":"gguf","model_family":"llama"}'
PACE = Pace(
    part_bytes=100_000,
    n_streams=3,
    stall_s=0.5,
    n_tries=6,
    first_wait_s=0.001,
    record_s=0.005,
    progress_s=0.001,
    look_s=0.01,
    small_bytes=1000,
)


@asynccontextmanager
async def open_pulls(root: Path, pace: Pace = PACE) -> AsyncIterator[Shop]:
    async with open_supervisor(children=[store_spec(root), SupervisorSpec("jobs")]) as top:
        store, work = Store(top.address("store"), root), top.supervisor("jobs")
        yield Shop(store, Jobs(work, store, pulls=Pulls(work, store, root.parent, pace)), root)


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with open_registry() as opened:
        opened.add("good", [("model", WEIGHTS), ("system", b"Be brief.")], CONFIG)
        yield opened


@pytest.fixture
async def pulls(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_pulls(tmp_path / "models") as opened:
        yield opened


async def pull(shop: Shop, name: str) -> list[Progress]:
    with trio.fail_after(20):
        async with shop.jobs.pull(PullRequest(name, insecure=True)) as progress:
            return [step async for step in progress]


def leftovers(shop: Shop) -> set[str]:
    return {name for name in shop.blobs() if "partial" in name or name.startswith(".")}


async def test_a_model_is_pulled_byte_for_byte_with_ollamas_statuses(
    pulls: Shop, registry: Registry
) -> None:
    steps = await pull(pulls, registry.name("good"))

    statuses = [step.status for step in steps]
    assert statuses[0] == "pulling manifest"
    assert statuses[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    layer = [step for step in steps if step.digest == digest_of(WEIGHTS)]
    assert {step.status for step in layer} == {f"pulling {digest_of(WEIGHTS)[7:19]}"}
    assert {step.total for step in layer} == {len(WEIGHTS)}
    counts = [step.completed for step in layer]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, len(WEIGHTS))
    name = f"127.0.0.1:{registry.port}/library/good:latest"
    found = await pulls.store.get(name)
    assert found.weights.read_bytes() == WEIGHTS
    assert found.system == "Be brief."
    path = pulls.root / "manifests" / f"127.0.0.1:{registry.port}" / "library/good/latest"
    assert path.read_bytes() == registry.manifests["good"]
    assert leftovers(pulls) == set()


async def test_a_second_pull_fetches_the_manifest_only(pulls: Shop, registry: Registry) -> None:
    await pull(pulls, registry.name("good"))
    registry.log.clear()

    steps = await pull(pulls, registry.name("good"))

    assert registry.blob_log() == []
    assert [step.completed for step in steps if step.digest] == [len(WEIGHTS), 9, len(CONFIG)]


@pytest.mark.parametrize(
    "faults",
    [
        ["reset"],
        ["500", "500"],
        ["429"],
        ["short"],
        ["stall"],
        ["reset", "500", "short", "stall", "429"],
    ],
    ids="-".join,
)
async def test_faults_that_pass_are_passed(
    pulls: Shop, registry: Registry, faults: list[Fault]
) -> None:
    registry.faults.extend(faults)

    steps = await pull(pulls, registry.name("good"))

    assert steps[-1].status == "success"
    assert not registry.faults
    assert leftovers(pulls) == set()


async def test_a_server_without_ranges_is_read_in_one_go_and_resumed(
    pulls: Shop, registry: Registry
) -> None:
    registry.ignores_ranges = True
    registry.faults.extend(["reset", "reset", "reset"])

    steps = await pull(pulls, registry.name("good"))

    assert steps[-1].status == "success"


async def test_redirects_are_followed_without_the_token_and_refreshed(
    pulls: Shop, registry: Registry
) -> None:
    registry.redirects = registry.needs_token = True
    registry.faults.extend(["reset", "expired"])

    steps = await pull(pulls, registry.name("good"))

    assert steps[-1].status == "success"
    assert registry.tokens_for[:2] == ["a", "b"]
    key = pulls.root.parent / "id_ed25519"
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.with_suffix(".pub").read_text().startswith("ssh-ed25519 ")


async def test_errors_that_stay_end_the_pull_and_keep_the_bytes(
    pulls: Shop, registry: Registry
) -> None:
    registry.gate = trio.Event()

    async def break_down() -> None:
        await registry.waiting.wait()
        registry.faults.extend(["500"] * 100)
        registry.gate.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(break_down)
        with pytest.raises(RegistryError, match="max retries exceeded: 500: go away"):
            await pull(pulls, registry.name("good"))
    registry.faults.clear()
    assert any(name.endswith("-partial-0") for name in pulls.blobs())
    steps = await pull(pulls, registry.name("good"))

    assert steps[-1].status == "success"
    assert leftovers(pulls) == set()


async def test_wrong_bytes_are_refused_and_removed(pulls: Shop, registry: Registry) -> None:
    wrong = WEIGHTS[:-1] + b"?" if WEIGHTS[-1:] != b"?" else WEIGHTS[:-1] + b"!"
    registry.blobs[digest_of(WEIGHTS)] = wrong

    with pytest.raises(DigestMismatch) as failed:
        await pull(pulls, registry.name("good"))

    model = f"127.0.0.1:{registry.port}/library/good:latest"
    assert str(failed.value) == (
        "digest mismatch, file must be downloaded again: "
        f"want {digest_of(WEIGHTS)}, got {digest_of(wrong)} ({model}, {digest_of(WEIGHTS)[7:19]})"
    )
    assert not any(digest_of(WEIGHTS)[7:] in name for name in pulls.blobs())
    assert [entry.name for entry in await pulls.store.list()] == ["tiny:latest"]


async def test_unknown_models_and_bad_names_have_ollamas_words(
    pulls: Shop, registry: Registry
) -> None:
    with pytest.raises(RegistryError, match=r"^pull model manifest: file does not exist$"):
        await pull(pulls, registry.name("nope"))
    with pytest.raises(InvalidRequest, match=r"^insecure protocol http$"):
        async with pulls.jobs.pull(PullRequest(registry.name("good"))):
            pass
    with pytest.raises(InvalidName, match="invalid model name"):
        await pull(pulls, "a b")


async def test_manifests_that_are_none_are_refused(pulls: Shop, registry: Registry) -> None:
    registry.manifests["odd"] = b'{"config":{"digest":"sha256:../../x"}}'

    with pytest.raises(RegistryError, match="the registry's answer is no manifest"):
        await pull(pulls, registry.name("odd"))


async def test_what_cannot_fit_is_refused_before_anything_is_fetched(
    pulls: Shop, registry: Registry
) -> None:
    manifest = registry.add("vast", [("model", b"x")])
    registry.manifests["vast"] = manifest.replace(b'"size": 1}', b'"size": 9000000000000000}')

    with pytest.raises(DiskFull, match=r"9000 TB needed, .* free \(127.0.0.1.*/vast:latest\)$"):
        await pull(pulls, registry.name("vast"))

    assert registry.blob_log() == []


async def test_a_killed_download_goes_on_where_its_record_ends(
    registry: Registry, tmp_path: Path
) -> None:
    """The folder as a kill -9 would leave it is one copied in the middle: the record is written before anything ends."""
    registry.gate = trio.Event()
    killed, part = tmp_path / "b" / "models", PACE.part_bytes
    async with open_pulls(tmp_path / "a" / "models") as shop, trio.open_nursery() as nursery:
        nursery.start_soon(pull, shop, registry.name("good"))
        await registry.waiting.wait()
        registry.gate.set()
        record = shop.root / "blobs" / f"{digest_of(WEIGHTS).replace(':', '-')}-partial-0"
        registry.gate = trio.Event()
        with trio.fail_after(10):
            while not record.exists():
                await trio.sleep(0.002)
        shutil.copytree(shop.root, killed)
        nursery.cancel_scope.cancel()
    registry.gate = None
    registry.log.clear()

    async with open_pulls(killed) as shop:
        steps = await pull(shop, registry.name("good"))

    spans = [span for path, span in registry.blob_log() if digest_of(WEIGHTS) in path]
    fetched = [int(end) - int(start) + 1 for start, end in (s[6:].split("-") for s in spans)]
    first = next(s for s in steps if s.digest == digest_of(WEIGHTS) and s.completed)
    assert steps[-1].status == "success"
    assert first.completed >= part
    assert sum(fetched) == len(WEIGHTS) - first.completed


async def test_two_who_want_the_same_blob_share_one_download(
    pulls: Shop, registry: Registry
) -> None:
    registry.add("twin", [("model", WEIGHTS)], CONFIG)
    registry.gate = trio.Event()
    done: list[Progress] = []

    async def one(name: str) -> None:
        done.append((await pull(pulls, registry.name(name)))[-1])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, "good")
        nursery.start_soon(one, "twin")
        await registry.waiting.wait()
        registry.gate.set()

    asked = [span for path, span in registry.blob_log() if digest_of(WEIGHTS) in path]
    assert [step.status for step in done] == ["success", "success"]
    assert len(asked) == len(set(asked)) == -(-len(WEIGHTS) // PACE.part_bytes)


async def test_leaving_ends_the_download_unless_somebody_else_waits(
    pulls: Shop, registry: Registry
) -> None:
    registry.gate = trio.Event()
    statuses: list[str] = []

    async def stay() -> None:
        statuses.append((await pull(pulls, registry.name("good")))[-1].status)

    async with trio.open_nursery() as nursery:
        async with pulls.jobs.pull(PullRequest(registry.name("good"), insecure=True)) as progress:
            async for step in progress:
                if step.digest == digest_of(WEIGHTS):
                    break
            await registry.waiting.wait()
            nursery.start_soon(stay)
            await trio.sleep(0.05)
        registry.gate.set()

    assert statuses == ["success"]


async def test_a_pull_that_is_left_leaves_no_name_and_no_task(
    pulls: Shop, registry: Registry
) -> None:
    registry.gate = trio.Event()

    async with pulls.jobs.pull(PullRequest(registry.name("good"), insecure=True)) as progress:
        async for _ in progress:
            if registry.waiting.is_set():
                break

    assert [entry.name for entry in await pulls.store.list()] == ["tiny:latest"]
    assert pulls.jobs.supervisor.tree().children == ()


async def test_nobody_listening_is_one_line(pulls: Shop) -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    await listener.aclose()

    with pytest.raises(
        OlmError,
        match=rf"^pull model manifest: GET http://127.0.0.1:{port}/v2/.*: connection refused \(.*x:latest\)$",
    ):
        await pull(pulls, f"http://127.0.0.1:{port}/library/x")
