"""The worker: one loaded model in a process of its own, as an actor. Entry point of a child; the daemon never imports it.

It renders, tokenizes, hands the engine its requests and the engine's events to the streams they belong to. Decoding,
sampling and stop strings are C++ in a thread of the engine; which model runs where is the scheduler's decision.
The messages are in `wire`, what a prompt becomes in `prompting`, the consumers' pace in `feeds`.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final, TypeVar, TypeVarTuple

import trio

from olm.actors.runtime import Actor, Reply, StreamSink, handles, streams
from olm.chat.types import Prompt, TextPrompt, TurnEvent
from olm.errors import (
    InvalidRequest,
    LoadFailed,
    ModelError,
    OlmError,
    TemplateError,
    first_error,
)
from olm.native import wire
from olm.native.answers import EmbeddingAnswer, TurnAnswer
from olm.native.devices import choose_cpu_variant, plugin_paths
from olm.native.engine import Engine, Event, Failed
from olm.native.feeds import Feed
from olm.native.guard import (
    HereTemplate,
    TemplateStuck,
    ThreadTemplate,
    bounded_in_thread,
    confined,
)
from olm.native.handles import LoadState, initialize
from olm.native.lib import EngineStopped
from olm.native.loaded import LoadedModel, open_model, portable_errors, template_caps
from olm.native.process import ProcessIdRequest
from olm.native.prompting import (
    Prepared,
    fit_inputs,
    prepare,
    prompt_size_bytes,
    runs_go_template,
)
from olm.native.submitting import engine_request, grammar_size_bytes

__all__ = ["Worker"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_INLINE_BYTES: Final = 4096
"""Prompts up to this size are rendered and tokenized in the loop (under 2 ms); a thread costs 0.1 ms more."""

_PACE_S: Final = 0.004
_FAST_S: Final = 0.002
"""While steps are shorter than `_FAST_S` the loop looks for events only every `_PACE_S`: a wake-up costs about 0.1 ms of
the CPU that computes the tokens, and nobody sees 4 ms. The first token after a pause is never held."""

_PROGRESS_S: Final = 0.1
"""How often the progress of a load is read out of the memory shared with the loading thread."""

_QUICK_TEMPLATE_S: Final = 0.5
"""A template that took longer to read and try out at the load is never rendered in the loop."""

_LAST_WORDS_S: Final = 0.5
"""How long a worker with a stuck template still lives, so that the error of whoever met it gets out."""


class Worker(Actor):
    """Holds one model. Several turns run at once; each is a stream."""

    mailbox_size = 256

    def __init__(self, config: wire.WorkerConfig | None = None) -> None:
        self._config = config or wire.WorkerConfig()
        self._loaded: LoadedModel | None = None
        self._requests: dict[int, Callable[[Event], None]] = {}
        self._cpu_variant = ""
        self._is_quick_template = False
        self._is_stuck = False
        # The model's functions may run in any thread; few at a time leave the cores to the engine.
        self._limiter = trio.CapacityLimiter(2)

    async def start(self) -> None:
        """Load the backends: the CPU variant that was found to work here, and GPU plug-ins. Raises NativeError."""
        await self._in_thread(self._initialize)

    def _initialize(self) -> None:
        forced = self._config.cpu_variant
        env = {**os.environ, "OLM_CPU_VARIANT": forced} if forced else os.environ
        variant = choose_cpu_variant(env=env)
        initialize(variant.path, plugin_paths())
        self._cpu_variant = variant.name

    async def stop(self) -> None:
        """Free the model. Waits for the step that runs."""
        loaded, self._loaded = self._loaded, None
        # What a stuck template's thread still uses cannot be freed; the process ends by itself.
        if loaded is not None and not self._is_stuck:
            # Nobody may wait on the engine's descriptor or call it when it is closed.
            self.nursery.cancel_scope.cancel("the worker stops")
            # Threads that read the model are not cancelled: a load may be asking the template still.
            while self._requests or self._limiter.borrowed_tokens:
                await trio.lowlevel.checkpoint()
            await self._in_thread(loaded.close)

    # -- load ----------------------------------------------------------------------------------------

    @streams(wire.Load)
    async def load(self, msg: wire.Load, out: StreamSink[wire.LoadEvent]) -> None:
        """See `wire.Load`. Cancelled, nothing stays allocated."""
        if self._loaded is not None:
            raise LoadFailed("this worker holds a model already")
        started_ns = time.perf_counter_ns()
        loaded = self._loaded = await self._load(msg, out)
        self.nursery.start_soon(self._pump, loaded.engine)
        caps = await self._try_template(loaded)
        await out.send(
            self._describe(loaded, msg.embedding, caps, time.perf_counter_ns() - started_ns)
        )

    async def _load(self, msg: wire.Load, out: StreamSink[wire.LoadEvent]) -> LoadedModel:
        state = LoadState()
        made: list[LoadedModel] = []

        async def run() -> None:
            with portable_errors(), _no_paths(msg):
                made.append(await self._in_thread(open_model, msg, state))
            nursery.cancel_scope.cancel("loaded")

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_report, state, out)
                nursery.start_soon(run)
            await trio.lowlevel.checkpoint_if_cancelled()
        except BaseException as exc:
            # Cancelled when the model was there already: nobody will use it.
            for loaded in made:
                loaded.close()
            found = first_error(exc) if isinstance(exc, BaseExceptionGroup) else None
            if found is None:
                raise
            raise type(found)(found.message, **found.details) from exc
        return made[0]

    async def _try_template(self, loaded: LoadedModel) -> tuple[str, ...]:
        started_s = time.monotonic()
        with self._ends_when_stuck():
            caps = await self._in_thread(bounded_in_thread, partial(template_caps, loaded))
        self._is_quick_template = time.monotonic() - started_s < _QUICK_TEMPLATE_S
        return caps

    def _describe(
        self, loaded: LoadedModel, embedding: bool, caps: tuple[str, ...], load_ns: int
    ) -> wire.Loaded:
        stats, info = loaded.engine.stats(), loaded.model.info
        return wire.Loaded(
            n_ctx=stats.n_ctx,
            n_ctx_train=info.n_ctx_train,
            n_parallel=stats.n_parallel,
            n_embd=info.n_embd_out or info.n_embd,
            size_bytes=stats.memory_bytes,
            vram_bytes=stats.vram_bytes,
            embedding=embedding,
            template_caps=caps,
            cpu_variant=self._cpu_variant,
            load_ns=load_ns,
        )

    # -- turns ---------------------------------------------------------------------------------------

    @streams(wire.Turn)
    async def turn(self, msg: wire.Turn, out: StreamSink[TurnEvent]) -> None:
        """See `wire.Turn`."""
        loaded, engine = self._model(), self._model().engine
        prepared = await self._prepare(msg, loaded)
        if not prepared.tokens:
            raise InvalidRequest("the prompt is empty: there is nothing to go on from")
        _check_tokenizer(prepared.tokens, loaded.model.info.n_vocab, msg.prompt)
        make = partial(engine_request, msg, prepared)
        wanted = await self._work(grammar_size_bytes(msg, prepared), make)
        with portable_errors():
            request = wanted.submit(engine)
        turn = TurnAnswer(Feed(out, partial(_pause, engine, request)), msg, prepared)
        self._requests[request] = turn.on_event
        try:
            await turn.feed.run()
        finally:
            del self._requests[request]
            if not turn.feed.is_done:
                engine.cancel(request)

    async def _prepare(self, msg: wire.Turn, loaded: LoadedModel) -> Prepared:
        """Render and tokenize: what is quick in the loop, the rest in a thread."""
        size_bytes = prompt_size_bytes(msg.prompt)
        # A Go template may be the request's own, and how long it takes is not known before.
        is_quick = self._is_quick_template and not runs_go_template(msg.prompt)
        is_small = is_quick and size_bytes <= _INLINE_BYTES
        template = HereTemplate(loaded) if is_small else ThreadTemplate(loaded)
        make = partial(prepare, msg, n_ctx=loaded.n_ctx, tokenizer=loaded, template=template)
        return await self._work(size_bytes if is_small else _INLINE_BYTES + 1, make)

    @handles(wire.Embed)
    def embed(self, msg: wire.Embed, reply: Reply[wire.Embedded]) -> None:
        """See `wire.Embed`."""
        self.nursery.start_soon(reply.run, self._embed, msg)

    async def _embed(self, msg: wire.Embed) -> wire.Embedded:
        loaded = self._model()
        rows = await self._work(
            sum(map(len, msg.inputs)),
            lambda: fit_inputs(
                msg.inputs, n_ctx=loaded.n_ctx, truncate=msg.truncate, tokenizer=loaded
            ),
        )
        if not all(rows):
            raise InvalidRequest("an input has no tokens: there is nothing to embed")
        for row in rows:
            _check_tokenizer(row, loaded.model.info.n_vocab)
        with portable_errors():
            request = loaded.engine.embed(rows, normalize=msg.normalize)
        answer = EmbeddingAnswer()
        self._requests[request] = answer.on_event
        try:
            embedding = await answer.wait()
        finally:
            del self._requests[request]
            if not answer.is_done:
                loaded.engine.cancel(request)
        return wire.Embedded(
            vectors=embedding.vectors,
            n_embd=embedding.n_embd,
            n_tokens=tuple(len(row) for row in rows),
        )

    async def _pump(self, engine: Engine) -> None:
        """Hand the engine's events to the requests they belong to. An engine that fails as a whole crashes the worker."""
        woken_s = -math.inf
        while True:
            # Looking first spares the paced loop a turn of the scheduler.
            events = engine.poll() or await engine.next_events()
            for event in events:
                self._dispatch(event)
            gap_s, woken_s = trio.current_time() - woken_s, trio.current_time()
            n_steps = len(events) / max(len(self._requests), 1)
            if gap_s < _FAST_S * n_steps:
                # Steps come faster than anybody reads: take several at a time.
                await trio.sleep(_PACE_S)

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, Failed) and isinstance(event.error, EngineStopped):
            raise RuntimeError(f"the engine has stopped: {event.error}")  # noqa: TRY004 # no type is wrong
        # The requests that are gone were cancelled; their last event is nobody's.
        on_event = self._requests.get(event.request)
        if on_event is not None:
            on_event(event)

    # -- text ----------------------------------------------------------------------------------------

    @handles(wire.Render)
    def render(self, msg: wire.Render, reply: Reply[str]) -> None:
        """See `wire.Render`."""
        self.nursery.start_soon(reply.run, self._render, msg)

    async def _render(self, msg: wire.Render) -> str:
        if isinstance(msg.prompt, TextPrompt):
            return msg.prompt.text
        turn = wire.Turn(prompt=msg.prompt, truncate=msg.truncate)
        rendered = (await self._prepare(turn, self._model())).rendered
        assert rendered is not None, "only bare text is not rendered"
        return rendered.text

    @handles(wire.Tokenize)
    def tokenize(self, msg: wire.Tokenize, reply: Reply[tuple[int, ...]]) -> None:
        """See `wire.Tokenize`."""
        model = self._model().model
        self.nursery.start_soon(
            reply.run,
            self._work,
            len(msg.text),
            lambda: tuple(
                model.tokenize(
                    msg.text, add_special=msg.add_special, parse_special=msg.parse_special
                )
            ),
        )

    @handles(wire.Detokenize)
    def detokenize(self, msg: wire.Detokenize) -> str:
        """See `wire.Detokenize`."""
        with portable_errors():
            return self._model().model.detokenize(msg.tokens).decode(errors="replace")

    @handles(wire.WorkerStatsRequest)
    def stats(self, _: wire.WorkerStatsRequest) -> wire.WorkerStats:
        """See `wire.WorkerStats`."""
        stats = self._model().engine.stats()
        return wire.WorkerStats(
            n_running=stats.n_running,
            n_waiting=stats.n_waiting,
            n_cells_used=stats.n_cached_cells,
            n_steps=stats.n_steps,
            n_prompt_tokens=stats.n_prompt_tokens,
            n_decoded_tokens=stats.n_generated_tokens,
        )

    @handles(ProcessIdRequest)
    def process_id(self, _: ProcessIdRequest) -> int:
        """See `ProcessIdRequest`."""
        return os.getpid()

    # -- helpers -------------------------------------------------------------------------------------

    def _model(self) -> LoadedModel:
        if self._loaded is None:
            raise LoadFailed("this worker holds no model")
        return self._loaded

    async def _work(self, size_bytes: int, function: Callable[[], T]) -> T:
        """Run something of the model's: here when it is small, in a thread when it would hold up the loop."""
        with portable_errors(), self._ends_when_stuck(), confined():
            if size_bytes > _INLINE_BYTES:
                return await self._in_thread(function)
            await trio.lowlevel.checkpoint()
            return function()

    @contextmanager
    def _ends_when_stuck(self) -> Iterator[None]:
        """Let the process end soon after a template did not: nothing else stops its thread."""
        try:
            yield
        except TemplateStuck as exc:
            if not self._is_stuck:
                self._is_stuck = True
                threading.Timer(_LAST_WORDS_S, _end_process, [exc.message]).start()
            raise TemplateError(exc.message) from exc

    async def _in_thread(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        return await trio.to_thread.run_sync(function, *args, limiter=self._limiter)


@contextmanager
def _no_paths(msg: wire.Load) -> Iterator[None]:
    """Where the store keeps its blobs is nobody's business: error texts go to clients."""
    try:
        yield
    except OlmError as exc:
        text = exc.message.replace(msg.path, "the model file")
        for path, _ in msg.adapters:
            text = text.replace(path, "the adapter file")
        raise type(exc)(text, **exc.details) from exc


def _check_tokenizer(tokens: Sequence[int], n_vocab: int, prompt: Prompt | None = None) -> None:
    """Refuse a damaged vocabulary's tokens as the model's fault. A client's own (`context`) the engine refuses."""
    low, high = min(tokens), max(tokens)
    if (low >= 0 and high < n_vocab) or (isinstance(prompt, TextPrompt) and prompt.context):
        return
    wrong = low if low < 0 else high
    raise ModelError(
        f"the model's tokenizer data is invalid: it gives token {wrong}, outside the vocabulary of {n_vocab}"
    )


def _end_process(why: str) -> None:
    print(f"worker ends: {why}", file=sys.stderr, flush=True)
    os._exit(os.EX_SOFTWARE)


def _pause(engine: Engine, request: int, paused: bool) -> None:
    if paused:
        engine.pause(request)
    else:
        engine.resume(request)


async def _report(state: LoadState, out: StreamSink[wire.LoadEvent]) -> None:
    """Send the progress of a load as it changes; being cancelled, cancel the load."""
    frac = -1.0
    try:
        while True:
            if state.frac != frac:
                frac = state.frac
                await out.send(wire.LoadProgress(frac))
            # The C side writes a float into shared memory; there is nothing to wait on.
            await trio.sleep(_PROGRESS_S)
    finally:
        state.cancel()
