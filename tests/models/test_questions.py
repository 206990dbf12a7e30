"""Questions to a loaded model that are no turns: tokens, texts, counts, scores. Virtual time, fake workers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import pytest
from trio.testing import MockClock

from kit.models_bench import Bench, open_bench
from olm.actors.client import (
    ChatRequest,
    EmbedRequest,
    GenerateRequest,
    RerankRequest,
)
from olm.chat.types import ChatMessage
from olm.errors import InvalidRequest, ModelNotFound, NotSupported

TOO_LARGE = 1 << 70


async def test_tokens_and_text(autojump_clock: MockClock) -> None:
    async with open_bench() as bench:
        tokens = await bench.models.tokenize("a", "Hi!")

        assert list(tokens) == [72, 105, 33]
        assert await bench.models.detokenize("a", tokens) == "Hi!"
        assert list(await bench.models.pieces("a", tokens)) == [b"H", b"i", b"!"]


async def test_a_question_takes_the_model_as_it_is_loaded(autojump_clock: MockClock) -> None:
    async with open_bench() as bench:
        options = {"num_ctx": 99}
        await bench.models.load("a", options=options, keep_alive_s=5000.0)
        await bench.models.tokenize("a", "Hi!")
        [row] = await bench.models.ps()

    assert bench.fake.n_loads == 1
    assert row.n_ctx == 99
    assert row.expires_s > 4000


async def test_a_chat_is_counted_whole_and_a_picture_by_ollamas_guess(
    autojump_clock: MockClock,
) -> None:
    messages = [ChatMessage("user", f"message {n}") for n in range(1000)]
    async with open_bench() as bench:
        n_text = await bench.models.count_tokens(ChatRequest(model="a", messages=messages))
        await bench.models.load("a", options={"num_ctx": 64}, keep_alive_s=None)
        n_small = await bench.models.count_tokens(ChatRequest(model="a", messages=messages))
        seen = [*messages[:-1], ChatMessage("user", "message 999", images=(b"x", b"y"))]
        seer = attrs.evolve(bench.store.models["a"], capabilities=("completion", "vision"))
        bench.store.models["a"] = seer
        n_seen = await bench.models.count_tokens(ChatRequest(model="a", messages=seen))

    assert n_text == sum(len(f"user: message {n}\n") for n in range(1000)) == n_small
    assert n_seen == n_text + 2 * 768


Question = Callable[[Bench], Awaitable[object]]


@pytest.mark.parametrize(
    "question",
    [
        lambda bench: bench.models.detokenize("a", [1, TOO_LARGE]),
        lambda bench: bench.models.pieces("a", [1, TOO_LARGE]),
        lambda bench: bench.models.embed(EmbedRequest(model="a", inputs=["x", [1, TOO_LARGE]])),
        lambda bench: turn(bench, GenerateRequest(
            model="a", prompt="", prompt_tokens=[1, TOO_LARGE], raw=True
        )),
    ],
)  # fmt: skip
async def test_numbers_that_no_vocabulary_has_are_named(
    autojump_clock: MockClock, question: Question
) -> None:
    async with open_bench() as bench:
        with pytest.raises(InvalidRequest, match=f"token {TOO_LARGE} at place 1"):
            await question(bench)


async def turn(bench: Bench, request: GenerateRequest) -> None:
    async with bench.models.generate(request):
        pass


async def test_scores_come_in_the_order_of_the_documents(autojump_clock: MockClock) -> None:
    async with open_bench() as bench:
        ranker = attrs.evolve(bench.store.models["a"], capabilities=("embedding",))
        bench.store.models["a"] = ranker
        documents = ["dog", "cat cat", "cat"]
        found = await bench.models.rerank(
            RerankRequest(model="a", query="cat", documents=documents)
        )
        none = await bench.models.rerank(RerankRequest(model="a", query="cat", documents=[]))

    assert list(found.scores) == [0.0, 2.0, 1.0]
    assert found.n_tokens == len("catdog") + len("catcat cat") + len("catcat")
    assert (list(none.scores), none.n_tokens) == ([], 0)


async def test_a_model_that_cannot_rank_is_not_loaded_for_it(autojump_clock: MockClock) -> None:
    async with open_bench() as bench:
        with pytest.raises(NotSupported, match="does not support reranking"):
            await bench.models.rerank(RerankRequest(model="a", query="q", documents=["d"]))
        with pytest.raises(ModelNotFound):
            await bench.models.tokenize("nothing", "Hi!")

    assert bench.fake.n_loads == 0
