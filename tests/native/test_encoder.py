"""Models that only embed: no memory, no causal mask, no text. A random BERT is written for it."""

from __future__ import annotations

from collections.abc import Iterator
from struct import unpack

import numpy as np
import pytest

from kit.bert import CONTEXT, WIDTH, write_bert
from olm.native.engine import Embedding, Engine, EngineOptions, Event
from olm.native.handles import Model
from olm.native.lib import PromptTooLong, Unsupported

pytestmark = pytest.mark.native


@pytest.fixture(scope="module")
def bert(backend: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = tmp_path_factory.mktemp("bert") / "bert.gguf"
    write_bert(path)
    with Model.load(path) as model:
        yield model


@pytest.fixture
def engine(bert: Model) -> Iterator[Engine]:
    with Engine(bert, EngineOptions(n_ctx=CONTEXT, n_parallel=2, n_threads=1)) as engine:
        yield engine


async def vectors(
    engine: Engine, inputs: list[list[int]]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    request = engine.embed(inputs)
    events: list[Event] = []
    while not events:
        events = [event for event in await engine.next_events() if event.request == request]
    [event] = events
    assert isinstance(event, Embedding), event
    flat = unpack(f"<{event.n_vectors * event.n_embd}f", event.vectors)
    return np.array(flat, np.float32).reshape(event.n_vectors, event.n_embd)


def test_its_facts(bert: Model) -> None:
    assert (bert.info.arch, bert.info.pooling, bert.info.vocab_type) == ("bert", 1, "wpm")
    assert not bert.info.has_chat_template
    assert bert.tokenize("the sky") == [2, 5, 6, 3]


async def test_a_batch_gives_what_each_input_gives_alone(engine: Engine, bert: Model) -> None:
    inputs = [
        bert.tokenize(text) for text in ("the sky is blue", "a cat sat", "blue", "the cat is blue")
    ]

    together = await vectors(engine, inputs)
    alone = np.concatenate([await vectors(engine, [tokens]) for tokens in inputs])

    np.testing.assert_allclose(together, alone, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert abs(float(together[0] @ together[1])) < 0.999


async def test_every_token_sees_every_other(engine: Engine, bert: Model) -> None:
    one, other = await vectors(engine, [bert.tokenize("the sky is"), bert.tokenize("is sky the")])

    assert abs(float(one @ other)) < 0.9999


async def test_a_full_context_fits_and_more_is_refused(engine: Engine) -> None:
    assert (await vectors(engine, [[5] * CONTEXT])).shape == (1, WIDTH)
    with pytest.raises(PromptTooLong):
        engine.embed([[5] * (CONTEXT + 1)])


def test_it_writes_no_text(engine: Engine) -> None:
    with pytest.raises(Unsupported, match="does not generate"):
        engine.submit([5, 6])
