"""Pulls in trouble: a full disk, a kill, other jobs on the same blobs; and limits on their rate."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from kit.registry import Registry, digest_of, open_registry
from olm.actors.jobs_client import Progress, PullRequest
from olm.errors import DiskFull
from store.conftest import Shop
from store.gguf_files import model
from store.test_pull import CONFIG, PACE, WEIGHTS, leftovers, open_pulls, pull

PROGRAM = Path(__file__).with_name("pull_process.py")
OTHER = model() + random.Random(6).randbytes(300_000)


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with open_registry() as opened:
        opened.add("good", [("model", WEIGHTS), ("system", b"Be brief.")], CONFIG)
        yield opened


@pytest.fixture
async def pulls(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_pulls(tmp_path / "models") as opened:
        yield opened


def partial_of(shop: Shop, data: bytes) -> Path:
    return shop.root / "blobs" / f"{digest_of(data).replace(':', '-')}-partial"


# -- the disk -------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with room for the store and a little more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_a_disk_that_fills_up_says_what_is_needed_and_the_next_pull_goes_on(
    registry: Registry, small_disk: Path
) -> None:
    registry.gate = trio.Event()
    ballast = small_disk / "ballast"

    async def fill() -> None:
        await registry.waiting.wait()
        status = os.statvfs(small_disk)
        ballast.write_bytes(bytes(status.f_bavail * status.f_frsize - 280_000))
        assert registry.gate is not None
        registry.gate.set()

    async with open_pulls(small_disk / "models") as shop:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fill)
            with pytest.raises(DiskFull) as failed:
                await pull(shop, registry.name("good"))
        held = partial_of(shop, WEIGHTS).with_name(partial_of(shop, WEIGHTS).name + "-0")
        has_record = held.exists()
        ballast.unlink()
        registry.log.clear()
        steps = await pull(shop, registry.name("good"))

    message = str(failed.value)
    assert message.startswith("no space left on device: ")
    assert " needed, " in message
    assert "what was downloaded is kept" in message
    assert message.endswith(f"/library/good:latest, {digest_of(WEIGHTS)[7:19]})")
    assert "\n" not in message
    assert has_record
    assert steps[-1].status == "success"
    fetched = [span for path, span in registry.blob_log() if digest_of(WEIGHTS) in path]
    assert 0 < sum(n_bytes(span) for span in fetched) < len(WEIGHTS)


def n_bytes(span: str) -> int:
    first, _, last = span.removeprefix("bytes=").partition("-")
    return int(last) - int(first) + 1


# -- kill -9 --------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_pull_killed_in_its_middle_goes_on_from_its_record(
    registry: Registry, tmp_path: Path
) -> None:
    registry.gate = trio.Event()
    root = tmp_path / "models"
    record = root / "blobs" / f"{digest_of(WEIGHTS).replace(':', '-')}-partial-0"
    process = await trio.lowlevel.open_process(
        [sys.executable, str(PROGRAM), str(root), registry.name("good")]
    )
    with trio.fail_after(20):
        await registry.waiting.wait()
        registry.gate.set()
        registry.gate = trio.Event()  # the parts that follow are still held up
        while not record.exists():
            await trio.sleep(0.01)
        process.kill()
        await process.wait()
    registry.gate = None
    registry.log.clear()

    async with open_pulls(root) as shop:
        assert [entry.name for entry in await shop.store.list()] == ["tiny:latest"]
        steps = await pull(shop, registry.name("good"))
        found = await shop.store.get(registry.name("good").removeprefix("http://"))

        fetched = [span for path, span in registry.blob_log() if digest_of(WEIGHTS) in path]
        assert steps[-1].status == "success"
        assert sum(n_bytes(span) for span in fetched) < len(WEIGHTS)
        assert found.weights.read_bytes() == WEIGHTS
        assert leftovers(shop) == set()


# -- others on the same blobs ---------------------------------------------------------------------------


async def test_models_that_overlap_are_pulled_at_once_and_share_what_they_have_in_common(
    pulls: Shop, registry: Registry
) -> None:
    registry.add("left", [("model", WEIGHTS), ("license", b"L" * 5000)], CONFIG)
    registry.add("right", [("model", OTHER), ("license", b"L" * 5000)], CONFIG)
    registry.gate = trio.Event()
    done: list[Progress] = []

    async def one(name: str) -> None:
        done.append((await pull(pulls, registry.name(name)))[-1])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, "left")
        nursery.start_soon(one, "right")
        await registry.waiting.wait()
        registry.gate.set()

    licences = [path for path, _ in registry.blob_log() if digest_of(b"L" * 5000) in path]
    assert [step.status for step in done] == ["success", "success"]
    assert len(licences) == 1
    assert leftovers(pulls) == set()


async def test_the_last_to_leave_ends_the_download_and_its_bytes_are_kept(
    pulls: Shop, registry: Registry
) -> None:
    registry.gate = trio.Event()

    async with pulls.jobs.pull(PullRequest(registry.name("good"), insecure=True)) as progress:
        await registry.waiting.wait()
        registry.gate.set()
        registry.gate = trio.Event()
        async for step in progress:
            if step.digest == digest_of(WEIGHTS) and step.completed >= PACE.part_bytes:
                break
    registry.gate = None
    registry.log.clear()
    steps = await pull(pulls, registry.name("good"))

    first = next(step for step in steps if step.digest == digest_of(WEIGHTS))
    assert first.completed >= PACE.part_bytes, "what is there counts from the beginning"
    fetched = [span for path, span in registry.blob_log() if digest_of(WEIGHTS) in path]
    assert sum(n_bytes(span) for span in fetched) == len(WEIGHTS) - first.completed


async def test_a_model_deleted_while_it_is_pulled_again_is_whole_afterwards(
    pulls: Shop, registry: Registry
) -> None:
    await pull(pulls, registry.name("good"))
    registry.add("good", [("model", WEIGHTS), ("license", b"new" * 1000)], CONFIG)
    name = f"127.0.0.1:{registry.port}/library/good:latest"
    registry.gate = trio.Event()
    steps: list[Progress] = []

    async def again() -> None:
        steps.extend(await pull(pulls, registry.name("good")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(again)
        await registry.waiting.wait()
        await pulls.store.delete(name)
        registry.gate.set()

    found = await pulls.store.get(name)
    assert steps[-1].status == "success"
    assert found.weights.read_bytes() == WEIGHTS


async def test_layers_that_a_newer_model_has_no_use_for_are_removed_and_that_is_told(
    pulls: Shop, registry: Registry
) -> None:
    await pull(pulls, registry.name("good"))
    registry.add("good", [("model", OTHER)], CONFIG)

    steps = await pull(pulls, registry.name("good"))

    assert [step.status for step in steps][-4:] == [
        "verifying sha256 digest",
        "writing manifest",
        "removing unused layers",
        "success",
    ]
    assert not any(digest_of(WEIGHTS)[7:] in name for name in pulls.blobs())


# -- progress and rate ----------------------------------------------------------------------------------


async def test_progress_never_goes_back_whatever_happens(pulls: Shop, registry: Registry) -> None:
    registry.add("two", [("model", WEIGHTS), ("adapter", OTHER)], CONFIG)
    registry.faults.extend(["reset", "500", "short", "429", "stall", "reset", "short"])

    steps = await pull(pulls, registry.name("two"))

    for data in (WEIGHTS, OTHER, CONFIG):
        counts = [step.completed for step in steps if step.digest == digest_of(data)]
        assert counts == sorted(counts)
        assert counts[-1] == len(data)
    assert steps[-1].status == "success"


async def test_a_limit_holds_for_all_layers_of_a_pull_together(
    pulls: Shop, registry: Registry
) -> None:
    registry.add("two", [("model", WEIGHTS), ("adapter", OTHER)], CONFIG)
    rate = 1_500_000
    started = trio.current_time()

    with trio.fail_after(20):
        request = PullRequest(registry.name("two"), insecure=True, limit_rate=rate)
        async with pulls.jobs.pull(request) as progress:
            steps = [step async for step in progress]

    expected_s = (len(WEIGHTS) + len(OTHER)) / rate
    assert steps[-1].status == "success"
    assert trio.current_time() - started >= expected_s - 0.15


async def test_who_allows_more_is_not_slowed_by_who_allows_less(
    tmp_path: Path, registry: Registry
) -> None:
    async with open_pulls(tmp_path / "models") as shop, trio.open_nursery() as nursery:
        slow = PullRequest(registry.name("good"), insecure=True, limit_rate=1000)

        async def crawl() -> None:
            async with shop.jobs.pull(slow) as progress:
                async for _ in progress:
                    pass

        nursery.start_soon(crawl)
        with trio.fail_after(10):  # with the first one's limit it would take ten minutes
            steps = await pull(shop, registry.name("good"))

    assert steps[-1].status == "success"
