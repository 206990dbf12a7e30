"""The files of a create job: read, hashed where they are, merged, converted, until each is what a layer is made of.

Which file is what is decided in `olm.store.create_files`, `olm.store.create_plan` and `olm.store.splits`; what a conversion
runs in is `olm.actors.making`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import attrs
import trio

from olm.actors.jobs_client import Progress
from olm.actors.making import Made, Making
from olm.actors.runtime import StreamSink
from olm.actors.store import Learn, Store
from olm.convert.wire import Convert, Quantization
from olm.errors import GgufError, InvalidRequest
from olm.gguf import ModelFacts, facts_of, read_header
from olm.gguf.adapters import check_adapter
from olm.gguf.merge import plan_merge
from olm.gguf.reader import NOT_GGUF
from olm.store.blobs import BlobStore
from olm.store.create_files import (
    Quantize,
    adapter_names,
    checkpoint_level,
    checkpoint_names,
    draft_error,
    is_checkpoint_weights,
    quantize_error,
)
from olm.store.disk import disk_errors
from olm.store.linking import InPlace, begins_as_gguf, checked_link
from olm.store.names import Digest
from olm.store.partials import check_room
from olm.store.splits import Source, SplitSet, group_splits

__all__ = ["Intake", "Wanted"]

P = ParamSpec("P")
T = TypeVar("T")

_CONFIG: Final = "config.json"
_MAX_CONFIG_BYTES: Final = 16 << 20
_STOP_S: Final = 10.0
_REPORT_S: Final = 0.1
_PLACED: Final = {
    "linked": "linked to {}",
    "cloned": "cloned {}",
    "exists": "using existing layer for {}",
}


@attrs.frozen(kw_only=True)
class Wanted:
    """What is to be taken in.

    Attributes:
        files: uploads, by their relative names.
        links: files to be run or read in place: relative name to absolute path.
        name: what a checkpoint becomes is called in its file.
        base: for adapters, the model they are for.
    """

    files: Mapping[str, Digest]
    links: Mapping[str, str] = attrs.field(factory=dict)
    name: str = ""
    quantize: Quantize | None = None
    is_draft: bool = False
    base: Digest | None = None


@attrs.frozen
class Intake:
    """Takes files in for one job.

    Attributes:
        making: converts and quantizes.
        short: the limiter of threads that read headers, shared by all jobs.
        spent: uploads that were merged or converted and are needed no more.
        fresh: blobs that were made here.
    """

    making: Making
    short: trio.CapacityLimiter
    spent: list[Digest] = attrs.field(factory=list, init=False)
    fresh: set[Digest] = attrs.field(factory=set, init=False)
    # Hashing gigabytes must not keep other jobs from their small files.
    _long: trio.CapacityLimiter = attrs.field(
        factory=partial(trio.CapacityLimiter, 1), init=False, repr=False
    )

    @property
    def store(self) -> Store:
        """Where blobs are."""
        return self.making.store

    @property
    def out(self) -> StreamSink[Progress]:
        """Where progress goes."""
        return self.making.out

    async def take(self, wanted: Wanted) -> list[Source | SplitSet]:
        """Take in uploads and files to be run in place.

        GGUF files stay as they are, or are quantized; parts of split files become one, or a set that stays apart. All other
        files are one checkpoint, which is converted.

        Raises:
            InvalidRequest, CheckpointError, GgufError: a file is not there, or not what it should be.
            DiskFull, StoreError: the store cannot take it.
            ModelError: the converting child died.
        """
        self._check_there(wanted.files)
        paths = await self._thread(_checked_links, wanted.links, self.store.root)
        ggufs = await self._thread(_ggufs, self.store.blobs, wanted.files)
        in_place = await self._thread(_weights_in_place, paths)
        linked = await self._link({n: path for n, path in paths.items() if n not in in_place})
        rest = {name: digest for name, digest in wanted.files.items() if name not in ggufs}
        is_checkpoint = any(map(is_checkpoint_weights, rest)) or bool(in_place)
        named = {name: digest for name, digest in wanted.files.items() if name in ggufs}
        if not is_checkpoint and not named and not linked:
            named = rest  # the reader says what they are not
        sources = [
            await self._read(name, digest, is_linked=name in linked)
            for name, digest in {**named, **linked}.items()
        ]
        if wanted.base:
            for source in sources:
                await self._check_adapter(source, wanted.base)
        whole = [await self._whole(item, wanted) for item in group_splits(sources)]
        if is_checkpoint:
            where = {name: self.store.blobs.path(digest) for name, digest in rest.items()}
            whole += await self._converted({**where, **in_place}, in_place, wanted)
            self.spent.extend(rest.values())
        return whole

    def _check_there(self, files: Mapping[str, Digest]) -> None:
        for name, digest in files.items():
            if self.store.blobs.size(digest) is None:
                raise InvalidRequest(f"{name}: blob {digest} is not in the store, upload it first")

    # -- converting --------------------------------------------------------------------------------------------------

    async def _converted(
        self, paths: Mapping[str, Path], in_place: Mapping[str, Path], wanted: Wanted
    ) -> list[Source]:
        """Convert a checkpoint, or several adapters: uploaded files, and weights that are read where they are."""
        for path in in_place.values():
            size = (await trio.Path(path).stat()).st_size
            await self.out.send(Progress(f"reading {path.name} in place", str(path), size, size))
        folders = adapter_names(paths) if wanted.base else {wanted.name: checkpoint_names(paths)}
        found: list[Source] = []
        for called, inside in folders.items():
            files = {inside[name]: paths[name] for name in inside}
            found += await self._convert(files, called, wanted)
        return found

    async def _convert(
        self, files: Mapping[str, Path], called: str, wanted: Wanted
    ) -> list[Source]:
        blobs = self.store.blobs
        request = Convert(
            target="",
            files={name: str(path) for name, path in files.items()},
            base=str(blobs.path(wanted.base)) if wanted.base else "",
            name=called,
            quantization=self._quantization(wanted.quantize),
        )
        level = await self._thread(_level, files.get(_CONFIG))
        first = "converting adapter" if wanted.base else "converting model"
        made = await self.making.make(request, _status(wanted.quantize, level, first), first=first)
        return [await self._made(item, f"{called}.gguf") for item in made]

    async def quantize(
        self, name: str, parts: Sequence[Digest], wanted: Quantize, *, is_draft: bool = False
    ) -> Source:
        """Quantize a GGUF of the store, of one part or of several in order.

        Raises:
            InvalidRequest: it is quantized already. And as `take`.
        """
        facts = await self._facts(name, parts[0])
        level = facts.quantization_level
        error = draft_error(level) if is_draft else quantize_error(level)
        if error is not None:
            raise error
        paths = [str(self.store.blobs.path(part)) for part in parts]
        request = Convert(target="", ggufs=paths, quantization=self._quantization(wanted))
        [made] = await self.making.make(request, _status(wanted, level, ""))
        return await self._made(made, name)

    async def _made(self, made: Made, name: str) -> Source:
        if made.is_new:
            self.fresh.add(made.digest)
        facts = await self._facts(name, made.digest)
        return Source(name, made.digest, made.size_bytes, facts)

    def _quantization(self, wanted: Quantize | None) -> Quantization | None:
        if wanted is None:
            return None
        matrix = self.store.blobs.path(wanted.imatrix) if wanted.imatrix else ""
        return Quantization(
            file_type=wanted.file_type,
            overrides=tuple(wanted.overrides.items()),
            imatrix=str(matrix),
            imatrix_name=wanted.imatrix_name,
        )

    # -- in place ----------------------------------------------------------------------------------------------------

    async def _link(self, links: Mapping[str, Path]) -> dict[str, Digest]:
        """Take the files in that are to be run in place; the digest of each."""
        found: dict[str, Digest] = {}
        for name, path in links.items():
            file = await self._thread(InPlace, self.store.blobs, path)
            try:
                # The digest is not known yet: the path stands where clients look for what a bar belongs to.
                meter = _Meter(self.out, f"hashing {path.name}", str(path), file.size_bytes)
                found[name] = digest = await self._thread(file.hash, meter.tell)
                await self.making.keep(digest)
                how = await self._thread(file.place)
            finally:
                with trio.move_on_after(_STOP_S, shield=True):
                    await self._thread(file.close)
            await self.out.send(Progress(_PLACED[how].format(path)))
        return found

    # -- reading -----------------------------------------------------------------------------------------------------

    async def _read(self, name: str, digest: Digest, *, is_linked: bool) -> Source:
        await self.out.send(Progress("parsing GGUF"))
        facts = await self._facts(name, digest)
        return Source(name, digest, self.store.blobs.size(digest) or 0, facts, is_linked)

    async def _facts(self, name: str, digest: Digest) -> ModelFacts:
        path = self.store.blobs.path(digest)
        try:
            with disk_errors(f"read {name}"):
                header = await trio.to_thread.run_sync(read_header, path, limiter=self.short)
        except GgufError as exc:
            raise GgufError(_named(exc.message, name)) from exc
        facts = facts_of(header)
        await self.store.actor.ask(Learn(str(digest), facts))
        return facts

    async def _check_adapter(self, source: Source, base: Digest) -> None:
        """Refuse an adapter for another model now, and not when the model is loaded. Raises GgufError."""
        if source.facts.kind != "adapter":
            return  # refused where layers are planned
        blobs = self.store.blobs
        with disk_errors(f"read {source.name}"):
            adapter, model = [
                await trio.to_thread.run_sync(read_header, blobs.path(digest), limiter=self.short)
                for digest in (source.digest, base)
            ]
        check_adapter(adapter, model, source.name)

    # -- quantizing and merging --------------------------------------------------------------------------------------

    async def _whole(self, item: Source | SplitSet, wanted: Wanted) -> Source | SplitSet:
        """Quantize a model if that is wanted, or else merge the parts of a split file, unless they are to stay where they are."""
        parts = (item,) if isinstance(item, Source) else item.parts
        quantize = wanted.quantize
        if quantize is not None and _must_change(item.facts, quantize):
            digests = [part.digest for part in parts]
            made = await self.quantize(parts[0].name, digests, quantize, is_draft=wanted.is_draft)
            self.spent.extend(digests)
            return made
        if isinstance(item, Source) or item.stays_split:
            return item
        name = parts[0].name
        digest, size = await self._thread(_merge, self, item)
        self.spent.extend(part.digest for part in parts)
        self.fresh.add(digest)
        return Source(name, digest, size, await self._facts(name, digest))

    async def _thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await trio.to_thread.run_sync(partial(function, *args, **kwargs), limiter=self._long)


def _status(wanted: Quantize | None, level: str, otherwise: str) -> str:
    if wanted is None or (wanted.is_plain and otherwise):
        return otherwise
    return f"quantizing {level} model to {wanted.file_type}"


def _must_change(facts: ModelFacts, wanted: Quantize) -> bool:
    is_same = wanted.is_plain and facts.quantization_level == wanted.file_type
    return facts.kind == "model" and not is_same


def _checked_links(links: Mapping[str, str], root: Path) -> dict[str, Path]:
    return {name: checked_link(text, root) for name, text in links.items()}


def _weights_in_place(links: Mapping[str, Path]) -> dict[str, Path]:
    """The links that are weights of a checkpoint: they are read where they are. Other files of one are uploaded.

    A text of somebody else's must not become part of a model just because the daemon may read it.
    """
    weights = {name: path for name, path in links.items() if is_checkpoint_weights(name)}
    return {name: path for name, path in weights.items() if not begins_as_gguf(path)}


def _ggufs(blobs: BlobStore, files: Mapping[str, Digest]) -> set[str]:
    """The uploads that begin as GGUF files do."""
    return {name for name, digest in files.items() if begins_as_gguf(blobs.path(digest))}


def _level(config: Path | None) -> str:
    if config is None:
        return checkpoint_level(b"")
    with disk_errors(f"read {_CONFIG}"), config.open("rb") as file:
        return checkpoint_level(file.read(_MAX_CONFIG_BYTES))


def _merge(intake: Intake, item: SplitSet) -> tuple[Digest, int]:
    """Write the merged blob, in a thread; its digest and size in bytes."""
    name, blobs = item.parts[0].name, intake.store.blobs
    try:
        with disk_errors(f"merge {name}"):
            merge = plan_merge([blobs.path(part.digest) for part in item.parts])
            check_room(blobs.folder, merge.size_bytes)
            meter = _Meter(intake.out, f"merging {len(item.parts)} parts", name, merge.size_bytes)
            with blobs.create() as pending:
                for piece in merge.pieces():
                    pending.write(piece)
                    meter.tell(pending.size_bytes)
                trio.from_thread.run(intake.making.keep, pending.digest)
                digest, _is_new = pending.commit()
    except GgufError as exc:
        raise GgufError(_named(exc.message, name)) from exc
    return digest, merge.size_bytes


class _Meter:
    """Tells from a thread how far a file is, now and then; ends the thread's work when the job was cancelled."""

    def __init__(self, out: StreamSink[Progress], status: str, what: str, total: int) -> None:
        self._out = out
        self._status = status
        self._what = what
        self._total = total
        self._told_s = float("-inf")

    def tell(self, done: int) -> None:
        """Count `done` bytes in all."""
        trio.from_thread.check_cancelled()
        now = time.monotonic()
        if done >= self._total or now - self._told_s >= _REPORT_S:
            self._told_s = now
            step = Progress(self._status, self._what, self._total, done)
            trio.from_thread.run(self._out.send, step)


def _named(message: str, name: str) -> str:
    """The exact text for what is no GGUF at all, which clients know; the file's name before anything else."""
    return message if message == NOT_GGUF else f"{name}: {message}"
