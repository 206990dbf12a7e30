"""Create jobs: one temporary actor for each.

A job holds its blobs against pruning, reads headers and writes small layers in threads, and publishes through the
store actor at the very end; until then nothing is visible, and a job that is cancelled or killed leaves no name behind.
What becomes a layer is decided in `olm.store.create_plan`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from olm.actors.intake import Intake, Wanted
from olm.actors.job import open_job
from olm.actors.jobs_client import CreateRequest, Progress, PullRequest
from olm.actors.making import Making
from olm.actors.runtime import (
    Actor,
    StreamMessage,
    StreamSink,
    Supervisor,
    streams,
)
from olm.actors.store import BeginCreate, Hold, Publish, Release, Settle, Store
from olm.errors import InvalidRequest, ModelNotFound, TemplateError
from olm.gguf import read_header
from olm.store.create_files import Quantize, checked_quantize
from olm.store.create_plan import (
    Base,
    Detected,
    Text,
    Wishes,
    check_files,
    check_link_names,
    config_of,
    draft_layers,
    file_layers,
    habits_of,
    has_template,
    plan_layers,
)
from olm.store.disk import disk_errors
from olm.store.manifests import MODEL, Layer, config_layer, encode_manifest
from olm.store.names import Digest, ModelName
from olm.store.splits import Source, SplitSet

__all__ = ["CheckedRequest", "CreateJob", "check_request", "check_template", "open_create"]


Pull = Callable[[PullRequest], AbstractAsyncContextManager[AsyncIterator[Progress]]]

_STOP_S: Final = 30.0  # a pull on the way has its own things to finish
_DONE: Final = "success"


@attrs.frozen(kw_only=True)
class CheckedRequest:
    """A create request whose every name, path, digest and value is in order."""

    model: ModelName
    from_: str
    files: Mapping[str, Digest]
    adapters: Mapping[str, Digest]
    wishes: Wishes
    links: Mapping[str, str] = attrs.field(factory=dict)
    quantize: Quantize | None = None
    drafts: Mapping[str, Digest] = attrs.field(factory=dict)
    draft_quantize: Quantize | None = None

    @property
    def digests(self) -> tuple[str, ...]:
        """The uploaded blobs that the job needs."""
        matrix = self.quantize.imatrix if self.quantize else None
        maps = (self.files, self.adapters, self.drafts)
        found = [digest for files in maps for digest in files.values()]
        return tuple(map(str, [*found, matrix] if matrix else found))


def check_request(request: CreateRequest) -> CheckedRequest:
    """Check all that can be checked before any work, in Ollama's order and words.

    Raises:
        InvalidName, InvalidRequest, InvalidOption: the request is wrong.
    """
    name = ModelName.parse(request.model)
    files = check_files(request.files)
    adapters = check_files(request.adapters)
    check_link_names(request.links, [*files, *adapters])
    if not request.from_ and not files and not request.links:
        raise InvalidRequest("neither 'from' or 'files' was specified")
    if request.from_:
        ModelName.parse(request.from_)
    imatrix = check_files(request.imatrix)
    quantize = checked_quantize(request.quantize, request.tensor_types, imatrix)
    draft_quantize = checked_quantize(request.draft_quantize, {}, {})
    if draft_quantize and not request.draft_files:
        raise InvalidRequest("--draft-quantize requires a DRAFT model")
    wishes = Wishes(
        template=request.template or "",
        system=request.system or "",
        licenses=request.licenses,
        parameters=request.parameters,
        messages=request.messages or (),
        renderer=request.renderer,
        parser=request.parser,
        requires=request.requires,
        info=request.info,
    )
    return CheckedRequest(
        model=name,
        from_=request.from_,
        files=files,
        adapters=adapters,
        wishes=wishes,
        links=request.links,
        quantize=quantize,
        drafts=check_files(request.draft_files),
        draft_quantize=draft_quantize,
    )


def check_template(text: str) -> None:
    """Parse a template that a request brings. Blocking: a long one takes a while.

    Raises:
        InvalidRequest: `template error: …`, Ollama's words with Go's behind them.
    """
    from olm.template.chat import ChatTemplate

    try:
        ChatTemplate(text)
    except TemplateError as exc:
        raise InvalidRequest(f"template error: {exc.message}") from exc


def _detect(path: Path) -> Detected | None:
    """Find the built-in template for a GGUF file's own. Blocking. Raises GgufError."""
    from olm.template.builtin import match

    with disk_errors("read a model's template"):
        found = match(read_header(path).text("tokenizer.chat_template"))
    return None if found is None else Detected(found.name, found.text, found.stops)


