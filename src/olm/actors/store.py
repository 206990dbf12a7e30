"""The store as an actor: it owns names and manifests, and everybody asks it through `Store`, the typed client.

Changes go through its mailbox one at a time; the disk work of each runs in a thread, never on the loop. Uploads do not
pass through the mailbox: they stream to disk in threads of their own and only their lease is asked for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import attrs
import trio

from olm.actors.client import ModelSummary, ShownAdapter, ShowResult, StoredModel
from olm.actors.runtime import Actor, Address, ChildSpec, Message, handles
from olm.actors.store_values import base_of, shown_template, stored_of, summary_of
from olm.actors.uploads import Upload
from olm.errors import ModelNotFound, StoreError
from olm.gguf import Header, ModelFacts, kv_json, read_header
from olm.store.blobs import BlobStore
from olm.store.create_plan import Base
from olm.store.disk import disk_errors, is_unwritable
from olm.store.library import Library
from olm.store.mend import mend
from olm.store.model import Listed, Model
from olm.store.names import Digest, ModelName
from olm.store.problems import Mend
from olm.store.show import adapters_of, links_of, modelfile_text, parameters_text

__all__ = [
    "BeginCreate",
    "Hold",
    "Learn",
    "Mending",
    "Publish",
    "Release",
    "Settle",
    "Store",
    "StoreActor",
    "Tidying",
    "store_spec",
]

R = TypeVar("R")
_log = logging.getLogger(__name__)

_MAX_UPLOADS = 4  # threads that hash and write; more would only fight over the disk
_STOP_S = 10.0


class _List(Message[tuple[Listed, ...]], frozen=True):
    pass


class _Get(Message[Model], frozen=True):
    name: str


class _Copy(Message[None], frozen=True):
    source: str
    destination: str


class _Delete(Message[None], frozen=True):
    name: str


class _HasBlob(Message[bool], frozen=True):
    """Also leases the blob: who asks is about to use it."""

    digest: str


class _Lease(Message[None], frozen=True):
    digest: str


class BeginCreate(Message[Base | None], frozen=True):
    """Hold blobs for a create job, those of the base model included, and read the base; None when it is not there."""

    owner: str
    base: str
    digests: tuple[str, ...]


class Learn(Message[None], frozen=True):
    """Facts that a job read from a blob's header."""

    digest: str
    facts: ModelFacts


class Publish(Message[str], frozen=True):
    """Write a manifest; the reply is the name in its stored case, shortest form."""

    name: str
    data: bytes


class Hold(Message[None], frozen=True):
    """Hold more blobs for a job."""

    owner: str
    digests: tuple[str, ...]


class Settle(Message[None], frozen=True):
    """End the leases of uploads that a job has used up."""

    digests: tuple[str, ...]


class Release(Message[None], frozen=True):
    """End the holds of a job; `leftovers` it made go too, unless a model has them by now."""

    owner: str
    leftovers: tuple[str, ...] = ()


class Mending(Message[tuple[bool, str]], frozen=True):
    """Mend one problem that a check found; the reply is that of `olm.store.mend.mend`."""

    mend: Mend


class Tidying(Message[None], frozen=True):
    """Remove folders of manifests that have none."""


