"""The client of loaded models, metered: every dialect's turns pass here, so that no dialect counts by itself.

A turn costs a few microseconds more, an event well under one. Errors before a turn begins have no row by model (the
name may be anybody's invention): they are in the requests' statuses, failed loads are the scheduler's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import trio

from olm.actors.client import (
    ChatRequest,
    EmbedRequest,
    EmbedResult,
    GenerateRequest,
    LoadedModel,
    ModelsClient,
    QueueRow,
    RenderedPrompt,
    RerankRequest,
    RerankResult,
    Turn,
)
from olm.api.asking import asked, asking_client, note_wait
from olm.api.gate import Usage, current_call
from olm.api.metrics import Metrics, ModelMeter
from olm.chat.types import CallArguments, CallEnd, CallStart, Done, Piece, Think, TurnEvent

__all__ = ["MeteredModels", "MeteredTurn"]

_ANSWERING: Final = frozenset({Piece, CallStart, CallArguments})
"""Events that a token made; the end of a call and of the turn come with the last of them."""


class MeteredTurn:
    """A turn whose events are timed and counted as they pass; see `olm.actors.client.Turn`."""

    __slots__ = (
        "_begun",
        "_drain",
        "_ended",
        "_gap_s",
        "_last_s",
        "_meter",
        "_n",
        "_next",
        "_now_s",
        "_observe",
        "_started_s",
        "_usage",
        "load_ns",
        "queue_position",
    )

    def __init__(self, turn: Turn, meter: ModelMeter, usage: Usage, started_s: float) -> None:
        self._next = turn.__anext__
        self._drain = turn.drain
        self._observe = meter.between.observe
        # `trio.current_time` looks its clock up at every call, which costs more than reading it.
        self._now_s = trio.lowlevel.current_clock().current_time
        self._meter = meter
        self._usage = usage
        self._started_s = started_s
        self.load_ns = turn.load_ns
        self.queue_position = turn.queue_position
        self._begun = self._ended = False
        self._last_s = self._gap_s = 0.0
        self._n = 0  # events that came together after the gap

    def __aiter__(self) -> AsyncIterator[TurnEvent]:
        return self

    async def __anext__(self) -> TurnEvent:
        """Return the next event; see `Turn`."""
        n = self._n
        if n:
            self._n = 0
            self._observe(self._gap_s / n, n)
        event = await self._next()
        if type(event) in _ANSWERING:
            now_s = self._now_s()
            if self._begun:
                self._gap_s = now_s - self._last_s
                self._n = 1
            else:
                self._first(now_s)
            self._last_s = now_s
        else:
            self._ending(event)
        return event

    def drain(self) -> Sequence[TurnEvent]:
        """Take the events that are already here; they share the gap of the one before them."""
        events = self._drain()
        for event in events:
            if type(event) not in _ANSWERING:
                self._ending(event)
            elif self._n:
                self._n += 1
        return events

    def _first(self, now_s: float) -> None:
        self._begun = True
        first_s = now_s - self._started_s
        self._meter.first.observe(first_s)
        if self._usage.first_s is None:
            self._usage.first_s = first_s

    def _ending(self, event: TurnEvent) -> None:
        if isinstance(event, CallEnd):
            self._meter.n_calls += event.call is not None
        elif isinstance(event, Done):
            if self._n:
                self._observe(self._gap_s / self._n, self._n)
                self._n = 0
            self._done(event)

    def _done(self, done: Done) -> None:
        meter, usage = self._meter, self._usage
        meter.turns[done.reason] += 1
        meter.n_malformed += done.malformed
        meter.prompt_s += done.prompt_ns / 1e9
        meter.eval_s += done.eval_ns / 1e9
        for row in (meter, usage):
            row.n_prompt += done.n_prompt
            row.n_cached += done.n_cached
            row.n_generated += done.n_generated
        self._ended = True

    def left(self, how: str) -> None:
        """Count the end of a turn that did not come to its last event."""
        if not self._ended:
            self._meter.turns[how] += 1


class MeteredModels:
    """`olm.actors.client.ModelsClient` around another one."""

    def __init__(self, models: ModelsClient, metrics: Metrics) -> None:
        self._models = models
        self._metrics = metrics

    def chat(self, request: ChatRequest) -> AbstractAsyncContextManager[Turn]:
        """Start a chat turn; see `ModelsClient.chat`."""
        return self._turn(request.model, self._models.chat(asked(request)))

    def generate(self, request: GenerateRequest) -> AbstractAsyncContextManager[Turn]:
        """Start a completion turn; see `ModelsClient.generate`."""
        return self._turn(request.model, self._models.generate(asked(request)))

    @asynccontextmanager
    async def _turn(
        self, model: str, opening: AbstractAsyncContextManager[Turn]
    ) -> AsyncIterator[Turn]:
        call = current_call()
        started_s = call.started_s if call is not None else trio.current_time()
        async with opening as turn:
            note_wait(turn)
            meter, usage = self._row(model, turn.load_ns)
            metered = MeteredTurn(turn, meter, usage, started_s)
            how = "cancelled"
            try:
                yield metered
            except Exception:
                how = "error"
                raise
            finally:
                metered.left(how)

    async def render(self, request: ChatRequest | GenerateRequest) -> RenderedPrompt:
        """Render a prompt; see `ModelsClient.render`."""
        return await self._models.render(asked(request))

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        """Embed texts; see `ModelsClient.embed`."""
        result = await self._models.embed(asked(request))
        meter = self._prompted(request.model, result)
        meter.n_embedded += len(result.vectors)
        return result

    async def rerank(self, request: RerankRequest) -> RerankResult:
        """Score documents; see `ModelsClient.rerank`."""
        result = await self._models.rerank(asked(request))
        meter = self._prompted(request.model, result)
        meter.n_ranked += len(result.scores)
        return result

    async def tokenize(
        self, model: str, text: str, *, add_special: bool = True, parse_special: bool = True
    ) -> Sequence[int]:
        """Turn text into tokens; see `ModelsClient.tokenize`."""
        return await self._models.tokenize(
            model, text, add_special=add_special, parse_special=parse_special
        )

    async def detokenize(self, model: str, tokens: Sequence[int]) -> str:
        """Turn tokens into text; see `ModelsClient.detokenize`."""
        return await self._models.detokenize(model, tokens)

    async def pieces(self, model: str, tokens: Sequence[int]) -> Sequence[bytes]:
        """Give the bytes of each token; see `ModelsClient.pieces`."""
        return await self._models.pieces(model, tokens)

    async def count_tokens(self, request: ChatRequest) -> int:
        """Count the tokens of a prompt; see `ModelsClient.count_tokens`."""
        return await self._models.count_tokens(asked(request))

    async def load(
        self,
        model: str,
        *,
        options: Mapping[str, object],
        keep_alive_s: float | None,
        think: Think | None = None,
        client: str = "",
    ) -> int:
        """Load a model; see `ModelsClient.load`."""
        return await self._models.load(
            model,
            options=options,
            keep_alive_s=keep_alive_s,
            think=think,
            client=client or asking_client(),
        )

    async def unload(self, model: str) -> None:
        """Let a model go; see `ModelsClient.unload`."""
        await self._models.unload(model)

    async def ps(self) -> Sequence[LoadedModel]:
        """List the loaded models; see `ModelsClient.ps`."""
        return await self._models.ps()

    async def queue(self) -> Sequence[QueueRow]:
        """List who runs and who waits; see `ModelsClient.queue`."""
        return await self._models.queue()

    def _prompted(self, model: str, result: EmbedResult | RerankResult) -> ModelMeter:
        meter, usage = self._row(model, result.load_ns)
        for row in (meter, usage):
            row.n_prompt += result.n_tokens
        return meter

    def _row(self, model: str, load_ns: int) -> tuple[ModelMeter, Usage]:
        """Find the model's row and the request's own, and put the wait into both."""
        meter = self._metrics.model(model)
        queue_s = load_ns / 1e9
        meter.queue.observe(queue_s)
        call = current_call()
        if call is None or call.usage is None:
            usage = Usage(meter.name)
            if call is not None:
                call.usage = usage
        else:
            usage = call.usage
        usage.queue_s = max(usage.queue_s, queue_s)
        return meter, usage
