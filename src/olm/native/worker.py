"""The worker: one loaded model in a process of its own, as an actor. Entry point of a child; the daemon never imports it.

It renders, tokenizes, hands the engine its requests and the engine's events to the streams they belong to. Decoding,
sampling and stop strings are C++ in a thread of the engine; which model runs where is the scheduler's decision.
Here are loads and turns; other questions to the model are answered in `texts` and `vectors`. The messages are in `wire`,
what a prompt becomes in `prompting`, the consumers' pace in `feeds`.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

import trio

from olm.actors.runtime import StreamSink, handles, streams
from olm.chat.types import TurnEvent
from olm.errors import InvalidRequest, LoadFailed, OlmError, first_error
from olm.native import wire
from olm.native.answers import TurnAnswer
from olm.native.devices import choose_cpu_variant, plugin_paths
from olm.native.engine import Engine, Event, Failed
from olm.native.feeds import Feed
from olm.native.guard import bounded_in_thread
from olm.native.handles import LoadState, initialize
from olm.native.lib import EngineStopped
from olm.native.loaded import LoadedModel, open_model, portable_errors, template_caps
from olm.native.process import ProcessIdRequest
from olm.native.prompting import check_given, check_tokenizer
from olm.native.submitting import engine_request, grammar_size_bytes
from olm.native.texts import TextHandlers
from olm.native.vectors import VectorHandlers

__all__ = ["Worker"]

_PACE_S: Final = 0.004
_FAST_S: Final = 0.002
"""While steps are shorter than `_FAST_S` the loop looks for events only every `_PACE_S`: a wake-up costs about 0.1 ms of
the CPU that computes the tokens, and nobody sees 4 ms. The first token after a pause is never held."""

_PROGRESS_S: Final = 0.1
"""How often the progress of a load is read out of the memory shared with the loading thread."""

_QUICK_TEMPLATE_S: Final = 0.5
"""A template that took longer to read and try out at the load is never rendered in the loop."""


class Worker(TextHandlers, VectorHandlers):
    """Holds one model. Several turns run at once; each is a stream."""

    mailbox_size = 256

    def __init__(self, config: wire.WorkerConfig | None = None) -> None:
        super().__init__()
        self._config = config or wire.WorkerConfig()
        self._cpu_variant = ""

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
        engine, n_vocab = self._model().engine, self._model().model.info.n_vocab
        check_given(msg.prompt.context, n_vocab)
        prepared = await self._prepare(msg)
        if not prepared.tokens:
            raise InvalidRequest("the prompt is empty: there is nothing to go on from")
        check_tokenizer(prepared.tokens, n_vocab)
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
