"""Several turns behind one answer (OpenAI's `n`, lists of prompts): side by side, as one stream or all collected.

Each turn waits for its own place in the model's queue. The first error is the answer's; the other turns are left then.
What the lines look like is the dialects' business.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import trio

from olm.actors.client import Turn
from olm.api.gate import Call
from olm.api.streaming import LineForm, turn_lines, whole_turn
from olm.chat.types import TurnEvent

__all__ = ["choice_lines", "collect"]

OpenTurn = AbstractAsyncContextManager[Turn]

MAX_AT_ONCE: Final = 16
"""Turns of one request that run or queue at the same time: one client must not fill the queue of a model."""


@asynccontextmanager
async def choice_lines(
    turns: Sequence[OpenTurn], forms: Sequence[LineForm], call: Call
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Open turns as one stream of lines, each turn in its own form; lines that wait together come in one batch."""
    if len(turns) == 1:
        async with turn_lines(turns[0], forms[0], call) as lines:
            yield lines
        return
    # No buffer: a turn is held back as soon as the client is, with one batch in hand.
    send, receive = trio.open_memory_channel[bytes | Exception](0)
    limiter = trio.CapacityLimiter(MAX_AT_ONCE)
    with receive:
        async with trio.open_nursery() as nursery:
            with send:
                for turn, form in zip(turns, forms, strict=True):
                    nursery.start_soon(_play, turn_lines(turn, form, call), limiter, send.clone())
            yield _Merged(receive)
            nursery.cancel_scope.cancel("the answer is over")


async def _play(
    lines: AbstractAsyncContextManager[AsyncIterator[bytes]],
    limiter: trio.CapacityLimiter,
    send: trio.MemorySendChannel[bytes | Exception],
) -> None:
    with send:
        try:
            async with limiter, lines as batches:
                async for batch in batches:
                    await send.send(batch)
        except Exception as exc:
            # Handed over instead of raised: the nursery would cancel the reader in the middle of a write.
            await send.send(exc)


class _Merged:
    def __init__(self, receive: trio.MemoryReceiveChannel[bytes | Exception]) -> None:
        self._receive = receive
        self._pending: Exception | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._pending is not None:
            raise self._pending
        batch = await self._receive.__anext__()
        if isinstance(batch, Exception):
            raise batch
        while True:
            try:
                more = self._receive.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return batch
            if isinstance(more, Exception):
                # What came before the error is written first.
                self._pending = more
                return batch
            batch += more


async def collect(turns: Sequence[OpenTurn]) -> list[list[TurnEvent]]:
    """Run turns to their ends; their events, in the order of the turns.

    Raises:
        OlmError: of the only turn. ExceptionGroup: of several, with all that failed before the rest was left.
    """
    if len(turns) == 1:
        return [await _events(turns[0])]
    found: dict[int, list[TurnEvent]] = {}
    limiter = trio.CapacityLimiter(MAX_AT_ONCE)

    async def run(index: int, turn: OpenTurn) -> None:
        async with limiter:
            found[index] = await _events(turn)

    async with trio.open_nursery() as nursery:
        for index, turn in enumerate(turns):
            nursery.start_soon(run, index, turn)
    return [found[index] for index in range(len(turns))]


async def _events(turn: OpenTurn) -> list[TurnEvent]:
    async with turn as running:
        return await whole_turn(running)
