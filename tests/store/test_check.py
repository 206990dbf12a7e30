"""The look through the store, and its repair: every kind of damage is found, and nothing whole is lost."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest
import trio

from olm.actors.jobs import Jobs
from olm.actors.jobs_client import CheckRequest, Finding, Progress
from olm.actors.runtime import SupervisorSpec, open_supervisor
from olm.actors.store import Store, store_spec
from olm.errors import ModelNotFound, StoreLocked
from olm.store.blobs import DAMAGED_PREFIX
from olm.store.gc import PARTIAL_KEPT_S, UNREFERENCED_KEPT_S
from olm.store.library import Library
from olm.store.names import Digest
from store.conftest import Shop, open_shop
from store.gguf_files import model

GGUF = model(general__name="checked")
HOUR_OLD = UNREFERENCED_KEPT_S + 60


async def check(
    shop: Shop, *, repair: bool = False, quick: bool = False
) -> tuple[list[Finding], list[Progress]]:
    async with shop.jobs.check(CheckRequest(repair=repair, quick=quick)) as steps:
        found = [step async for step in steps]
    return (
        [step for step in found if isinstance(step, Finding)],
        [step for step in found if isinstance(step, Progress)],
    )


def kinds(findings: list[Finding]) -> dict[str, list[str]]:
    by_kind: dict[str, list[str]] = {}
    for found in findings:
        by_kind.setdefault(found.kind, []).append(found.what)
    return {kind: sorted(whats) for kind, whats in by_kind.items()}


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def put(path: Path, data: bytes, seconds: float = 0.0) -> Path:
    path.write_bytes(data)
    age(path, seconds)
    return path


def flip(path: Path) -> None:
    """Damage a file as a bad disk does: same size, one bit."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


async def add_mine(shop: Shop, name: str = "mine") -> Path:
    digest = await shop.upload(GGUF)
    await shop.create(model=name, files={"m.gguf": digest})
    path: Path = shop.root / "blobs" / digest.replace(":", "-")
    return path


async def test_a_sound_store_has_no_findings_and_says_how_much_was_read(shop: Shop) -> None:
    findings, steps = await check(shop)

    assert findings == []
    total = sum(path.stat().st_size for path in (shop.root / "blobs").iterdir())
    assert steps[0].status == "reading manifests"
    measured = [step for step in steps if step.total]
    assert {step.total for step in measured} == {total}
    assert [s.completed for s in measured] == sorted(s.completed for s in measured)
    assert measured[-1].completed == total
    assert steps[-2].status.startswith("checked 1 model, 5 blobs, ")
    assert steps[-1].status == "success"


async def test_damaged_and_missing_blobs_are_told_with_the_models_that_need_them(
    shop: Shop,
) -> None:
    weights = await add_mine(shop)
    await shop.store.copy("mine", "hf.co/me/copy:q4")
    await shop.create(model="other", from_="mine", system="lost words")
    flip(weights)
    lost = Digest.of(b"lost words")
    (shop.root / "blobs" / lost.file_name).unlink()

    findings, _ = await check(shop)

    by_kind = {found.kind: found for found in findings}
    assert set(by_kind) == {"damaged", "missing"}
    damaged, missing = by_kind["damaged"], by_kind["missing"]
    assert damaged.what == weights.name.replace("-", ":")
    assert set(damaged.models) == {"mine:latest", "hf.co/me/copy:q4", "other:latest"}
    assert damaged.size_bytes == len(GGUF)
    assert damaged.detail == (
        "does not have the bytes of its name; 'olm pull hf.co/me/copy:q4' fetches it again"
    )
    assert (missing.what, missing.models) == (str(lost), ("other:latest",))
    assert missing.detail == "is not in the store; create or import other:latest again"
    assert not damaged.is_repaired


async def test_a_cut_blob_is_found_by_its_size_without_reading_it(shop: Shop) -> None:
    weights = await add_mine(shop)
    big = weights.read_bytes() + bytes(2 << 20)
    digest = await shop.upload(big)
    await shop.create(model="big", files={"m.gguf": digest})
    path = shop.root / "blobs" / digest.replace(":", "-")
    path.write_bytes(big[:-1])

    (cut,), _ = await check(shop, quick=True)
    path.write_bytes(big)
    flip(path)
    unread, _ = await check(shop, quick=True)
    read, _ = await check(shop)

    assert cut.detail.startswith(f"has {len(big) - 1} bytes, not {len(big)}; ")
    assert unread == []
    assert kinds(read) == {"damaged": [digest]}


