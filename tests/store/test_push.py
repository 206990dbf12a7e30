"""Pushing to a registry that behaves badly: what arrives, what is said, what is sent again."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from kit.registry import MANIFEST, Registry, digest_of, open_registry
from kit.registry_uploads import UploadFault
from olm.actors.bandwidth import Bandwidth
from olm.actors.jobs import Jobs
from olm.actors.jobs_client import Progress, PushRequest
from olm.actors.push import Pushes
from olm.actors.runtime import SupervisorSpec, open_supervisor
from olm.actors.sending import SendPace
from olm.actors.store import Publish, Store, store_spec
from olm.errors import CorruptStore, InvalidRequest, ModelNotFound
from olm.registry.errors import RegistryError
from olm.store.links import LinkRecord
from olm.store.names import Digest
from store.conftest import Shop
from store.gguf_files import model

WEIGHTS = model() + random.Random(5).randbytes(600_000)
SYSTEM = b"Be brief."
CONFIG = b'{"model_format":"gguf","model_family":"llama"}'
ALL = (WEIGHTS, SYSTEM, CONFIG)
PACE = SendPace(
    chunk_bytes=250_000,
    piece_bytes=20_000,
    stall_s=0.3,
    answer_s=0.3,
    first_wait_s=0.001,
    progress_s=0.001,
)
FROM = "127.0.0.1:9/library/parent:latest"


@asynccontextmanager
async def open_pushes(root: Path, bandwidth: Bandwidth | None = None) -> AsyncIterator[Shop]:
    async with open_supervisor(children=[store_spec(root), SupervisorSpec("jobs")]) as top:
        store, work = Store(top.address("store"), root), top.supervisor("jobs")
        pushes = Pushes(work, store, root.parent, bandwidth or Bandwidth(), PACE)
        yield Shop(store, Jobs(work, store, pushes=pushes), root)


async def fill(shop: Shop, registry: Registry, name: str = "good") -> bytes:
    """Put the model into the store, named as the registry's; returns its manifest."""
    for data in ALL:
        await shop.upload(data)
    scratch = Registry()
    manifest = scratch.add(name, [("model", WEIGHTS), ("system", SYSTEM)], CONFIG)
    await shop.store.actor.ask(Publish(registry.name(name), manifest))
    return manifest


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with open_registry() as opened:
        yield opened


@pytest.fixture
async def pushes(tmp_path: Path, registry: Registry) -> AsyncIterator[Shop]:
    async with open_pushes(tmp_path / "models") as opened:
        await fill(opened, registry)
        yield opened


async def push(shop: Shop, name: str, *, limit_rate: int = 0) -> list[Progress]:
    with trio.fail_after(20):
        async with shop.jobs.push(
            PushRequest(name, insecure=True, limit_rate=limit_rate)
        ) as progress:
            return [step async for step in progress]


def check_arrived(registry: Registry, name: str = "good") -> None:
    assert {digest_of(data): data for data in ALL}.items() <= registry.blobs.items()
    assert registry.manifest_types == [MANIFEST]
    assert name in registry.manifests


async def test_a_model_is_pushed_byte_for_byte_with_ollamas_statuses(
    pushes: Shop, registry: Registry
) -> None:
    steps = await push(pushes, registry.name("good"))

    check_arrived(registry)
    path = pushes.root / "manifests" / f"127.0.0.1:{registry.port}" / "library/good/latest"
    assert registry.manifests["good"] == path.read_bytes()
    statuses = [step.status for step in steps]
    assert statuses[0] == "retrieving manifest"
    assert statuses[-2:] == ["pushing manifest", "success"]
    layer = [step for step in steps if step.digest == digest_of(WEIGHTS)]
    assert {step.status for step in layer} == {f"pushing {digest_of(WEIGHTS)[7:19]}"}
    assert {step.total for step in layer} == {len(WEIGHTS)}
    counts = [step.completed for step in layer]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, len(WEIGHTS))
    spans = [span for span in registry.uploads.spans if not span.endswith(("-8", "-45"))]
    assert spans == ["0-249999", "250000-499999", f"500000-{len(WEIGHTS) - 1}"]
    assert len(set(steps)) == len(steps)  # nothing is told twice


