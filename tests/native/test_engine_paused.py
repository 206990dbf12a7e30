"""Paused requests give their room away: their slot to who waits for one, their cells to who has none; and lose nothing."""

from __future__ import annotations

import pytest
from native_kit import Ask, Chat, MakeEngine

from olm.chat.types import Sampling
from olm.native.engine import Done, Engine, Piece

pytestmark = pytest.mark.native

LONG = Sampling(temperature=0, n_predict=60, ignore_eos=True)


async def begin(engine: Engine, prompt: list[int], n_tokens: int) -> tuple[int, list[int]]:
    """Submit a request and pause it after some tokens; its number, and the tokens it has said."""
    request = engine.submit(prompt, LONG)
    tokens: list[int] = []
    while len(tokens) < n_tokens:
        for event in await engine.next_events():
            assert isinstance(event, Piece), "it is not over yet"
            tokens += event.tokens
    engine.pause(request)
    return request, tokens


async def finish(engine: Engine, *requests: int) -> list[int]:
    """Wait for the ends of requests; the tokens that others still said meanwhile."""
    waiting, late = set(requests), []
    while waiting:
        for event in await engine.next_events():
            if isinstance(event, Done):
                waiting.remove(event.request)
            elif isinstance(event, Piece) and event.request not in requests:
                late += event.tokens
    return late


async def test_a_paused_request_lends_its_slot_and_goes_on_where_it_was(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat
) -> None:
    engine = make_engine(n_parallel=1)
    prompt = chat_tokens("What is your name?")
    [wanted] = await gather(engine, engine.submit(prompt, LONG))
    slow, tokens = await begin(engine, prompt, 5)

    others = [engine.submit(chat_tokens(f"Count to {n}."), LONG) for n in (7, 8)]
    tokens += await finish(engine, *others)
    engine.resume(slow)
    [rest] = await gather(engine, slow)

    assert tokens + rest.tokens == wanted.tokens
    assert engine.stats().n_preemptions == 1


async def test_a_paused_request_that_nobody_takes_the_slot_of_keeps_it(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat
) -> None:
    engine = make_engine(n_parallel=2)
    slow, _ = await begin(engine, chat_tokens("What is your name?"), 5)

    await finish(engine, engine.submit(chat_tokens("Count to 7."), LONG))
    engine.resume(slow)
    [answer] = await gather(engine, slow)

    assert answer.done is not None
    assert engine.stats().n_preemptions == 0


async def test_the_cells_of_the_paused_go_first(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat
) -> None:
    engine = make_engine(n_ctx=256, n_parallel=3, n_cells=256)
    slow, tokens = await begin(engine, chat_tokens("What is your name?"), 5)

    other = engine.submit(list(range(300, 540)), Sampling(temperature=0, n_predict=10))
    tokens += await finish(engine, other)
    assert engine.stats().n_preemptions == 1
    engine.resume(slow)
    [rest] = await gather(engine, slow)

    roomy = make_engine(n_parallel=1)
    [wanted] = await gather(roomy, roomy.submit(chat_tokens("What is your name?"), LONG))
    assert tokens + rest.tokens == wanted.tokens


async def test_a_request_without_its_slot_can_be_cancelled(
    make_engine: MakeEngine, chat_tokens: Chat
) -> None:
    engine = make_engine(n_parallel=1)
    slow, _ = await begin(engine, chat_tokens("What is your name?"), 5)
    other = engine.submit(chat_tokens("Count to 7."), LONG)

    engine.cancel(slow)
    await finish(engine, slow, other)

    assert (engine.stats().n_running, engine.stats().n_paused) == (0, 0)