class StoreActor(Actor):
    """Owner of one store folder. Permanent; after a crash it opens the store again, from disk."""

    __slots__ = (
        "_as_it_is",
        "_builtin",
        "_go_template",
        "_library",
        "_limiter",
        "_noprune",
        "_root",
    )

    mailbox_size = 512

    def __init__(
        self,
        root: Path,
        *,
        noprune: bool = False,
        builtin: bool = True,
        go_template: bool | None = None,
        as_it_is: Literal["locked", "unlocked"] | None = None,
    ) -> None:
        """`as_it_is`: open the store for a check, without putting it in order; `unlocked` to look only."""
        self._root = root
        self._as_it_is = as_it_is
        self._noprune = noprune
        self._builtin = builtin
        self._go_template = go_template
        self._library: Library | None = None
        # One at a time by construction; a limiter of its own so that busy threads elsewhere cannot starve it.
        self._limiter = trio.CapacityLimiter(1)

    async def start(self) -> None:
        """Open and lock the store; one that may only be read is opened for that. Raises StoreLocked, DiskFull, StoreError."""
        self._library = await trio.to_thread.run_sync(self._opened, limiter=self._limiter)

    def _opened(self) -> Library:
        if self._as_it_is is not None:
            return Library.look(self._root, locked=self._as_it_is == "locked")
        try:
            return Library.open(
                self._root,
                noprune=self._noprune,
                builtin=self._builtin,
                go_template=self._go_template,
            )
        except StoreError as exc:
            # Such as the folder of an Ollama that runs as another user: its models can be run all the same.
            if not (is_unwritable(exc) and (self._root / "manifests").is_dir()):
                raise
            _log.warning("%s: its models can be run, and nothing can be pulled or made", exc)
            return Library.look(self._root, go_template=self._go_template)

    async def stop(self) -> None:
        """Save the index and let the lock go."""
        if self._library is not None:
            await trio.to_thread.run_sync(self._library.close, limiter=self._limiter)

    @property
    def _open(self) -> Library:
        assert self._library is not None, "start has opened it before any message is handled"
        return self._library

    @handles(_List)
    async def on_list(self, _: _List) -> tuple[Listed, ...]:
        """Answer with all models, newest first."""
        return tuple(await trio.to_thread.run_sync(self._open.list, limiter=self._limiter))

    @handles(_Get)
    async def on_get(self, msg: _Get) -> Model:
        """Answer with a resolved model."""
        return await trio.to_thread.run_sync(self._open.get, msg.name, limiter=self._limiter)

    @handles(_Copy)
    async def on_copy(self, msg: _Copy) -> None:
        """Copy a manifest."""
        await trio.to_thread.run_sync(
            self._open.copy, msg.source, msg.destination, limiter=self._limiter
        )

    @handles(_Delete)
    async def on_delete(self, msg: _Delete) -> None:
        """Delete a name and what only it needed."""
        await trio.to_thread.run_sync(self._open.delete, msg.name, limiter=self._limiter)

    @handles(_HasBlob)
    async def on_has_blob(self, msg: _HasBlob) -> bool:
        """Look for a blob."""
        digest = Digest.parse(msg.digest)
        size = await trio.to_thread.run_sync(self._open.blobs.size, digest, limiter=self._limiter)
        if size is not None:
            self._open.janitor.touch(digest)
        return size is not None

    @handles(_Lease)
    def on_lease(self, msg: _Lease) -> None:
        """Keep a blob that is about to be published."""
        self._open.janitor.touch(Digest.parse(msg.digest))

    @handles(BeginCreate)
    async def on_begin_create(self, msg: BeginCreate) -> Base | None:
        """Hold a job's blobs and read the model it starts from."""
        return await trio.to_thread.run_sync(self._begin, msg, limiter=self._limiter)

    def _begin(self, msg: BeginCreate) -> Base | None:
        library = self._open
        entry = library.find(msg.base) if msg.base else None
        base = base_of(library, entry) if entry is not None else None
        library.janitor.hold(msg.owner, map(Digest.parse, msg.digests))
        if entry is not None:
            library.janitor.hold(msg.owner, entry.manifest.blobs())
        return base

    @handles(Learn)
    def on_learn(self, msg: Learn) -> None:
        """Remember the facts of a blob."""
        self._open.index.learn(Digest.parse(msg.digest), msg.facts)

    @handles(Publish)
    async def on_publish(self, msg: Publish) -> str:
        """Write a manifest and prune what it replaced."""
        name = ModelName.parse(msg.name)
        stored = await trio.to_thread.run_sync(
            self._open.publish, name, msg.data, limiter=self._limiter
        )
        return stored.shortest

    @handles(Hold)
    def on_hold(self, msg: Hold) -> None:
        """Hold more blobs."""
        self._open.janitor.hold(msg.owner, map(Digest.parse, msg.digests))

    @handles(Settle)
    def on_settle(self, msg: Settle) -> None:
        """End leases of uploads."""
        self._open.janitor.settle(map(Digest.parse, msg.digests))

    @handles(Release)
    async def on_release(self, msg: Release) -> None:
        """End a job's holds."""
        await trio.to_thread.run_sync(
            self._open.janitor.release,
            msg.owner,
            [Digest.parse(digest) for digest in msg.leftovers],
            limiter=self._limiter,
        )

    @handles(Mending)
    async def on_mending(self, msg: Mending) -> tuple[bool, str]:
        """Put something in order that a check found."""
        return await trio.to_thread.run_sync(
            partial(mend, self._open, msg.mend, now_s=time.time()), limiter=self._limiter
        )

    @handles(Tidying)
    async def on_tidying(self, _: Tidying) -> None:
        """Remove empty folders."""
        await trio.to_thread.run_sync(
            self._open.manifests.remove_empty_folders, limiter=self._limiter
        )