async def test_what_the_registry_has_is_not_sent_again(pushes: Shop, registry: Registry) -> None:
    await push(pushes, registry.name("good"))
    registry.uploads.spans.clear()
    registry.manifest_types.clear()

    steps = await push(pushes, registry.name("good"))

    check_arrived(registry)
    assert registry.uploads.spans == []
    assert registry.uploads.begun == 3
    done = {step.digest: step.completed for step in steps if step.digest}
    assert done == {digest_of(data): len(data) for data in ALL}


@pytest.mark.parametrize(
    "faults",
    [
        ["reset"],
        ["500", "500"],
        ["429"],
        ["lost-location"],
        ["wrong-range"],
        ["forgets"],
        ["stall"],
        ["swallows"],
        ["reset", "500", "wrong-range", "stall", "forgets", "429", "lost-location"],
    ],
    ids="-".join,
)
async def test_faults_that_pass_are_passed(
    pushes: Shop, registry: Registry, faults: list[UploadFault]
) -> None:
    registry.uploads.faults.extend(faults)

    steps = await push(pushes, registry.name("good"))

    check_arrived(registry)
    assert not registry.uploads.faults
    for data in ALL:
        counts = [step.completed for step in steps if step.digest == digest_of(data)]
        assert counts == sorted(counts)


@pytest.mark.parametrize("where", ["begin_faults", "finish_faults"])
@pytest.mark.parametrize("fault", ["500", "429", "reset"])
async def test_beginnings_and_ends_are_tried_again(
    pushes: Shop, registry: Registry, where: str, fault: UploadFault
) -> None:
    getattr(registry.uploads, where).append(fault)

    await push(pushes, registry.name("good"))

    check_arrived(registry)


async def test_the_manifest_is_tried_again(pushes: Shop, registry: Registry) -> None:
    registry.manifest_faults.extend(["500", "503"])

    await push(pushes, registry.name("good"))

    check_arrived(registry)


async def test_a_broken_chunk_goes_on_where_the_registry_says(
    pushes: Shop, registry: Registry
) -> None:
    registry.uploads.faults.extend(["reset", "reset"])

    await push(pushes, registry.name("good"))

    assert registry.uploads.asked
    assert registry.uploads.n_received == sum(map(len, ALL))


async def test_a_registry_that_forgets_a_broken_upload_gets_it_anew(
    pushes: Shop, registry: Registry
) -> None:
    registry.uploads.forgetful = True
    registry.uploads.faults.extend(["reset"])

    await push(pushes, registry.name("good"))

    check_arrived(registry)
    assert registry.uploads.begun == 4


async def test_errors_that_stay_end_the_push(pushes: Shop, registry: Registry) -> None:
    registry.uploads.faults.extend(["500"] * 50)

    blob = r"127.0.0.1:\d+/library/good:latest, [0-9a-f]{12}"
    with pytest.raises(RegistryError, match=rf"^max retries exceeded: 500: go away \({blob}\)$"):
        await push(pushes, registry.name("good"))

    assert registry.manifests == {}


async def test_a_registry_that_forgets_again_and_again_ends_the_push(
    pushes: Shop, registry: Registry
) -> None:
    registry.uploads.faults.extend(["forgets"] * 100)

    with pytest.raises(RegistryError, match="max retries exceeded"):
        await push(pushes, registry.name("good"))

    assert 3 < registry.uploads.begun < 30


async def test_a_registry_that_wants_no_upload_says_so_at_once(
    pushes: Shop, registry: Registry
) -> None:
    registry.uploads.begin_faults.extend(["refuses"] * 3)

    with pytest.raises(RegistryError, match=r'^403: {"errors":\[{"code":"DENIED"}\]} \(.*good:l'):
        await push(pushes, registry.name("good"))


async def test_chunks_go_where_the_registry_sends_them(pushes: Shop, registry: Registry) -> None:
    registry.needs_token = registry.uploads.detours = True
    registry.uploads.faults.extend(["500"])

    await push(pushes, registry.name("good"))

    check_arrived(registry)
    assert len(registry.uploads.etags) == 3


async def publish_from(shop: Shop, registry: Registry, manifest: bytes, source: str) -> None:
    marked = manifest.replace(b'"size": 9}', b'"size": 9, "from": "%s"}' % source.encode())
    assert marked != manifest
    await shop.store.actor.ask(Publish(registry.name("good"), marked))