@attrs.frozen
class _Taken:
    """The files of a request, by what they are for."""

    files: Sequence[Source | SplitSet]
    adapters: Sequence[Source | SplitSet]
    drafts: Sequence[Source | SplitSet]


def _weights_of(files: Sequence[Source | SplitSet], base: Base | None) -> Digest | None:
    """The weights of the model that is made, or their first part."""
    for file in files:
        if file.facts.kind == "model":
            return file.parts[0].digest if isinstance(file, SplitSet) else file.digest
    layers = base.layers if base else ()
    return next((layer.blob for layer in layers if layer.media_type == MODEL), None)


class _Run(StreamMessage[Progress], frozen=True):
    """Do the work; progress until the model is there. Closing the stream cancels it."""


class CreateJob(Actor):
    """One create, from the checked request to the manifest. Temporary."""

    __slots__ = ("_created", "_limiter", "_pull", "_request", "_store", "_supervisor")

    def __init__(
        self,
        request: CheckedRequest,
        supervisor: Supervisor,
        store: Store,
        pull: Pull,
        limiter: trio.CapacityLimiter,
    ) -> None:
        """`supervisor`: of children that convert."""
        self._pull = pull
        self._request = request
        self._supervisor = supervisor
        self._store = store
        self._limiter = limiter
        self._created: list[Digest] = []

    async def stop(self) -> None:
        """Let the blobs go: those of the new model are referenced by now, leftovers are removed."""
        await self._store.actor.ask(Settle(self._request.digests), wait_for_restart=True)
        leftovers = tuple(str(digest) for digest in self._created)
        await self._store.actor.ask(Release(self.name, leftovers), wait_for_restart=True)

    @streams(_Run)
    async def on_run(self, _: _Run, out: StreamSink[Progress]) -> None:
        """Run the job.

        Raises:
            ModelNotFound, InvalidRequest, CheckpointError, GgufError, DiskFull, StoreError.
            ModelError: a converting child died.
        """
        request, actor = self._request, self._store.actor
        base = await self._base(out)
        making = Making(self._supervisor, self._store, self.name, self._keep, out)
        intake = Intake(making, self._limiter)
        taken = await self._take(intake, base)
        found = [
            *file_layers(taken.files, adapters=False),
            *file_layers(taken.adapters, adapters=True),
            *(draft_layers(taken.drafts) if taken.drafts else ()),
        ]
        weights = [file.facts for file in taken.files if file.facts.kind == "model"]
        if base is None and not weights:
            raise InvalidRequest("no model among the files: FROM needs the weights of a model")
        detected = None
        if not has_template(base, request.wishes):
            detected = await self._detect([*found, *(base.layers if base else ())])
        new = weights[0] if weights else None
        habits = habits_of(new, base, request.wishes)
        planned = plan_layers(base, found, request.wishes, detected, habits.stops)
        projectors = [file.facts for file in taken.files if file.facts.kind == "projector"]
        draft = taken.drafts[0].facts.architecture if taken.drafts else ""
        config = config_of(base, new, projectors, request.wishes, habits, draft)
        layers = await self._write(planned, out, intake.fresh)
        stored_config, _is_new = await self._put(config)
        await out.send(Progress("writing manifest"))
        data = encode_manifest(config_layer(stored_config, len(config)), layers)
        await actor.ask(Publish(str(request.model), data))
        # Uploads that were merged or converted need not wait for another create: the disk is wanted.
        self._created.extend(intake.spent)
        await out.send(Progress(_DONE))

    async def _take(self, intake: Intake, base: Base | None) -> _Taken:
        """Take all files in. Weights of the base that are to be quantized count as new ones."""
        request, name = self._request, self._request.model.model
        quantize = request.quantize
        wanted = Wanted(files=request.files, links=request.links, name=name, quantize=quantize)
        files = await intake.take(wanted)
        if quantize and base and not any(file.facts.kind == "model" for file in files):
            files += await self._quantized_base(intake, base, quantize)
        target = _weights_of(files, base)
        adapters = await intake.take(Wanted(files=request.adapters, name=name, base=target))
        drafts = await intake.take(
            Wanted(files=request.drafts, name=name, quantize=request.draft_quantize, is_draft=True)
        )
        return _Taken(files, adapters, drafts)

    async def _quantized_base(
        self, intake: Intake, base: Base, quantize: Quantize
    ) -> list[Source | SplitSet]:
        parts = [layer.blob for layer in base.layers if layer.media_type == MODEL]
        if not parts or (quantize.is_plain and base.config.file_type == quantize.file_type):
            return []
        return [await intake.quantize(base.name, parts, quantize)]

    async def _base(self, out: StreamSink[Progress]) -> Base | None:
        """Hold what the job needs and read the model it starts from, which is pulled when it is not there."""
        wanted, begin = self._request.from_, self._store.actor.ask
        message = BeginCreate(self.name, wanted, self._request.digests)
        base = await begin(message)
        if base is not None or not wanted:
            return base
        async with self._pull(PullRequest(wanted)) as steps:
            async for step in steps:
                if step.status != _DONE:  # that is for the end of all
                    await out.send(step)
        base = await begin(message)
        if base is None:
            raise ModelNotFound(f"model '{wanted}' was deleted as soon as it was there")
        return base

    async def _keep(self, digest: Digest) -> None:
        """Hold a blob that is about to be made, and note it: whatever happens then, `stop` looks after it."""
        await self._store.actor.ask(Hold(self.name, (str(digest),)))
        self._created.append(digest)

    async def _detect(self, layers: Sequence[Layer]) -> Detected | None:
        """Look at the weights of the new model: the first model layer, its own before an inherited one."""
        weights = next((layer for layer in layers if layer.media_type == MODEL), None)
        if weights is None:
            return None
        path = self._store.blobs.path(weights.blob)
        return await trio.to_thread.run_sync(_detect, path, limiter=self._limiter)

    async def _write(
        self,
        planned: Sequence[Layer | Text],
        out: StreamSink[Progress],
        fresh: Collection[Digest],
    ) -> list[Layer]:
        """Store the small layers, then report all of them in order, as Ollama does. `fresh`: blobs that were made just now."""
        layers: list[Layer] = []
        statuses: list[str] = []
        for item in planned:
            if isinstance(item, Layer):
                layer, is_new, status = item, item.blob in fresh, ""
            else:
                digest, is_new = await self._put(item.data)
                layer, status = Layer(item.media_type, str(digest), len(item.data)), item.status
            layers.append(layer)
            verb = "creating new" if is_new else "using existing"
            statuses.append(status or f"{verb} layer {layer.digest}")
        for status in statuses:
            await out.send(Progress(status))
        return layers

    async def _put(self, data: bytes) -> tuple[Digest, bool]:
        digest = Digest.of(data)
        await self._keep(digest)
        return await trio.to_thread.run_sync(self._store.blobs.put, data, limiter=self._limiter)


@asynccontextmanager
async def open_create(
    supervisor: Supervisor,
    name: str,
    store: Store,
    request: CreateRequest,
    pull: Pull,
    limiter: trio.CapacityLimiter,
) -> AsyncIterator[AsyncIterator[Progress]]:
    """Make a model; see `JobsClient.create`. On leaving, the job has ended and holds nothing any more.

    Args:
        pull: fetches a model that the new one starts from.
        limiter: of threads for small files.
    """
    checked = check_request(request)
    if checked.wishes.template:
        await trio.to_thread.run_sync(check_template, checked.wishes.template, limiter=limiter)
    actor = partial(CreateJob, checked, supervisor, store, pull, limiter)
    async with open_job(supervisor, name, actor, _Run(), stop_within_s=_STOP_S) as progress:
        yield progress