async def test_repair_sets_damage_aside_and_a_new_upload_makes_the_model_whole(
    shop: Shop,
) -> None:
    weights = await add_mine(shop)
    flip(weights)
    bad = weights.read_bytes()

    (found,), _ = await check(shop, repair=True)

    aside = weights.with_name(DAMAGED_PREFIX + weights.name)
    assert aside.read_bytes() == bad
    assert not weights.exists()
    assert not found.is_repaired  # the model still does not work
    assert f"set aside as {aside.name}; create or import mine:latest again" in found.detail
    await shop.upload(GGUF)
    assert kinds((await check(shop))[0]) == {"stray": [f"blobs/{aside.name}"]}
    (left,), _ = await check(shop, repair=True)
    assert left.is_repaired
    assert not aside.exists()
    assert (await check(shop))[0] == []


async def test_the_built_in_model_is_put_back_at_once(shop: Shop) -> None:
    weights = (await shop.store.get("tiny")).weights
    whole = weights.read_bytes()
    flip(weights)
    (damaged,), _ = await check(shop, repair=True)
    assert damaged.is_repaired
    assert weights.read_bytes() == whole

    weights.unlink()
    findings, _ = await check(shop, repair=True)

    (missing,) = [found for found in findings if found.kind == "missing"]
    assert missing.is_repaired
    assert weights.read_bytes() == whole


async def test_leftovers_are_told_with_their_age_and_repair_removes_the_stale_ones(
    shop: Shop,
) -> None:
    blobs, models = shop.root / "blobs", shop.root / "manifests/registry.ollama.ai/library"
    before = shop.blobs()
    put(blobs / f"sha256-{'1' * 64}", b"orphan", HOUR_OLD)
    young = put(blobs / f"sha256-{'2' * 64}", b"young")
    fresh = put(blobs / f"sha256-{'3' * 64}-partial", b"x" * 100, HOUR_OLD)
    record = {"N": 0, "Offset": 0, "Size": 100, "Completed": 40}
    put(blobs / f"sha256-{'3' * 64}-partial-0", json.dumps(record).encode())
    put(blobs / f"sha256-{'4' * 64}-partial", b"x", PARTIAL_KEPT_S + 60)
    put(blobs / f"sha256-{'4' * 64}-partial-0", b"{}", PARTIAL_KEPT_S + 60)
    put(blobs / f"sha256-{'5' * 64}-partial-0", b"{}", HOUR_OLD)
    put(blobs / ".olm-tmp-old", b"x", HOUR_OLD)
    running = put(blobs / ".olm-tmp-new", b"x")
    put(models / "tiny/.olm-tmp-old", b"x", HOUR_OLD)
    put(shop.root / ".olm-tmp-old", b"x", HOUR_OLD)
    foreign = put(blobs / "a\nb", b"x", HOUR_OLD)
    (models / "empty").mkdir()

    findings, _ = await check(shop, repair=True)

    details = {found.what: found.detail for found in findings}
    assert kinds(findings) == {
        "orphan": [f"sha256:{'1' * 64}"],
        "partial": [f"sha256:{'3' * 64}", f"sha256:{'4' * 64}"],
        "stray": sorted(
            [
                "'blobs/a\\nb'",
                ".olm-tmp-old",
                "blobs/.olm-tmp-old",
                f"blobs/sha256-{'5' * 64}-partial-0",
                "manifests/registry.ollama.ai/library/tiny/.olm-tmp-old",
            ]
        ),
    }
    assert details[f"sha256:{'1' * 64}"] == "no model needs it; 61 minutes old; removed"
    assert details[f"sha256:{'3' * 64}"] == "40 B of 100 B are here; a pull goes on from there"
    kept = {young.name, fresh.name, f"{fresh.name}-0", running.name, foreign.name}
    assert shop.blobs() == before | kept
    assert {f.what for f in findings if not f.is_repaired} == {
        f"sha256:{'3' * 64}",
        "'blobs/a\\nb'",
    }
    assert not list(shop.root.glob(".olm-tmp-*"))
    assert sorted(path.name for path in models.rglob("*")) == ["latest", "tiny"]


async def test_without_repair_nothing_changes(shop: Shop) -> None:
    flip(await add_mine(shop))
    put(shop.root / "blobs" / f"sha256-{'1' * 64}", b"orphan", HOUR_OLD)
    before = {path: path.stat() for path in shop.root.rglob("*")}

    await check(shop)

    assert {path: path.stat() for path in shop.root.rglob("*")} == before


async def test_a_damaged_manifest_keeps_every_orphan(shop: Shop) -> None:
    await shop.store.copy("tiny", "broken")
    path = shop.root / "manifests/registry.ollama.ai/library/broken/latest"
    path.write_text("{")
    put(path.with_name("-no name"), b"{}")
    orphan = put(shop.root / "blobs" / f"sha256-{'1' * 64}", b"orphan", HOUR_OLD)

    findings, _ = await check(shop, repair=True)

    by_kind = {found.kind: found for found in findings}
    assert set(by_kind) == {"manifest", "orphan", "stray"}
    assert by_kind["manifest"].models == ("broken:latest",)
    assert "'olm rm broken:latest' removes it" in by_kind["manifest"].detail
    assert by_kind["orphan"].detail.endswith("kept because a manifest cannot be read")
    assert by_kind["stray"].what.endswith("broken/-no name")
    assert orphan.exists()


