"""Push jobs: one temporary actor for each request, which brings a model's blobs to its registry and then its manifest.

The blobs are leased while it runs, so deleting the model takes none of them away. A registry shows nothing of the model
before its manifest, and that is last. How one blob gets there is `olm.actors.sending`'s.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

import attrs
import trio

from olm.actors.bandwidth import Bandwidth
from olm.actors.job import one_error, open_job
from olm.actors.jobs_client import Progress, PushRequest
from olm.actors.runtime import Actor, StreamMessage, StreamSink, Supervisor, streams
from olm.actors.sending import Means, Sending, SendPace, retry_wait_s
from olm.actors.store import Hold, Release, Store
from olm.errors import CorruptStore, ModelNotFound, OlmError
from olm.log import get_logger
from olm.registry.client import Registry, base_url, open_registry
from olm.registry.errors import RegistryError, TryAgain
from olm.registry.upload import Uploads, mount_source
from olm.registry.upload_record import UploadRecord
from olm.store.manifests import MANIFEST_TYPE, Layer, Manifest, ManifestStore, decode_manifest
from olm.store.names import Digest, ModelName

__all__ = ["PushJob", "Pushes"]

_STOP_S = 20.0
_MAX_LAYERS = 4  # at once, of one job
_MAX_CONNECTIONS = 8  # of all pushes together
_MAX_THREADS = 4  # they read files in pieces
_PLAIN = ("file does not exist", "unauthorized: access denied")  # Ollama's to the letter
_log = get_logger("push")


class _Run(StreamMessage[Progress], frozen=True):
    """Do the work; progress until the registry has the model. Closing the stream cancels it."""


class PushJob(Actor):
    """One push, from the manifest in the store to the one in the registry. Temporary."""

    __slots__ = ("_insecure", "_model", "_pushes", "_rate")

    def __init__(self, model: ModelName, pushes: Pushes, *, insecure: bool, rate: int) -> None:
        self._model = model
        self._pushes = pushes
        self._insecure = insecure
        self._rate = rate

    async def stop(self) -> None:
        """Let the blobs go."""
        await self._pushes.store.actor.ask(Release(self.name), wait_for_restart=True)

    @streams(_Run)
    async def on_run(self, _: _Run, out: StreamSink[Progress]) -> None:
        """Run the job. Raises ModelNotFound, RegistryError, CorruptStore, StoreError."""
        await out.send(Progress("retrieving manifest"))
        try:
            model, data, manifest = await self._manifest()
        except OlmError:
            await out.send(Progress("couldn't retrieve manifest"))
            raise
        base = base_url(attrs.evolve(model, scheme=self._model.scheme), insecure=self._insecure)
        async with open_registry(base, self._pushes.home) as registry:
            await self._send_all(registry, model, manifest, out)
            await out.send(Progress("pushing manifest"))
            with self._about():
                await self._publish(registry, model.tag, data, manifest.media_type or MANIFEST_TYPE)
        _log.info("pushed %s", model.shortest)
        await out.send(Progress("success"))

    @contextmanager
    def _about(self, layer: Layer | None = None) -> Iterator[None]:
        """Have errors name the model, and the blob: behind the reason, which clients of Ollama look for."""
        what = self._model.shortest + (f", {layer.blob.hex[:12]}" if layer else "")
        try:
            yield
        except OlmError as exc:
            name = "" if exc.message in _PLAIN else f" ({what})"
            raise type(exc)(f"{exc.message}{name}", **exc.details) from exc

    async def _manifest(self) -> tuple[ModelName, bytes, Manifest]:
        """The model's name as the store writes it, its manifest byte for byte, and all of its blobs held."""
        store = self._pushes.store
        names = [ModelName.parse(item.name) for item in await store.list()]
        model = next((name for name in names if name.same_as(self._model)), self._model)
        read = partial(_read_manifest, store.root, model)
        data = await trio.to_thread.run_sync(read, limiter=self._pushes.threads)
        manifest = decode_manifest(data)
        layers = (*manifest.layers, manifest.config)
        await store.actor.ask(Hold(self.name, tuple(layer.digest for layer in layers)))
        check = partial(_check_blobs, store, layers, f"model '{model.shortest}'")
        await trio.to_thread.run_sync(check, limiter=self._pushes.threads)
        return model, data, manifest

    async def _send_all(
        self, registry: Registry, model: ModelName, manifest: Manifest, out: StreamSink[Progress]
    ) -> None:
        """Send several blobs at a time; the first failure ends all."""
        means = self._pushes.means(registry, self._rate)
        # As Ollama counts them: the layers in order, then the config. A blob may be there twice.
        layers = {layer.blob: layer for layer in (*manifest.layers, manifest.config)}
        places = trio.CapacityLimiter(_MAX_LAYERS)
        with one_error():
            async with trio.open_nursery() as nursery:
                for layer in layers.values():
                    await places.acquire_on_behalf_of(layer)
                    source = mount_source(layer.from_, model)
                    sending = partial(self._send_one, layer, source, means, out)
                    nursery.start_soon(_in_place, sending, places, layer)

    async def _send_one(
        self, layer: Layer, source: str, means: Means, out: StreamSink[Progress]
    ) -> None:
        record = UploadRecord.of(self._pushes.home, means.uploads.registry.base, layer.blob)
        told = _Told()
        path = self._pushes.store.blobs.path(layer.blob)
        sending = Sending(layer.blob, path, means, record, source=source, progressed=told.note)
        await out.send(_pushing(layer, 0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_tell, told, layer, out, means.pace.progress_s)
            with self._about(layer):
                async with self._pushes.turn(record.base, layer.blob):
                    await sending.run()
            nursery.cancel_scope.cancel("the blob is there")
        if told.n_told < layer.size:
            await out.send(_pushing(layer, layer.size))

    async def _publish(self, registry: Registry, tag: str, data: bytes, media_type: str) -> None:
        pace = self._pushes.pace
        for n_failures in itertools.count(1):
            try:
                await registry.put_manifest(tag, data, media_type)
            except TryAgain as exc:
                if n_failures >= pace.n_tries:
                    raise RegistryError(f"max retries exceeded: {exc}") from exc
                wait_s = retry_wait_s(exc, n_failures, pace)
            else:
                return
            await trio.sleep(wait_s)


class _Told:
    """How many bytes of a blob are there; waited for by whoever tells it."""

    def __init__(self) -> None:
        self.n_bytes = self.n_told = 0
        self.changed = trio.Event()

    def note(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self.changed.set()


async def _tell(told: _Told, layer: Layer, out: StreamSink[Progress], every_s: float) -> None:
    while True:
        await told.changed.wait()
        told.changed = trio.Event()
        n_bytes = told.n_bytes
        await out.send(_pushing(layer, n_bytes))
        told.n_told = n_bytes
        await trio.sleep(every_s)


async def _in_place(
    work: Callable[[], Awaitable[None]], places: trio.CapacityLimiter, borrower: object
) -> None:
    try:
        await work()
    finally:
        places.release_on_behalf_of(borrower)


def _pushing(layer: Layer, n_bytes: int) -> Progress:
    return Progress(f"pushing {layer.blob.hex[:12]}", layer.digest, layer.size, n_bytes)


def _read_manifest(root: Path, model: ModelName) -> bytes:
    """Blocking. Raises ModelNotFound, CorruptStore, StoreError."""
    manifests = ManifestStore(root / "manifests")
    file = manifests.find(model)
    if file is None:
        raise ModelNotFound(f"model '{model.shortest}' not found")
    return manifests.read(file)


def _check_blobs(store: Store, layers: Iterable[Layer], what: str) -> None:
    """Blocking. Raises CorruptStore."""
    for layer in layers:
        link = store.blobs.links.record(layer.blob)
        if link is not None and (trouble := link.trouble()):
            raise CorruptStore(f"{what}, blob {layer.digest}: {trouble}")
        size = store.blobs.size(layer.blob)
        if size is None:
            raise CorruptStore(f"{what}: blob {layer.digest} is missing from the store")
        if size != layer.size:
            raise CorruptStore(f"{what}: blob {layer.digest} has {size} bytes, not {layer.size}")


@attrs.frozen
class Pushes:
    """Starts push jobs under a one_for_one supervisor made for them.

    Attributes:
        home: olm's: its key, its logins, its records of uploads.
        bandwidth: the limit of all pushes together.
    """

    supervisor: Supervisor
    store: Store
    home: Path
    bandwidth: Bandwidth = attrs.field(factory=Bandwidth)
    pace: SendPace = attrs.field(factory=SendPace)
    threads: trio.CapacityLimiter = attrs.field(
        factory=partial(trio.CapacityLimiter, _MAX_THREADS), init=False
    )
    _connections: trio.CapacityLimiter = attrs.field(
        factory=partial(trio.CapacityLimiter, _MAX_CONNECTIONS), init=False
    )
    _numbers: Iterator[int] = attrs.field(factory=partial(itertools.count, 1), init=False)
    _turns: WeakValueDictionary[tuple[str, Digest], trio.Lock] = attrs.field(
        factory=WeakValueDictionary, init=False
    )

    @asynccontextmanager
    async def push(self, request: PushRequest) -> AsyncIterator[AsyncIterator[Progress]]:
        """Push a model; see `JobsClient.push`. On leaving, the job has ended and holds nothing any more."""
        model = ModelName.parse(request.model)
        base_url(
            model, insecure=request.insecure
        )  # refuses what the user did not allow, before anything is begun
        await trio.to_thread.run_sync(UploadRecord.sweep, self.home, limiter=self.threads)
        actor = partial(PushJob, model, self, insecure=request.insecure, rate=request.limit_rate)
        name = f"push-{next(self._numbers)}"
        async with open_job(
            self.supervisor, name, actor, _Run(), stop_within_s=_STOP_S
        ) as progress:
            yield progress

    def turn(self, base: str, digest: Digest) -> trio.Lock:
        """What whoever brings this blob to this repository holds; whoever comes later finds it there, or goes on."""
        return self._turns.setdefault((base, digest), trio.Lock())

    def means(self, registry: Registry, rate: int) -> Means:
        """What one job uploads with."""
        return Means(
            uploads=Uploads(registry),
            pace=self.pace,
            bandwidth=Bandwidth(rate, self.bandwidth),
            threads=self.threads,
            connections=self._connections,
        )
