"""Pull jobs: one temporary actor for each request, which reads a manifest, has what is missing downloaded, and publishes.

Nothing is visible before the manifest is written, and that is last. Downloads belong to nobody: whoever wants a digest
shares the one that runs, and the last to leave ends it, its bytes kept for the next.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import attrs
import trio

from olm.actors.bandwidth import Bandwidth
from olm.actors.connections import Connections
from olm.actors.download import Download, DownloadConfig, Follow, Pace
from olm.actors.job import one_error, open_job
from olm.actors.jobs_client import Progress, PullRequest
from olm.actors.runtime import (
    Actor,
    Address,
    ChildSpec,
    StreamMessage,
    StreamSink,
    Supervisor,
    streams,
)
from olm.actors.store import Hold, Publish, Release, Store
from olm.errors import CorruptStore, OlmError, StoreError
from olm.log import get_logger
from olm.registry.client import base_url, open_registry
from olm.registry.errors import RegistryError
from olm.registry.fetch import Limit
from olm.store.manifests import Layer, Manifest, ManifestStore, decode_manifest
from olm.store.names import Digest, ModelName
from olm.store.partials import check_room, partial_bytes

__all__ = ["PullJob", "Pulls"]

_STOP_S = 20.0  # the record of a large download is synced to disk before it ends
_MAX_LAYERS = 4  # at once, of one job
_MAX_THREADS = 8  # they open, sync and rename files
_PLAIN: Final = frozenset(("file does not exist", "unauthorized: access denied"))
_log = get_logger("pull")

T = TypeVar("T")
R = TypeVar("R")


class _Run(StreamMessage[Progress], frozen=True):
    """Do the work; progress until the model is there. Closing the stream cancels it."""


class PullJob(Actor):
    """One pull, from the name to the manifest. Temporary."""

    __slots__ = ("_base", "_limit", "_model", "_pulls")

    def __init__(self, model: ModelName, base: str, limit: Bandwidth, pulls: Pulls) -> None:
        self._model = model
        self._base = base
        self._limit = limit
        self._pulls = pulls

    async def stop(self) -> None:
        """Let the blobs go. Those of no model stay until a later start finds them unused."""
        await self._pulls.store.actor.ask(Release(self.name), wait_for_restart=True)

    @streams(_Run)
    async def on_run(self, _: _Run, out: StreamSink[Progress]) -> None:
        """Run the job. Raises RegistryError, DigestMismatch, DiskFull, StoreError; each says what it was about."""
        store = self._pulls.store
        await out.send(Progress("pulling manifest"))
        data, manifest = await self._manifest()
        # As Ollama counts them: the layers in order, then the config. A blob may be there twice.
        layers = {layer.blob: layer for layer in (*manifest.layers, manifest.config)}
        await store.actor.ask(Hold(self.name, tuple(map(str, layers))))
        with self._about():
            missing = await self._in_thread(self._missing, layers)
        for digest, layer in layers.items():
            if digest not in missing:
                await out.send(_pulling(layer, layer.size))
        await self._fetch([(layers[digest], n_held) for digest, n_held in missing.items()], out)
        await out.send(Progress("verifying sha256 digest"))
        await out.send(Progress("writing manifest"))
        with self._about():
            replaced = await self._in_thread(self._replaced, manifest.blobs())
            await store.actor.ask(Publish(str(self._model), data))
            if await self._in_thread(self._is_pruned, replaced):
                await out.send(Progress("removing unused layers"))
        _log.info("pulled %s", self._model.shortest)
        await out.send(Progress("success"))

    async def _in_thread(self, act: Callable[[T], R], argument: T) -> R:
        return await trio.to_thread.run_sync(act, argument, limiter=self._pulls.threads)

    @contextmanager
    def _about(self, digest: Digest | None = None) -> Iterator[None]:
        """Have errors name the model, and the blob: behind the reason, which clients of Ollama look for."""
        what = self._model.shortest + (f", {digest.hex[:12]}" if digest else "")
        try:
            yield
        except OlmError as exc:
            if what in exc.message:
                raise
            raise type(exc)(f"{exc.message} ({what})", **exc.details) from exc

    async def _manifest(self) -> tuple[bytes, Manifest]:
        try:
            async with open_registry(self._base, self._pulls.home) as registry:
                data = await registry.manifest(self._model.tag)
            return data, decode_manifest(data)
        except CorruptStore as exc:
            raise RegistryError(
                "pull model manifest: the registry's answer is no manifest of a model"
                f" ({self._model.shortest})"
            ) from exc
        except RegistryError as exc:
            # These two are Ollama's to the letter; all others name the model.
            name = "" if exc.message in _PLAIN else f" ({self._model.shortest})"
            raise RegistryError(f"pull model manifest: {exc}{name}") from exc

    def _missing(self, layers: dict[Digest, Layer]) -> dict[Digest, int]:
        """Which blobs the store does not have, and how many bytes of each an earlier pull has left. Blocking.

        Raises DiskFull when there is no room for the rest.
        """
        blobs = self._pulls.store.blobs
        missing = {
            digest: partial_bytes(blobs.folder, digest, layer.size)
            for digest, layer in layers.items()
            if blobs.size(digest) != layer.size
        }
        check_room(blobs.folder, sum(layers[digest].size - n for digest, n in missing.items()))
        return missing

    def _replaced(self, kept: set[Digest]) -> set[Digest]:
        """The blobs of the model of this name that the new one does not have. Blocking."""
        manifests = ManifestStore(self._pulls.store.root / "manifests")
        try:
            found = manifests.find(self._model)
            return decode_manifest(manifests.read(found)).blobs() - kept if found else set()
        except StoreError:
            return set()  # a damaged manifest is replaced all the same

    def _is_pruned(self, replaced: set[Digest]) -> bool:
        """Whether blobs went with the manifest that was replaced; with OLM_NOPRUNE they stay. Blocking."""
        blobs = self._pulls.store.blobs
        return any(blobs.size(digest) is None for digest in replaced)

    async def _fetch(self, missing: list[tuple[Layer, int]], out: StreamSink[Progress]) -> None:
        """Download several layers at a time; the first failure ends all."""
        places = trio.CapacityLimiter(_MAX_LAYERS)
        with one_error():
            async with trio.open_nursery() as nursery:
                for layer, n_held in missing:
                    await places.acquire_on_behalf_of(layer)
                    # From what is there, or the rate of the first seconds would be a fairy tale.
                    await out.send(_pulling(layer, n_held))
                    nursery.start_soon(self._fetch_one, layer, out, places)

    async def _fetch_one(
        self, layer: Layer, out: StreamSink[Progress], places: trio.CapacityLimiter
    ) -> None:
        try:
            with self._about(layer.blob):
                async with (
                    self._pulls.shared(layer.blob, layer.size, self._base, self._limit) as download,
                    download.stream(Follow()) as progress,
                ):
                    async for n_bytes in progress:
                        await out.send(_pulling(layer, n_bytes))
        finally:
            places.release_on_behalf_of(layer)


def _pulling(layer: Layer, n_bytes: int) -> Progress:
    return Progress(f"pulling {layer.blob.hex[:12]}", layer.digest, layer.size, n_bytes)


@attrs.define
class _Generous:
    """The limit of a download that several share: that of whoever allows most. Implements `olm.registry.fetch.Limit`.

    Attributes:
        usual: holds when nobody is left, until the download has ended.
    """

    usual: Bandwidth
    limits: list[Bandwidth] = attrs.field(factory=list)

    def piece_bytes(self, at_most: int) -> int:
        """See `Bandwidth.piece_bytes`."""
        return self._best().piece_bytes(at_most)

    async def spend(self, n_bytes: int) -> None:
        """See `Bandwidth.spend`."""
        await self._best().spend(n_bytes)

    def _best(self) -> Bandwidth:
        return max(self.limits, key=lambda limit: limit.rate or math.inf, default=self.usual)


@attrs.define
class _Seat:
    """A digest's place in the table: who downloads it, and who wants it."""

    limit: _Generous
    n_users: int = 0
    address: Address | None = None
    lock: trio.Lock = attrs.field(factory=trio.Lock)