async def test_a_layer_of_another_model_there_is_mounted(pushes: Shop, registry: Registry) -> None:
    host = f"127.0.0.1:{registry.port}"
    manifest = await fill(pushes, registry)
    await publish_from(pushes, registry, manifest, f"{host}/library/parent:latest")
    registry.uploads.blobs = {**registry.blobs, digest_of(SYSTEM): SYSTEM}

    # The registry's own table of blobs has nothing of it, so its manifest is refused in the end.
    registry.manifest_faults.extend(["400"])
    with pytest.raises(
        RegistryError, match=r"^400: go away \(127.0.0.1:\d+/library/good:latest\)$"
    ):
        await push(pushes, registry.name("good"))

    assert registry.uploads.mounts == [(digest_of(SYSTEM), "library/parent")]
    assert registry.uploads.begun == 2


async def test_what_cannot_be_mounted_is_sent(pushes: Shop, registry: Registry) -> None:
    host = f"127.0.0.1:{registry.port}"
    manifest = await fill(pushes, registry)
    await publish_from(pushes, registry, manifest, f"{host}/library/parent:latest")

    await push(pushes, registry.name("good"))

    check_arrived(registry)
    assert registry.uploads.mounts == [(digest_of(SYSTEM), "library/parent")]


async def test_other_registries_models_are_no_place_to_mount_from(
    pushes: Shop, registry: Registry
) -> None:
    manifest = await fill(pushes, registry)
    for source in ("library/parent", FROM, f"127.0.0.1:{registry.port}/library/good:old", "a b"):
        await publish_from(pushes, registry, manifest, source)
        await push(pushes, registry.name("good"))

    assert registry.uploads.mounts == []


async def test_blobs_are_sent_side_by_side(pushes: Shop, registry: Registry) -> None:
    registry.uploads.gate = trio.Event()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(push, pushes, registry.name("good"))
        with trio.fail_after(10):
            while len(registry.uploads.spans) < 3:
                await trio.sleep(0.001)
        registry.uploads.gate.set()

    check_arrived(registry)


async def test_pushes_of_one_model_at_once_send_it_once(pushes: Shop, registry: Registry) -> None:
    done: list[list[Progress]] = []

    async def one() -> None:
        done.append(await push(pushes, registry.name("good")))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(one)

    check = {digest_of(data): data for data in ALL}
    assert check.items() <= registry.blobs.items()
    assert registry.uploads.begun == 3
    assert Counter(registry.uploads.spans).most_common(1)[0][1] == 1
    assert [steps[-1].status for steps in done] == ["success"] * 3


async def test_a_model_that_is_deleted_meanwhile_is_pushed_to_the_end(
    pushes: Shop, registry: Registry
) -> None:
    registry.uploads.gate = trio.Event()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(push, pushes, registry.name("good"))
        await registry.uploads.waiting.wait()
        await pushes.store.delete(f"127.0.0.1:{registry.port}/library/good")
        kept = pushes.blobs()
        registry.uploads.gate.set()

    check_arrived(registry)
    assert digest_of(WEIGHTS).replace(":", "-") in kept
    assert digest_of(WEIGHTS).replace(":", "-") not in pushes.blobs()


async def test_a_push_that_was_left_is_gone_on_with(
    tmp_path: Path, pushes: Shop, registry: Registry
) -> None:
    registry.uploads.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(push, pushes, registry.name("good"))
        await registry.uploads.waiting.wait()
        registry.uploads.gate.set()
        registry.uploads.gate = None
        with trio.fail_after(10):
            while registry.uploads.n_received < 300_000:
                await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    assert pushes.jobs.supervisor.tree().children == ()
    assert list((tmp_path / "uploads").iterdir())

    async with open_pushes(tmp_path / "b" / "models") as later:
        await fill(later, registry)
        (tmp_path / "uploads").rename(tmp_path / "b" / "uploads")
        await push(later, registry.name("good"))

    check_arrived(registry)
    assert registry.uploads.n_received == sum(map(len, ALL))
    assert list((tmp_path / "b" / "uploads").iterdir()) == []


