"""The client of loaded models: what routes call. Requests become turns here; slots come from the scheduler.

A turn's events come straight from the worker's stream: the scheduler grants the slot and sees no token. The checks
and the layout of prompts are pure and in `turns`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import attrs
import trio

from olm.actors.client import (
    ChatRequest,
    EmbedRequest,
    EmbedResult,
    GenerateRequest,
    LoadedModel,
    RenderedPrompt,
    RerankRequest,
    RerankResult,
    StoreClient,
    StoredModel,
)
from olm.actors.queue import QueueRow
from olm.actors.record import Demand
from olm.actors.runner import CRASH_TEXT
from olm.actors.runtime import Address, Message, Stream
from olm.actors.scheduler import Acquire, Drain, Expire, Lease, ListLoaded, ListQueue
from olm.actors.turns import (
    TurnPlan,
    check_thinking,
    checked_tokens,
    embed_message,
    embed_result,
    plan_chat,
    plan_embed,
    plan_generate,
    plan_rerank,
    rerank_message,
    turn_message,
)
from olm.chat.media import media_of
from olm.chat.options import LoadOptions, load_options, merge_options
from olm.chat.types import ChatPrompt, Prompt, Think, TurnEvent
from olm.errors import ActorStopped, RunnerCrashed
from olm.native.wire import CountTokens, Detokenize, Pieces, Render, Tokenize

__all__ = ["Models", "RunningTurn"]

R = TypeVar("R")

MEDIUM_TOKENS: Final = 768
"""What a picture or a sound counts for before an encoder has seen it: Ollama's guess (spec/ollama §1.10)."""