def store_spec(
    root: Path,
    *,
    noprune: bool = False,
    go_template: bool | None = None,
    as_it_is: Literal["locked", "unlocked"] | None = None,
    name: str = "store",
) -> ChildSpec:
    """Describe the permanent store actor for the tree. Its first start raises StoreLocked, DiskFull, StoreError."""
    actor = partial(StoreActor, root, noprune=noprune, go_template=go_template, as_it_is=as_it_is)
    return ChildSpec(name, actor, stop_within_s=_STOP_S)


@attrs.frozen
class Store:
    """`olm.actors.client.StoreClient` over the store actor."""

    actor: Address
    root: Path
    _uploads: trio.CapacityLimiter = attrs.field(
        factory=partial(trio.CapacityLimiter, _MAX_UPLOADS), init=False
    )

    @property
    def blobs(self) -> BlobStore:
        """The blob files, for jobs that read and write them in threads of their own."""
        return BlobStore(self.root / "blobs")

    async def list(self) -> Sequence[ModelSummary]:
        """All models, newest first."""
        return [summary_of(item) for item in await self._ask(_List())]

    async def get(self, name: str) -> StoredModel:
        """Look a model up; see `StoreClient.get`."""
        return stored_of(await self._ask(_Get(name)))

    async def show(self, name: str, *, verbose: bool = False) -> ShowResult:
        """Describe a model. Headers are read in a thread of this call, so nobody waits for a large vocabulary."""
        try:
            model = await self._ask(_Get(name))
        except ModelNotFound as exc:
            raise ModelNotFound(f"model '{ModelName.parse(name).shortest}' not found") from exc
        header = await self._header(model.weights, arrays=verbose)
        for part in model.parts[1:]:
            more = await self._header(self.blobs.path(part), arrays=False)
            header = attrs.evolve(header, tensors=header.tensors + more.tensors)
        projector = (
            kv_json(await self._header(model.projectors[0], arrays=verbose), verbose=verbose)
            if model.projectors
            else None
        )
        links = await trio.to_thread.run_sync(links_of, model, self.blobs, limiter=self._uploads)
        return ShowResult(
            model=stored_of(model),
            modelfile=modelfile_text(model),
            parameters=parameters_text(model.parameters),
            template=shown_template(model, header),
            model_info=kv_json(header, verbose=verbose),
            tensors=[(t.name, t.type_name, t.shape) for t in header.tensors],
            projector_info=projector,
            requires=model.config.requires,
            links=links,
            adapters=tuple(ShownAdapter(*item) for item in adapters_of(model)),
        )

    async def _header(self, path: Path, *, arrays: bool) -> Header:
        with disk_errors("read a model's header"):
            return await trio.to_thread.run_sync(
                partial(read_header, path, arrays=arrays), limiter=self._uploads
            )

    async def copy(self, source: str, destination: str) -> None:
        """Give a model a second name."""
        await self._ask(_Copy(source, destination))

    async def delete(self, name: str) -> None:
        """Remove a name, then every blob that nothing needs any more."""
        await self._ask(_Delete(name))

    async def has_blob(self, digest: str) -> bool:
        """Say whether a blob is in the store; it is then kept for an hour even if nothing refers to it."""
        return await self._ask(_HasBlob(digest))

    @asynccontextmanager
    async def open_blob_writer(self, digest: str) -> AsyncIterator[Upload]:
        """Open an upload; leaving without `commit` removes what was written."""
        expected = Digest.parse(digest)
        pending = await trio.to_thread.run_sync(self.blobs.create, expected, limiter=self._uploads)
        try:
            yield Upload(pending, lambda: self._ask(_Lease(digest)), self._uploads)
        finally:
            with trio.move_on_after(_STOP_S, shield=True):
                await trio.to_thread.run_sync(pending.discard, limiter=self._uploads)

    async def _ask(self, message: Message[R]) -> R:
        """Ask the actor; while it restarts after a crash, wait for it under the caller's deadline."""
        return await self.actor.ask(message, wait_for_restart=True)