async def test_the_limits_of_the_job_and_of_all_get_every_byte(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent: Counter[float] = Counter()

    def due_s(_free_s: float, n_bytes: int, rate: float, now_s: float) -> float:
        spent[rate] += n_bytes
        return now_s

    monkeypatch.setattr("olm.actors.bandwidth.due_s", due_s)
    async with open_pushes(tmp_path / "models", Bandwidth(7_000_000)) as shop:
        await fill(shop, registry)

        await push(shop, registry.name("good"), limit_rate=3_000_000)

    total = sum(map(len, ALL))
    assert spent == {7_000_000: total, 3_000_000: total}


async def test_an_end_whose_answer_is_lost_is_no_reason_to_send_again(
    pushes: Shop, registry: Registry
) -> None:
    registry.uploads.finish_faults.extend(["reset"] * 3)

    await push(pushes, registry.name("good"))

    check_arrived(registry)
    assert registry.uploads.n_received == sum(map(len, ALL))


async def test_http_1_0_is_enough(pushes: Shop, registry: Registry) -> None:
    registry.is_old = True
    registry.uploads.faults.extend(["reset"])

    await push(pushes, registry.name("good"))

    check_arrived(registry)


async def test_a_registry_that_was_never_reached_is_told_at_once_in_one_line(
    pushes: Shop, registry: Registry
) -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    name = f"127.0.0.1:{port}/library/good"
    await pushes.store.copy(registry.name("good"), name)

    with pytest.raises(
        RegistryError,
        match=rf"^HEAD http://127.0.0.1:{port}/v2/.*: connection refused \({name}:latest, [0-9a-f]{{12}}\)$",
    ):
        await push(pushes, name)

    assert registry.requests == []


async def test_bad_requests_have_ollamas_words(pushes: Shop, registry: Registry) -> None:
    with pytest.raises(InvalidRequest, match=r"^insecure protocol http$"):
        async with pushes.jobs.push(PushRequest(registry.name("good"))):
            pass
    with pytest.raises(InvalidRequest, match="invalid model name"):
        await push(pushes, "a b")
    with pytest.raises(ModelNotFound, match=r"^model 'nope:latest' not found$"):
        await push(pushes, "nope")


async def test_a_model_that_is_not_there_is_said_to_be_in_ollamas_words(pushes: Shop) -> None:
    async with pushes.jobs.push(PushRequest("nope")) as progress:
        steps = [(await anext(progress)).status for _ in range(2)]
        with pytest.raises(ModelNotFound):
            await anext(progress)

    assert steps == ["retrieving manifest", "couldn't retrieve manifest"]


@pytest.mark.parametrize(
    ("data", "reason"), [(None, "is missing from the store"), (b"x", "has 1 bytes, not")]
)
async def test_a_damaged_model_is_not_begun(
    pushes: Shop, registry: Registry, data: bytes | None, reason: str
) -> None:
    path = pushes.root / "blobs" / digest_of(WEIGHTS).replace(":", "-")
    path.unlink()
    if data is not None:
        path.write_bytes(data)

    with pytest.raises(CorruptStore, match=f": blob {digest_of(WEIGHTS)} {reason}"):
        await push(pushes, registry.name("good"))

    assert registry.requests == []


async def test_a_linked_file_that_changed_is_told_from_a_blob_that_is_missing(
    pushes: Shop, registry: Registry, tmp_path: Path
) -> None:
    digest, file = Digest.parse(digest_of(WEIGHTS)), tmp_path / "w.gguf"
    file.write_bytes(WEIGHTS)
    pushes.store.blobs.links.make(LinkRecord.of(digest, file, file.stat()))
    await push(pushes, registry.name("good"))
    check_arrived(registry)
    os.truncate(file, 5)

    with pytest.raises(CorruptStore, match=rf"blob {digest}: the linked file {file} changed since"):
        await push(pushes, registry.name("good"))


async def test_bytes_that_rotted_are_refused_by_the_registry(
    pushes: Shop, registry: Registry
) -> None:
    path = pushes.root / "blobs" / digest_of(WEIGHTS).replace(":", "-")
    path.write_bytes(bytes(len(WEIGHTS)))

    with pytest.raises(
        CorruptStore,
        match=f"^blob {digest_of(WEIGHTS)} is damaged: .*good:latest, {digest_of(WEIGHTS)[7:19]}",
    ):
        await push(pushes, registry.name("good"))

    assert registry.manifests == {}
    assert registry.uploads.n_received <= sum(map(len, ALL))