class RunningTurn:
    """A turn on a worker; see `olm.actors.client.Turn`."""

    __slots__ = ("_events", "_pace", "load_ns", "queue_position")

    def __init__(self, events: Stream[TurnEvent], lease: Lease, load_ns: int) -> None:
        self._events = events
        self._pace = lease.pace
        self._pace.attach(events)
        self.load_ns = load_ns
        self.queue_position = lease.queue_position

    def __aiter__(self) -> AsyncIterator[TurnEvent]:
        return self

    async def __anext__(self) -> TurnEvent:
        """Return the next event. Raises RunnerCrashed when the worker died, SlowReader, else what the worker answered."""
        pace = self._pace
        if pace.error is not None:
            raise pace.error
        pace.ask()
        try:
            return await self._events.__anext__()
        except ActorStopped as exc:
            raise RunnerCrashed(CRASH_TEXT) from exc
        except trio.ClosedResourceError:
            # It was given up at the moment when the reader came back.
            if pace.error is None:
                raise
            raise pace.error from None
        finally:
            pace.leave(trio.current_time())

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
        async with self._turn(_demand(request, model, plan.load), plan) as turn:
            yield turn

    @asynccontextmanager
    async def generate(self, request: GenerateRequest) -> AsyncIterator[RunningTurn]:
        """Start a completion turn; see `ModelsClient.generate`."""
        model = await self.store.get(request.model)
        plan = plan_generate(request, model)
        async with self._turn(_demand(request, model, plan.load), plan) as turn:
            yield turn

    async def render(self, request: ChatRequest | GenerateRequest) -> RenderedPrompt:
        """Render a prompt without generating; see `ModelsClient.render`."""
        model = await self.store.get(request.model)
        if isinstance(request, ChatRequest):
            plan = plan_chat(request, model)
        else:
            plan = plan_generate(request, model)
        async with self._lease(_demand(request, model, plan.load)) as (lease, _):
            text = await _ask(lease, Render(plan.prompt, plan.truncate))
        return RenderedPrompt(text, len(_media(plan.prompt)))

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        """Embed texts; see `ModelsClient.embed`. Without inputs the model is only loaded."""
        model = await self.store.get(request.model)
        options, message = plan_embed(request, model), embed_message(request, model)
        async with self._lease(_demand(request, model, options)) as (lease, load_ns):
            if not request.inputs:
                return EmbedResult((), 0, load_ns)
            embedded = await _ask(lease, message)
        return embed_result(embedded, dimensions=request.dimensions, load_ns=load_ns)

    async def rerank(self, request: RerankRequest) -> RerankResult:
        """Score documents; see `ModelsClient.rerank`. Without documents the model is only loaded."""
        model = await self.store.get(request.model)
        options, message = plan_rerank(request, model), rerank_message(request, model)
        async with self._lease(_demand(request, model, options)) as (lease, load_ns):
            if not request.documents:
                return RerankResult((), 0, load_ns)
            ranked = await _ask(lease, message)
        return RerankResult(ranked.scores, sum(ranked.n_tokens), load_ns)

    async def tokenize(
        self, model: str, text: str, *, add_special: bool = True, parse_special: bool = True
    ) -> Sequence[int]:
        """Turn text into tokens; see `ModelsClient.tokenize`."""
        return await self._ask_model(model, Tokenize(text, add_special, parse_special))

    async def detokenize(self, model: str, tokens: Sequence[int]) -> str:
        """Turn tokens into text; see `ModelsClient.detokenize`."""
        return await self._ask_model(model, Detokenize(checked_tokens(tokens)))

    async def pieces(self, model: str, tokens: Sequence[int]) -> Sequence[bytes]:
        """Give the bytes of each token, which need not be whole UTF-8. Raises InvalidRequest for unknown tokens."""
        return await self._ask_model(model, Pieces(checked_tokens(tokens)))

    async def count_tokens(self, request: ChatRequest) -> int:
        """Count the tokens of a chat's whole prompt; see `ModelsClient.count_tokens`."""
        model = await self.store.get(request.model)
        plan = plan_chat(request, model)
        async with self._lease(_demand(request, model, plan.load)) as (lease, _):
            n_tokens = await _ask(lease, CountTokens(plan.prompt))
        return n_tokens + MEDIUM_TOKENS * len(_media(plan.prompt))

    async def load(
        self,
        model: str,
        *,
        options: Mapping[str, object],
        keep_alive_s: float | None,
        think: Think | None = None,
        client: str = "",
    ) -> int:
        """Load a model without a prompt; see `ModelsClient.load`."""
        stored = await self.store.get(model)
        check_thinking(stored, model, think)
        wanted = load_options(merge_options(stored.parameters, options))
        async with self._lease(Demand(stored, wanted, keep_alive_s, client)) as (_, load_ns):
            return load_ns

    async def unload(self, model: str) -> None:
        """Let a model go as soon as it is idle."""
        stored = await self.store.get(model)
        await self.scheduler.ask(Expire(stored.weights))

    async def ps(self) -> Sequence[LoadedModel]:
        """List the loaded models, the longest-lived first."""
        return await self.scheduler.ask(ListLoaded())

    async def queue(self) -> Sequence[QueueRow]:
        """Say who runs and who waits, by model."""
        return await self.scheduler.ask(ListQueue())

    async def drain(self) -> None:
        """Refuse new work and wait until what runs has ended; the caller bounds the wait."""
        await self.scheduler.ask(Drain())

    async def _ask_model(self, name: str, message: Message[R]) -> R:
        """Ask a model whose options are its own, and whose keep-alive stays as it is."""
        model = await self.store.get(name)
        options = load_options(merge_options(model.parameters, {}))
        async with self._lease(Demand(model, options)) as (lease, _):
            return await _ask(lease, message)

    @asynccontextmanager
    async def _lease(self, demand: Demand) -> AsyncIterator[tuple[Lease, int]]:
        started_s = trio.current_time()
        async with self.scheduler.stream(Acquire(demand)) as leases:
            lease = await leases.__anext__()
            yield lease, round((trio.current_time() - started_s) * 1e9)

    @asynccontextmanager
    async def _turn(self, demand: Demand, plan: TurnPlan) -> AsyncIterator[RunningTurn]:
        async with (
            self._lease(demand) as (lease, load_ns),
            self._open(lease, plan) as events,
        ):
            yield RunningTurn(events, lease, load_ns)

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


def _demand(
    request: ChatRequest | GenerateRequest | EmbedRequest | RerankRequest,
    model: StoredModel,
    options: LoadOptions,
) -> Demand:
    return Demand(model, options, request.keep_alive_s, request.client)


async def _ask(lease: Lease, message: Message[R]) -> R:
    """Ask a worker; one that is gone is a crash to the caller."""
    try:
        return await lease.worker.ask(message)
    except ActorStopped as exc:
        raise RunnerCrashed(CRASH_TEXT) from exc


def _media(prompt: Prompt) -> Sequence[bytes]:
    return media_of(prompt.messages) if isinstance(prompt, ChatPrompt) else ()
