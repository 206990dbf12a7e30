"""Embeddings: batched, pooled, normalised, and apart from the text requests."""

from __future__ import annotations

import math
from struct import unpack

import pytest
from native_kit import Ask, Chat, Greedy, MakeEngine

from olm.chat.types import Sampling
from olm.native.engine import Embedding, Engine, Failed
from olm.native.handles import Model
from olm.native.lib import Cancelled, InvalidArgument, PromptTooLong

pytestmark = pytest.mark.native

TEXTS = ["the sky is blue", "cats", "why is the sky blue?", "one two three four five six"]


async def embed(
    engine: Engine, inputs: list[list[int]], *, normalize: bool = True
) -> list[list[float]]:
    request = engine.embed(inputs, normalize=normalize)
    while True:
        for event in await engine.next_events():
            if event.request != request:
                continue
            assert isinstance(event, Embedding), event
            assert event.n_vectors == len(inputs)
            assert event.n_tokens == sum(len(tokens) for tokens in inputs)
            flat = unpack(f"<{event.n_vectors * event.n_embd}f", event.vectors)
            return [list(flat[i : i + event.n_embd]) for i in range(0, len(flat), event.n_embd)]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


@pytest.fixture
def inputs(tiny: Model) -> list[list[int]]:
    return [tiny.tokenize(text) for text in TEXTS]


@pytest.mark.parametrize("pooling", ["", "mean", "last", "cls"])
async def test_together_and_alone_give_the_same_vectors(
    make_engine: MakeEngine, inputs: list[list[int]], pooling: str
) -> None:
    engine = make_engine(pooling=pooling)

    together = await embed(engine, inputs)
    alone = [(await embed(engine, [tokens]))[0] for tokens in inputs]

    for a, b in zip(together, alone, strict=True):
        assert cosine(a, b) > 0.9999
    assert cosine(together[0], together[1]) < 0.999


async def test_vectors_are_normalised_only_when_asked(
    make_engine: MakeEngine, inputs: list[list[int]]
) -> None:
    engine = make_engine()

    unit = await embed(engine, inputs)
    raw = await embed(engine, inputs, normalize=False)

    assert all(math.hypot(*vector) == pytest.approx(1, abs=1e-5) for vector in unit)
    assert all(abs(math.hypot(*vector) - 1) > 0.01 for vector in raw)
    assert all(cosine(a, b) > 0.9999 for a, b in zip(unit, raw, strict=True))


async def test_more_inputs_than_a_step_holds(make_engine: MakeEngine, tiny: Model) -> None:
    engine = make_engine(n_ctx=128)
    inputs = [[5 + i, 6, 7] for i in range(150)]

    vectors = await embed(engine, inputs)

    assert cosine(vectors[149], (await embed(engine, [inputs[149]]))[0]) > 0.9999


@pytest.mark.parametrize("kv_unified", [True, False])
async def test_an_input_as_long_as_the_context(make_engine: MakeEngine, kv_unified: bool) -> None:
    engine = make_engine(n_ctx=512, kv_unified=kv_unified)

    assert len(await embed(engine, [[5] * 512])) == 1
    with pytest.raises(PromptTooLong):
        engine.embed([[5] * 513])


@pytest.mark.parametrize("inputs", [[], [[]], [[5], []], [[99999]]])
async def test_what_cannot_be_embedded_is_refused(
    make_engine: MakeEngine, inputs: list[list[int]]
) -> None:
    with pytest.raises(InvalidArgument):
        make_engine().embed(inputs)


async def test_streams_go_on_beside_embeddings(
    make_engine: MakeEngine, gather: Ask, greedy: Greedy, chat_tokens: Chat, inputs: list[list[int]]
) -> None:
    engine = make_engine()
    prompt = chat_tokens("Why is the sky blue?")
    text = engine.submit(prompt, Sampling(temperature=0, n_predict=30))
    vectors = engine.embed(inputs)
    tokens: list[int] = []
    seen: set[int] = set()
    while seen != {text, vectors}:
        for event in await engine.next_events():
            tokens += getattr(event, "tokens", ())
            if isinstance(event, Embedding) or getattr(event, "reason", None):
                seen.add(event.request)

    assert tokens == greedy(prompt, 30)


async def test_cancelled_embeddings_say_so(make_engine: MakeEngine) -> None:
    engine = make_engine(n_ctx=512)
    first = engine.embed([[5] * 100] * 64)
    second = engine.embed([[5] * 100] * 64)

    engine.cancel(second)
    ended: dict[int, object] = {}
    while len(ended) < 2:
        for event in await engine.next_events():
            ended[event.request] = event

    failed = ended[second]
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, Cancelled)
    assert isinstance(ended[first], Embedding)
