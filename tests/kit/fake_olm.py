"""The clients of `olm.actors.client` in memory, driven by scripts: what routes are tested against.

A turn plays a script of events, waits and errors through a bounded channel, as the real one does; what callers asked
for, and which turns were left early, is recorded.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import attrs
import trio

from olm.actors.client import (
    ChatRequest,
    EmbedRequest,
    EmbedResult,
    GenerateRequest,
    LoadedModel,
    ModelDetails,
    ModelSummary,
    Olm,
    QueueRow,
    RenderedPrompt,
    RerankRequest,
    RerankResult,
    ShowResult,
    StoredModel,
)
from olm.actors.jobs_client import (
    CheckRequest,
    CreateRequest,
    ExportRequest,
    Finding,
    ImatrixRequest,
    ImportRequest,
    Progress,
    PullRequest,
    PushRequest,
)
from olm.actors.stats import SchedulerStats, Snapshot
from olm.chat.types import (
    CallArguments,
    CallEnd,
    CallStart,
    Done,
    Piece,
    Think,
    ToolCall,
    TurnEvent,
)
from olm.errors import DigestMismatch, InvalidName, ModelNotFound, OlmError
from olm.native.wire import WorkerStats
from olm.store.names import ModelName

__all__ = [
    "FakeJobs",
    "FakeModels",
    "FakeOlm",
    "FakeStore",
    "Pause",
    "Step",
    "Until",
    "answer",
    "called",
]

DETAILS = ModelDetails(
    format="gguf",
    family="llama",
    families=("llama",),
    parameter_size="2.4M",
    quantization_level="Q8_0",
    context_length=2048,
    embedding_length=128,
)


@attrs.frozen
class Pause:
    """A script waits this many (virtual) seconds."""

    seconds: float


@attrs.frozen
class Until:
    """A script waits for an event of the test."""

    event: trio.Event


Step = TurnEvent | Pause | Until | Exception


def answer(*texts: str, reason: str = "stop") -> list[Step]:
    """A script that says these texts and ends well."""
    done = Done(
        reason,  # type: ignore[arg-type]  # a Literal in the real thing
        n_prompt=11,
        n_generated=len(texts),
        prompt_ns=20_000_000,
        eval_ns=18_000_000,
    )
    return [*(Piece(content=text) for text in texts), done]


def called(name: str, arguments_json: str = "{}", *, index: int = 0) -> list[Step]:
    """The events of one whole tool call, its arguments in two parts."""
    call = ToolCall(name, arguments_json, f"call_{index:08}", index)
    middle = len(arguments_json) // 2
    return [
        CallStart(index, call.id, name),
        CallArguments(index, arguments_json[:middle]),
        CallArguments(index, arguments_json[middle:]),
        CallEnd(index, call),
    ]


class FakeTurn:
    def __init__(
        self,
        events: trio.MemoryReceiveChannel[TurnEvent | Exception],
        load_ns: int,
        queue_position: int,
    ) -> None:
        self._events = events
        self.load_ns = load_ns
        self.queue_position = queue_position

    def __aiter__(self) -> FakeTurn:
        return self

    async def __anext__(self) -> TurnEvent:
        event = await self._events.__anext__()
        if isinstance(event, Exception):
            raise event
        return event

    def drain(self) -> Sequence[TurnEvent]:
        taken: list[TurnEvent] = []
        while True:
            try:
                event = self._events.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return taken
            if isinstance(event, Exception):
                raise event
            taken.append(event)


class FakeModels:
    """Loaded models that say what the script says, or what `respond` makes of the request when there is one."""

    def __init__(self, store: FakeStore) -> None:
        self.store = store
        self.script: list[Step] = answer("Hi", " there")
        self.respond: Callable[[ChatRequest | GenerateRequest], list[Step]] | None = None
        self.buffer = 16
        self.load_ns = 41_234_567
        self.queue_position = 0
        self.queue_rows: list[QueueRow] = []
        self.enter_error: Exception | None = None
        self.vector: tuple[float, ...] = (0.01, -0.0017)
        self.score: Callable[[str, str], float] = lambda query, text: text.count(query) / 10
        self.rendered = RenderedPrompt("user: Hello")
        self.requests: list[object] = []
        self.n_running = 0
        self.n_left_early = 0
        self.all_ended = trio.Event()

    def chat(self, request: ChatRequest) -> AbstractAsyncContextManager[FakeTurn]:
        return self._turn(request.model, request)

    def generate(self, request: GenerateRequest) -> AbstractAsyncContextManager[FakeTurn]:
        return self._turn(request.model, request)

    @asynccontextmanager
    async def _turn(
        self, model: str, request: ChatRequest | GenerateRequest
    ) -> AsyncIterator[FakeTurn]:
        self.requests.append(request)
        await self._check(model)
        script = self.respond(request) if self.respond is not None else self.script
        send, receive = trio.open_memory_channel[TurnEvent | Exception](self.buffer)
        self.n_running += 1
        finished = False
        try:
            async with trio.open_nursery() as nursery:

                async def play() -> None:
                    nonlocal finished
                    with send:
                        for step in script:
                            if isinstance(step, Pause):
                                await trio.sleep(step.seconds)
                            elif isinstance(step, Until):
                                await step.event.wait()
                            else:
                                await send.send(step)
                    finished = True

                nursery.start_soon(play)
                with receive:
                    yield FakeTurn(receive, self.load_ns, self.queue_position)
                nursery.cancel_scope.cancel()
        finally:
            self.n_running -= 1
            self.n_left_early += not finished
            if not self.n_running:
                self.all_ended.set()

    async def render(self, request: ChatRequest | GenerateRequest) -> RenderedPrompt:
        self.requests.append(("render", request))
        await self._check(request.model)
        return self.rendered

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        self.requests.append(request)
        await self._check(request.model)
        return EmbedResult(
            [self.vector for _ in request.inputs], 8 * len(request.inputs), 1_019_500
        )

    async def load(
        self,
        model: str,
        *,
        options: Mapping[str, object],
        keep_alive_s: float | None,
        think: Think | None = None,
        client: str = "",
    ) -> int:
        self.requests.append(("load", model, dict(options), keep_alive_s))
        await self._check(model)
        return self.load_ns

    async def unload(self, model: str) -> None:
        self.requests.append(("unload", model))
        await self._check(model)

    async def ps(self) -> Sequence[LoadedModel]:
        return [
            LoadedModel(m.name, m.digest, m.details, m.size_bytes, 0, 2048, 300.0)
            for m in await self.store.list()
        ]

    async def rerank(self, request: RerankRequest) -> RerankResult:
        self.requests.append(request)
        await self._check(request.model)
        scores = [self.score(request.query, text) for text in request.documents]
        return RerankResult(scores, 8 * len(request.documents), 1_019_500)

    async def detokenize(self, model: str, tokens: Sequence[int]) -> str:
        """Every token is the code point of a character."""
        self.requests.append(("detokenize", model, tuple(tokens)))
        await self._check(model)
        return "".join(map(chr, tokens))

    async def tokenize(
        self, model: str, text: str, *, add_special: bool = True, parse_special: bool = True
    ) -> Sequence[int]:
        """Every character is its code point; a 1 stands before it all when special tokens are wanted."""
        self.requests.append(("tokenize", model, text, add_special, parse_special))
        await self._check(model)
        return [*([1] if add_special else []), *map(ord, text)]

    async def pieces(self, model: str, tokens: Sequence[int]) -> Sequence[bytes]:
        """As `detokenize`, but those up to 255 are a byte each."""
        await self._check(model)
        return [bytes([token]) if token < 256 else chr(token).encode() for token in tokens]

    async def count_tokens(self, request: ChatRequest) -> int:
        self.requests.append(("count", request))
        await self._check(request.model)
        return sum(len(message.content.split()) for message in request.messages)

    async def queue(self) -> Sequence[QueueRow]:
        await trio.lowlevel.checkpoint()
        return self.queue_rows

    async def _check(self, model: str) -> None:
        await trio.lowlevel.checkpoint()
        if self.enter_error is not None:
            raise self.enter_error
        await self.store.get(model)


class FakeBlobWriter:
    def __init__(self, store: FakeStore, digest: str) -> None:
        self._store = store
        self._digest = digest
        self._data = bytearray()

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self._store.write_gate is not None:
            await self._store.write_gate.wait()
        self._data += data
        self._store.n_written += len(data)

    async def commit(self) -> bool:
        await trio.lowlevel.checkpoint()
        found = "sha256:" + hashlib.sha256(self._data).hexdigest()
        if found != self._digest:
            raise DigestMismatch(f'digest mismatch, expected "{self._digest}", got "{found}"')
        new = self._digest not in self._store.blobs
        self._store.blobs[self._digest] = bytes(self._data)
        return new


class FakeStore:
    """Names and blobs in dictionaries."""

    def __init__(self, *names: str) -> None:
        self.blobs: dict[str, bytes] = {}
        self.write_gate: trio.Event | None = None
        self.n_written = 0
        self.n_open_writers = 0
        self.models: dict[str, StoredModel] = {}
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        full = ModelName.parse(name)
        self.models[full.shortest.lower()] = StoredModel(
            name=full.shortest,
            full_name=str(full),
            digest=hashlib.sha256(name.encode()).hexdigest(),
            size_bytes=2_019_393_189,
            modified_ns=1_787_335_200_000_000_001,
            details=DETAILS,
            capabilities=("completion",),
            weights=Path("/nowhere"),
            weights_digest="sha256:" + "0" * 64,
            licenses=("MIT",),
        )

    async def list(self) -> Sequence[ModelSummary]:
        await trio.lowlevel.checkpoint()
        return [
            ModelSummary(m.name, m.digest, m.size_bytes, m.modified_ns, m.details, m.capabilities)
            for m in self.models.values()
        ]

    async def get(self, name: str) -> StoredModel:
        await trio.lowlevel.checkpoint()
        found = self.models.get(ModelName.parse(name).shortest.lower())
        if found is None:
            raise ModelNotFound(f"model '{name}' not found")
        return found

    async def show(self, name: str, *, verbose: bool = False) -> ShowResult:
        model = await self.get(name)
        info: dict[str, object] = {
            "general.architecture": "llama",
            "llama.context_length": 2048,
            "tokenizer.ggml.tokens": ["a", "b"] if verbose else None,
        }
        return ShowResult(
            model=model,
            modelfile=f"# Modelfile\nFROM {model.name}\n",
            parameters='stop                           "<|im_end|>"',
            template="{{ .Prompt }}",
            model_info=info,
            tensors=[("token_embd.weight", "Q8_0", (128, 512))],
        )

    async def copy(self, source: str, destination: str) -> None:
        for label, name in (("source", source), ("destination", destination)):
            try:
                ModelName.parse(name)
            except InvalidName:
                raise InvalidName(f'{label} "{name}" is invalid') from None
        try:
            await self.get(source)
        except ModelNotFound:
            raise ModelNotFound(f'model "{source}" not found') from None
        self.add(destination)

    async def delete(self, name: str) -> None:
        try:
            ModelName.parse(name)
        except InvalidName:
            raise InvalidName(f'name "{name}" is invalid') from None
        model = await self.get(name)
        del self.models[model.name.lower()]

    async def has_blob(self, digest: str) -> bool:
        await trio.lowlevel.checkpoint()
        return digest in self.blobs

    @asynccontextmanager
    async def open_blob_writer(self, digest: str) -> AsyncIterator[FakeBlobWriter]:
        self.n_open_writers += 1
        try:
            yield FakeBlobWriter(self, digest)
        finally:
            self.n_open_writers -= 1


class FakeJobs:
    """Jobs that report what the script says."""

    def __init__(self, store: FakeStore) -> None:
        self.store = store
        self.script: list[Progress | Exception] = [
            Progress("parsing GGUF"),
            Progress("creating new layer sha256:abc"),
            Progress("writing manifest"),
            Progress("success"),
        ]
        self.requests: list[CreateRequest] = []
        self.pulled: list[PullRequest] = []
        self.pushed: list[PushRequest] = []
        self.exports: list[ExportRequest] = []
        self.imports: list[ImportRequest] = []
        self.checks: list[CheckRequest] = []
        self.found: list[Progress | Finding | Exception] = [
            Progress("reading manifests"),
            Finding("orphan", "sha256:" + "0" * 64, "no model needs it", size_bytes=5),
            Progress("success"),
        ]
        self.archive: list[bytes | Exception] = [b"an ", b"archive"]
        self.measured: list[ImatrixRequest] = []
        self.matrix: list[Progress | bytes | Exception] = [
            Progress("computing imatrix", total=1024, completed=512),
            b"a ",
            b"matrix",
        ]
        self.received = b""

    @asynccontextmanager
    async def create(self, request: CreateRequest) -> AsyncIterator[AsyncIterator[Progress]]:
        self.requests.append(request)
        await trio.lowlevel.checkpoint()
        try:
            ModelName.parse(request.model)
        except InvalidName:
            raise InvalidName("invalid model name") from None
        send, receive = trio.open_memory_channel[Progress | Exception](len(self.script))
        with send:
            for step in self.script:
                send.send_nowait(step)
        with receive:
            yield _Steps(receive)
        self.store.add(request.model)

    def pull(self, request: PullRequest) -> AbstractAsyncContextManager[AsyncIterator[Progress]]:
        """Go through the same script."""
        self.pulled.append(request)
        return self.create(CreateRequest(model=request.model))

    def push(self, request: PushRequest) -> AbstractAsyncContextManager[AsyncIterator[Progress]]:
        """Go through the same script."""
        self.pushed.append(request)
        return self.create(CreateRequest(model=request.model))

    @asynccontextmanager
    async def check(
        self, request: CheckRequest
    ) -> AsyncIterator[AsyncIterator[Progress | Finding]]:
        self.checks.append(request)
        await trio.lowlevel.checkpoint()
        yield self._found()

    async def _found(self) -> AsyncIterator[Progress | Finding]:
        for step in self.found:
            await trio.lowlevel.checkpoint()
            if isinstance(step, Exception):
                raise step
            yield step

    @asynccontextmanager
    async def imatrix(
        self, request: ImatrixRequest
    ) -> AsyncIterator[AsyncIterator[Progress | bytes]]:
        self.measured.append(request)
        await trio.lowlevel.checkpoint()
        yield self._matrix()

    async def _matrix(self) -> AsyncIterator[Progress | bytes]:
        for step in self.matrix:
            await trio.lowlevel.checkpoint()
            if isinstance(step, Exception):
                raise step
            yield step

    @asynccontextmanager
    async def export(self, request: ExportRequest) -> AsyncIterator[AsyncIterator[Progress]]:
        self.exports.append(request)
        async with self._scripted() as steps:
            yield steps

    @asynccontextmanager
    async def export_stream(self, request: ExportRequest) -> AsyncIterator[AsyncIterator[bytes]]:
        self.exports.append(request)
        await trio.lowlevel.checkpoint()
        yield self._archive()

    async def _archive(self) -> AsyncIterator[bytes]:
        for piece in self.archive:
            await trio.lowlevel.checkpoint()
            if isinstance(piece, Exception):
                raise piece
            yield piece

    @asynccontextmanager
    async def import_(self, request: ImportRequest) -> AsyncIterator[AsyncIterator[Progress]]:
        self.imports.append(request)
        if request.source is not None:
            while piece := await request.source.next():
                self.received += piece
        async with self._scripted() as steps:
            yield steps

    @asynccontextmanager
    async def _scripted(self) -> AsyncIterator[AsyncIterator[Progress]]:
        send, receive = trio.open_memory_channel[Progress | Exception](len(self.script))
        with send:
            for step in self.script:
                send.send_nowait(step)
        with receive:
            yield _Steps(receive)


class _Steps:
    def __init__(self, steps: trio.MemoryReceiveChannel[Progress | Exception]) -> None:
        self._steps = steps

    def __aiter__(self) -> _Steps:
        return self

    async def __anext__(self) -> Progress:
        step = await self._steps.__anext__()
        if isinstance(step, Exception):
            raise step
        return step


class FakeOlm:
    """All three clients, and the `Olm` that routes get."""

    def __init__(self, *names: str) -> None:
        self.store = FakeStore(*(names or ("tiny",)))
        self.models = FakeModels(self.store)
        self.jobs = FakeJobs(self.store)
        self.clients = Olm(store=self.store, models=self.models, jobs=self.jobs)
        self.stats: SchedulerStats | OlmError = SchedulerStats({}, (), {})
        self.engines: dict[str, WorkerStats] = {}

    async def snapshot(self) -> Snapshot:
        """What the actors behind would have counted."""
        await trio.lowlevel.checkpoint()
        if isinstance(self.stats, OlmError):
            raise self.stats
        return Snapshot(self.stats, self.engines)
