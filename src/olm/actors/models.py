"""The client of loaded models: what routes call. Requests become turns here; slots come from the scheduler.

A turn's events come straight from the worker's stream: the scheduler grants the slot and sees no token. The checks
and the layout of prompts are pure and in `turns`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from olm.actors.book import Demand
from olm.actors.client import (
    ChatRequest,
    EmbedRequest,
    EmbedResult,
    GenerateRequest,
    LoadedModel,
    RenderedPrompt,
    StoreClient,
    StoredModel,
)
from olm.actors.runner import CRASH_TEXT
from olm.actors.runtime import Address, Stream
from olm.actors.scheduler import Acquire, Drain, Expire, Lease, ListLoaded
from olm.actors.turns import (
    TurnPlan,
    check_thinking,
    embed_result,
    plan_chat,
    plan_embed,
    plan_generate,
    turn_message,
)
from olm.chat.media import media_of
from olm.chat.options import load_options, merge_options
from olm.chat.types import ChatPrompt, Think, TurnEvent
from olm.errors import ActorStopped, RunnerCrashed
from olm.native.wire import Embed, Embedded, Render

__all__ = ["Models", "RunningTurn"]


class RunningTurn:
    """A turn on a worker; see `olm.actors.client.Turn`."""

    __slots__ = ("_events", "load_ns")

    def __init__(self, events: Stream[TurnEvent], load_ns: int) -> None:
        self._events = events
        self.load_ns = load_ns

    def __aiter__(self) -> AsyncIterator[TurnEvent]:
        return self

    async def __anext__(self) -> TurnEvent:
        """Return the next event. Raises RunnerCrashed when the worker died, else what the worker answered."""
        try:
            return await self._events.__anext__()
        except ActorStopped as exc:
            raise RunnerCrashed(CRASH_TEXT) from exc

    def drain(self) -> Sequence[TurnEvent]:
        """Take the events that are already here, without waiting."""
        return self._events.drain()


@attrs.frozen
class Models:
    """`olm.actors.client.ModelsClient` over the scheduler."""

    scheduler: Address
    store: StoreClient

    @asynccontextmanager
    async def chat(self, request: ChatRequest) -> AsyncIterator[RunningTurn]:
        """Start a chat turn; see `ModelsClient.chat`."""
        model = await self.store.get(request.model)
        plan = plan_chat(request, model)
        async with self._turn(model, plan, request.keep_alive_s) as turn:
            yield turn

    @asynccontextmanager
    async def generate(self, request: GenerateRequest) -> AsyncIterator[RunningTurn]:
        """Start a completion turn; see `ModelsClient.generate`."""
        model = await self.store.get(request.model)
        plan = plan_generate(request, model)
        async with self._turn(model, plan, request.keep_alive_s) as turn:
            yield turn

    async def render(self, request: ChatRequest | GenerateRequest) -> RenderedPrompt:
        """Render a prompt without generating; see `ModelsClient.render`."""
        model = await self.store.get(request.model)
        if isinstance(request, ChatRequest):
            plan = plan_chat(request, model)
        else:
            plan = plan_generate(request, model)
        async with self._lease(Demand(model, plan.load, request.keep_alive_s)) as (lease, _):
            try:
                text = await lease.worker.ask(Render(plan.prompt, plan.truncate))
            except ActorStopped as exc:
                raise RunnerCrashed(CRASH_TEXT) from exc
        messages = plan.prompt.messages if isinstance(plan.prompt, ChatPrompt) else ()
        return RenderedPrompt(text, len(media_of(messages)))

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        """Embed texts; see `ModelsClient.embed`. Without inputs the model is only loaded."""
        model = await self.store.get(request.model)
        options = plan_embed(request, model)
        async with self._lease(Demand(model, options, request.keep_alive_s)) as (lease, load_ns):
            if not request.inputs:
                return EmbedResult((), 0, load_ns)
            try:
                embedded: Embedded = await lease.worker.ask(
                    Embed(
                        inputs=tuple(request.inputs),
                        truncate=request.truncate,
                        normalize=request.normalize,
                    )
                )
            except ActorStopped as exc:
                raise RunnerCrashed(CRASH_TEXT) from exc
        return embed_result(embedded, dimensions=request.dimensions, load_ns=load_ns)

    async def load(
        self,
        model: str,
        *,
        options: Mapping[str, object],
        keep_alive_s: float | None,
        think: Think | None = None,
    ) -> int:
        """Load a model without a prompt; see `ModelsClient.load`."""
        stored = await self.store.get(model)
        check_thinking(stored, model, think)
        wanted = load_options(merge_options(stored.parameters, options))
        async with self._lease(Demand(stored, wanted, keep_alive_s)) as (_, load_ns):
            return load_ns

    async def unload(self, model: str) -> None:
        """Let a model go as soon as it is idle."""
        stored = await self.store.get(model)
        await self.scheduler.ask(Expire(stored.weights))

    async def ps(self) -> Sequence[LoadedModel]:
        """List the loaded models, the longest-lived first."""
        return await self.scheduler.ask(ListLoaded())

    async def drain(self) -> None:
        """Refuse new work and wait until what runs has ended; the caller bounds the wait."""
        await self.scheduler.ask(Drain())

    @asynccontextmanager
    async def _lease(self, demand: Demand) -> AsyncIterator[tuple[Lease, int]]:
        started_s = trio.current_time()
        async with self.scheduler.stream(Acquire(demand)) as leases:
            lease = await leases.__anext__()
            yield lease, round((trio.current_time() - started_s) * 1e9)

    @asynccontextmanager
    async def _turn(
        self, model: StoredModel, plan: TurnPlan, keep_alive_s: float | None
    ) -> AsyncIterator[RunningTurn]:
        async with (
            self._lease(Demand(model, plan.load, keep_alive_s)) as (lease, load_ns),
            self._open(lease, plan) as events,
        ):
            yield RunningTurn(events, load_ns)

    @asynccontextmanager
    async def _open(self, lease: Lease, plan: TurnPlan) -> AsyncIterator[Stream[TurnEvent]]:
        """Open the worker's stream; a worker that is just gone is a crash to the caller."""
        try:
            turn = turn_message(plan, n_ctx=lease.info.n_ctx)
            events = await lease.worker.stream(turn).__aenter__()
        except ActorStopped as exc:
            raise RunnerCrashed(CRASH_TEXT) from exc
        try:
            yield events
        finally:
            events.close()