@attrs.frozen
class Pulls:
    """Starts pull jobs and the downloads that they share, under a one_for_one supervisor made for them."""

    supervisor: Supervisor
    store: Store
    home: Path
    pace: Pace = attrs.field(factory=Pace)
    limit: Bandwidth = attrs.field(factory=Bandwidth)
    threads: trio.CapacityLimiter = attrs.field(
        factory=partial(trio.CapacityLimiter, _MAX_THREADS), init=False
    )
    _connections: Connections = attrs.field(factory=Connections, init=False)
    _numbers: Iterator[int] = attrs.field(factory=partial(itertools.count, 1), init=False)
    _seats: dict[Digest, _Seat] = attrs.field(factory=dict, init=False)

    @asynccontextmanager
    async def pull(self, request: PullRequest) -> AsyncIterator[AsyncIterator[Progress]]:
        """Pull a model; see `JobsClient.pull`. On leaving, the job has ended and holds nothing any more."""
        model = ModelName.parse(request.model)
        base = base_url(model, insecure=request.insecure)
        name = f"pull-{next(self._numbers)}"
        limit = Bandwidth(request.limit_rate, self.limit)
        actor = partial(PullJob, model, base, limit, self)
        async with open_job(
            self.supervisor, name, actor, _Run(), stop_within_s=_STOP_S
        ) as progress:
            yield progress

    @asynccontextmanager
    async def shared(
        self, digest: Digest, size_bytes: int, base: str, limit: Bandwidth
    ) -> AsyncIterator[Address]:
        """Give the download of a digest, starting it if nobody has; the last to leave ends it.

        Two registries may have the same blob: the download goes on from the one it began with.
        """
        seat = self._seats.setdefault(digest, _Seat(_Generous(self.limit)))
        seat.n_users += 1
        seat.limit.limits.append(limit)
        name = f"download-{digest.hex}"
        try:
            async with seat.lock:  # whoever ends the one before holds it
                if seat.address is None:
                    seat.address = await self._start(name, digest, size_bytes, base, seat.limit)
            yield seat.address
        finally:
            seat.n_users -= 1
            seat.limit.limits.remove(limit)
            if seat.n_users == 0:
                with trio.move_on_after(2 * _STOP_S, shield=True):
                    await self._end(name, digest, seat)

    async def _start(
        self, name: str, digest: Digest, size_bytes: int, base: str, limit: Limit
    ) -> Address:
        config = DownloadConfig(
            digest=digest,
            size_bytes=size_bytes,
            base=base,
            home=self.home,
            blobs=self.store.blobs,
            pace=self.pace,
            connections=self._connections,
            threads=self.threads,
            limit=limit,
        )
        return await self.supervisor.start_child(
            ChildSpec(name, partial(Download, config), restart="temporary", stop_within_s=_STOP_S)
        )

    async def _end(self, name: str, digest: Digest, seat: _Seat) -> None:
        async with seat.lock:
            if seat.n_users == 0 and seat.address is not None:
                seat.address = None
                await self.supervisor.stop_child(name, "nobody waits for this download any more")
        if seat.n_users == 0 and self._seats.get(digest) is seat:
            del self._seats[digest]
