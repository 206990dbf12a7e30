"""Copies, deletes, jobs, uploads, checks, restarts and another program, in any order: every model is whole after each step.

The state machine takes the steps that the store actor takes between two messages, so any order of its rules is one that
concurrent clients can bring about, and the same seed takes the same order. The tests behind it use the actors themselves.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from unittest import mock

import attrs
import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from olm.actors.jobs_client import CheckRequest, ExportRequest, Finding, ImportRequest
from olm.actors.store import Publish
from olm.errors import CorruptStore, ModelNotFound
from olm.store.blobs import BlobStore
from olm.store.check import examine, survey
from olm.store.gc import UPLOAD_LEASE_S
from olm.store.library import Library
from olm.store.manifests import SYSTEM, Layer, config_layer, decode_manifest, encode_manifest
from olm.store.mend import mend
from olm.store.names import Digest, ModelName
from store.conftest import Shop

NAMES = st.sampled_from(["a", "A", "NS/b", "hf.co/U/r:X", "hf.co/u/R:x"])
TEXTS = st.lists(st.sampled_from([b"one", b"two", b"three"]), min_size=1, max_size=2)
CONFIG = b'{"model_format":"gguf"}'
TWO_HOURS_S = 7200.0


def manifest(texts: list[bytes]) -> bytes:
    layers = [Layer(SYSTEM, str(Digest.of(text)), len(text)) for text in texts]
    return encode_manifest(config_layer(Digest.of(CONFIG), len(CONFIG)), layers)


@attrs.define
class Job:
    """A create, pull or import: holds its blobs first, writes them one by one, publishes, lets go."""

    owner: str
    name: str
    texts: list[bytes]
    todo: list[bytes]
    written: set[Digest] = attrs.field(factory=set)


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="olm-races-"))
        self.clock = 0.0
        self.n = 0
        self.jobs: list[Job] = []
        self.uploads: dict[Digest, float] = {}
        self.excused: set[Digest] = set()  # what may lie there until a later start
        self.models: dict[tuple[str, ...], bytes] = {}
        self.fsync = mock.patch("os.fsync")  # what is on disk after a power cut is no matter here
        self.fsync.start()
        self.open()

    def open(self) -> None:
        self.library = Library.open(self.root, builtin=False)
        self.library.janitor._clock = lambda: self.clock

    def teardown(self) -> None:
        self.library.close()
        self.fsync.stop()
        shutil.rmtree(self.root)

    # -- jobs --------------------------------------------------------------------------------------------------------

    @rule(name=NAMES, texts=TEXTS)
    def begin(self, name: str, texts: list[bytes]) -> None:
        self.n += 1
        owner = f"job-{self.n}"
        todo = [CONFIG, *texts]
        self.library.janitor.hold(owner, map(Digest.of, todo))
        self.jobs.append(Job(owner, name, texts, todo))

    @rule(name=NAMES, texts=TEXTS)
    def create(self, name: str, texts: list[bytes]) -> None:
        """A whole job without anything in between."""
        self.begin(name, texts)
        job = self.jobs[-1]
        while job in self.jobs:
            self.step(job)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        self.step(data.draw(st.sampled_from(self.jobs)))

    def step(self, job: Job) -> None:
        if job.todo:
            digest, is_new = self.library.blobs.put(job.todo.pop())
            if is_new:
                job.written.add(digest)
            return
        self.library.publish(ModelName.parse(job.name), manifest(job.texts))
        self.has(job.name, manifest(job.texts))
        self.end(job)

    def has(self, name: str, data: bytes) -> None:
        """A model has its blobs now, so uploads of them need no lease."""
        self.models[ModelName.parse(name).folded] = data
        for digest in decode_manifest(data).blobs():
            self.uploads.pop(digest, None)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.end(data.draw(st.sampled_from(self.jobs)))

    def end(self, job: Job) -> None:
        self.library.janitor.release(job.owner, job.written)
        self.library.janitor.release(job.owner, job.written)  # a job that is stopped twice
        self.jobs.remove(job)

    @rule(text=st.sampled_from([b"one", b"two", b"uploaded"]))
    def upload(self, text: bytes) -> None:
        digest = Digest.of(text)
        self.library.janitor.touch(digest)
        self.library.blobs.put(text)
        self.excused.add(digest)
        self.uploads[digest] = self.clock + UPLOAD_LEASE_S

    @rule()
    def wait(self) -> None:
        self.clock += UPLOAD_LEASE_S / 2

    # -- names -------------------------------------------------------------------------------------------------------

    @rule(source=NAMES, destination=NAMES)
    def copy(self, source: str, destination: str) -> None:
        wanted = ModelName.parse(source).folded
        try:
            self.library.copy(source, destination)
        except ModelNotFound:
            assert wanted not in self.models
        else:
            if ModelName.parse(destination).folded != wanted:
                self.has(destination, self.models[wanted])

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        folded = ModelName.parse(name).folded
        try:
            self.library.delete(name)
        except ModelNotFound:
            assert folded not in self.models
        else:
            del self.models[folded]

    @rule(name=NAMES)
    def look_up(self, name: str) -> None:
        entry = self.library.find(name)

        assert (entry.data if entry else None) == self.models.get(ModelName.parse(name).folded)

    # -- the store as a whole ----------------------------------------------------------------------------------------

    @rule()
    def check_and_repair(self) -> None:
        """Two hours later by the files, so that whatever is not needed is old enough to go."""
        now_s = time.time() + TWO_HOURS_S
        seen = survey(self.root, now_s=now_s)
        problems = [*seen.problems]
        problems += [p for s in seen.suspects if (p := examine(self.library.blobs, s, int))]
        for problem in problems:
            assert problem.kind in ("orphan", "stray", "partial"), problem
            if problem.mend is not None:
                mend(self.library, problem.mend, now_s=now_s)

    @rule(is_old=st.booleans())
    def restart(self, is_old: bool) -> None:
        """A kill, too: nothing is released, and jobs are gone."""
        self.library.close()
        self.excused |= {Digest.of(text) for job in self.jobs for text in (CONFIG, *job.texts)}
        self.jobs.clear()
        self.uploads.clear()
        if is_old:
            self.excused.clear()
            for path in (self.root / "blobs").iterdir():
                os.utime(path, (0, 0))
        self.open()

    @rule(name=NAMES, texts=TEXTS)
    def another_program_writes(self, name: str, texts: list[bytes]) -> None:
        """As Ollama does: blobs, then the manifest in place, in the case that is there."""
        for text in (CONFIG, *texts):
            (self.root / "blobs" / Digest.of(text).file_name).write_bytes(text)
        stored = self.library.catalog.in_stored_case(ModelName.parse(name))
        self.abandon(stored)
        path = self.root.joinpath("manifests", *stored.parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(manifest(texts))
        self.models[stored.folded] = manifest(texts)

    @rule(name=NAMES)
    def another_program_deletes(self, name: str) -> None:
        """The name only: its blobs become orphans."""
        entry = self.library.find(name)
        if entry is not None:
            self.abandon(entry.name)
            self.root.joinpath("manifests", *entry.name.parts).unlink()
            del self.models[entry.name.folded]

    def abandon(self, name: ModelName) -> None:
        """The other program prunes nothing: what only this model needed stays until a start, or a repair."""
        if name.folded in self.models:
            self.excused |= decode_manifest(self.models[name.folded]).blobs()

    # -- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def every_model_is_there_and_whole(self) -> None:
        listed = {item.entry.name.folded: item.entry for item in self.library.list()}

        assert {name: entry.data for name, entry in listed.items()} == self.models
        for entry in listed.values():
            assert entry.digest == hashlib.sha256(entry.data).hexdigest()
            for layer in (entry.manifest.config, *entry.manifest.layers):
                assert_whole(self.library.blobs, layer.blob)

    @invariant()
    def what_jobs_and_uploads_brought_is_there(self) -> None:
        for job in self.jobs:
            for text in set(map(bytes, [CONFIG, *job.texts])) - set(job.todo):
                assert_whole(self.library.blobs, Digest.of(text))
        for digest, end in self.uploads.items():
            if self.clock < end:
                assert_whole(self.library.blobs, digest)

    @invariant()
    def nothing_is_left_over(self) -> None:
        if not self.jobs:
            needed = {
                d.file_name for data in self.models.values() for d in decode_manifest(data).blobs()
            }
            excused = {digest.file_name for digest in self.excused}
            assert {path.name for path in (self.root / "blobs").iterdir()} <= needed | excused

    @invariant()
    def nothing_is_half_written(self) -> None:
        assert not list(self.root.rglob(".olm-*"))


def assert_whole(blobs: BlobStore, digest: Digest) -> None:
    assert hashlib.sha256(blobs.path(digest).read_bytes()).hexdigest() == digest.hex


StoreMachine.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestStoreMachine = pytest.mark.slow(StoreMachine.TestCase)


# -- the actors themselves -------------------------------------------------------------------------------------------


async def test_everything_at_once(shop: Shop, tmp_path: Path) -> None:
    """Creates, copies, deletes, exports, imports, checks and lists beside each other: no model is ever seen broken."""
    archive = str(tmp_path / "a.tar")
    await shop.create(model="packed", from_="tiny", system="packed")
    async with shop.jobs.export(ExportRequest(models=["packed"], path=archive)) as steps:
        assert [step.status async for step in steps][-1] == "success"
    told: list[Finding] = []

    async def creates(name: str) -> None:
        for i in range(6):
            await shop.create(model=name, from_="tiny", system=f"{name} {i}")
            await shop.store.copy(name, f"{name}-copy")
            await shop.store.delete(name)

    async def imports() -> None:
        for _ in range(4):
            async with shop.jobs.import_(ImportRequest(path=archive)) as steps:
                assert [step.status async for step in steps][-1] == "success"
            await shop.store.delete("packed")

    async def exports() -> None:
        for i in range(4):
            request = ExportRequest(models=["x-copy"], path=str(tmp_path / f"{i}.tar"))
            try:
                async with shop.jobs.export(request) as steps:
                    assert [step.status async for step in steps][-1] == "success"
            except ModelNotFound:
                continue  # not made yet

    async def lists(done: trio.CancelScope) -> None:
        with done:
            while True:
                for summary in await shop.store.list():
                    try:
                        model = await shop.store.get(summary.name)
                    except ModelNotFound:
                        continue  # deleted since
                    assert model.weights.exists()
                async with shop.jobs.check(CheckRequest(repair=True)) as steps:
                    told.extend([step async for step in steps if isinstance(step, Finding)])

    done = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lists, done)
        async with trio.open_nursery() as work:
            work.start_soon(creates, "x")
            work.start_soon(creates, "y")
            work.start_soon(imports)
            work.start_soon(exports)
        done.cancel("all is done")

    assert told == []
    assert {m.name for m in await shop.store.list()} == {
        "tiny:latest", "x-copy:latest", "y-copy:latest",
    }  # fmt: skip
    assert len([name for name in shop.blobs() if not name.startswith(".")]) == 5 + 2


async def test_a_delete_in_the_middle_of_an_export_leaves_the_archive_whole(
    shop: Shop, tmp_path: Path
) -> None:
    await shop.create(model="m", from_="tiny", system="only in m")
    blob = shop.root / "blobs" / Digest.of(b"only in m").file_name
    pieces = []

    async with shop.jobs.export_stream(ExportRequest(models=["m"])) as archive:
        async for piece in archive:
            if not pieces:
                await shop.store.delete("m")
                assert blob.exists()  # held by the export
            pieces.append(piece)

    assert not blob.exists()
    (tmp_path / "m.tar").write_bytes(b"".join(pieces))
    async with shop.jobs.import_(ImportRequest(path=str(tmp_path / "m.tar"))) as steps:
        assert [step.status async for step in steps][-1] == "success"
    assert (await shop.store.get("m")).system == "only in m"


async def test_a_model_whose_blob_another_program_removed_is_not_published(shop: Shop) -> None:
    """Another daemon knows nothing of our leases: its prune ends in an error here, and never in a broken model."""
    data = manifest([b"gone"])

    with pytest.raises(CorruptStore) as caught:
        await shop.store.actor.ask(Publish("m", data))

    first = Digest.of(CONFIG)
    assert caught.value.message == f"model 'm:latest': blob {first} is missing from the store"
    assert [m.name for m in await shop.store.list()] == ["tiny:latest"]


async def test_copy_over_itself_in_another_case_changes_nothing(shop: Shop) -> None:
    before = {path: path.stat() for path in shop.root.rglob("*")}

    await shop.store.copy("tiny", "TINY:Latest")

    assert {path: path.stat() for path in shop.root.rglob("*")} == before


async def test_copy_over_another_takes_its_place_and_frees_its_blobs(shop: Shop) -> None:
    await shop.create(model="Old", from_="tiny", system="old words")
    await shop.create(model="new", from_="tiny", system="new words")

    await shop.store.copy("new", "OLD")

    assert (await shop.store.get("old")).system == "new words"
    assert {m.name for m in await shop.store.list()} == {"Old:latest", "new:latest", "tiny:latest"}
    assert Digest.of(b"old words").file_name not in shop.blobs()