async def test_what_a_job_holds_is_not_removed_as_an_orphan(shop: Shop) -> None:
    digest = await shop.upload(GGUF)
    path = shop.root / "blobs" / digest.replace(":", "-")
    age(path, HOUR_OLD)

    (orphan,), _ = await check(shop, repair=True)

    assert not orphan.is_repaired
    assert orphan.detail.endswith("kept: a job holds it")
    assert path.exists()


async def test_links_are_told_and_never_mended(shop: Shop, tmp_path: Path) -> None:
    weights = await add_mine(shop)
    elsewhere = tmp_path / "elsewhere"
    weights.rename(elsewhere)
    weights.symlink_to(elsewhere)
    assert (await check(shop))[0] == []

    flip(elsewhere)
    (changed,), _ = await check(shop, repair=True)
    elsewhere.unlink()
    (gone,), _ = await check(shop, repair=True)

    assert (changed.kind, gone.kind) == ("link", "link")
    assert f"has changed: {elsewhere}" in changed.detail
    assert f"is a link to {elsewhere}, which is gone" in gone.detail
    assert weights.is_symlink()


async def test_two_names_that_differ_in_case_are_told(shop: Shop) -> None:
    folder = shop.root / "manifests/registry.ollama.ai/library"
    (folder / "Tiny").mkdir()
    (folder / "Tiny/latest").write_bytes((folder / "tiny/latest").read_bytes())

    (found,), _ = await check(shop)

    assert (found.kind, found.what) == ("stray", "tiny:latest")
    assert "the same name as Tiny:latest but for case" in found.detail


async def test_leaving_ends_the_reading_within_a_chunk(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    import olm.store.check as module

    digest = await shop.upload(GGUF + bytes(1 << 20))
    await shop.create(model="m", files={"m.gguf": digest})
    monkeypatch.setattr(module, "_CHUNK_BYTES", 4096)
    real, n_read, go_on = os.readv, 0, threading.Event()

    def slow(fd: int, buffers: list[memoryview]) -> int:
        nonlocal n_read
        n_read += 1
        if n_read == 20:
            go_on.wait(5)  # until the test has left
        return real(fd, buffers)

    monkeypatch.setattr(os, "readv", slow)
    async with shop.jobs.check(CheckRequest()) as steps:
        async for step in steps:
            if isinstance(step, Progress) and step.total:
                break
        go_on.set()

    assert n_read <= 20 + 2 * (os.cpu_count() or 1)
    assert not shop.jobs.supervisor.tree().children


async def test_deletes_and_creates_meanwhile_are_no_findings(shop: Shop) -> None:
    """Names come and go while checks run; what is whole is never told as damaged or missing."""
    told: list[Finding] = []

    async def churn() -> None:
        for i in range(12):
            await shop.create(model="m", from_="tiny", system=f"words {i}")
            await shop.store.copy("m", f"n{i}")
            await shop.store.delete("m")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(churn)
        for _ in range(12):
            told += (await check(shop, repair=True))[0]

    assert told == []
    assert len(await shop.store.list()) == 13


# -- without a server ------------------------------------------------------------------------------------------------


async def look(root: Path, *, locked: bool) -> list[Finding]:
    spec = store_spec(root, as_it_is="locked" if locked else "unlocked")
    async with open_supervisor(children=[spec, SupervisorSpec("jobs")]) as top:
        store = Store(top.address("store"), root)
        found, _ = await check(Shop(store, Jobs(top.supervisor("jobs"), store), root))
        return found


async def test_a_store_is_looked_at_as_it_is(tmp_path: Path) -> None:
    root = tmp_path / "models"
    Library.open(root).close()
    orphan = put(root / "blobs" / f"sha256-{'1' * 64}", b"orphan", HOUR_OLD)

    found = await look(root, locked=True)

    assert kinds(found) == {"orphan": [f"sha256:{'1' * 64}"]}
    assert orphan.exists()  # a server's start would have removed it


async def test_a_locked_store_can_be_looked_at_but_not_taken(tmp_path: Path) -> None:
    async with open_shop(tmp_path / "models") as shop:
        assert await look(shop.root, locked=False) == []
        with pytest.RaisesGroup(StoreLocked, flatten_subgroups=True):
            await look(shop.root, locked=True)


async def test_a_repaired_store_still_forgets_a_deleted_model(shop: Shop) -> None:
    await shop.store.copy("tiny", "x")
    await shop.store.delete("tiny")
    weights = (await shop.store.get("x")).weights
    flip(weights)

    (found,), _ = await check(shop, repair=True)

    assert not found.is_repaired
    with pytest.raises(ModelNotFound):
        await shop.store.get("tiny")
