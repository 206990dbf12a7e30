"""One body of tests for the real worker and for its fake, so that the fake stays true; and what only the real one can do."""

from __future__ import annotations

import math
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib import resources
from pathlib import Path

import msgspec
import pytest
import trio

from kit.bert import write_bert
from kit.fake_worker import FakeModel, FakeWorker
from olm.actors.runtime import Address, ChildSpec, open_supervisor, process_actor
from olm.actors.tree import worker_options
from olm.chat.options import LoadOptions
from olm.chat.types import ChatMessage, ChatPrompt, Done, Piece, Sampling, TextPrompt, TurnEvent
from olm.errors import ContextTooLong, InvalidRequest, LoadFailed, NotSupported
from olm.native import wire
from olm.native.process import ProcessIdRequest

OpenWorker = Callable[[], AbstractAsyncContextManager[Address]]

TINY = str(resources.files("olm.data.tiny").joinpath("tiny-q8_0.gguf"))
N_CTX = 128


@asynccontextmanager
async def open_fake() -> AsyncIterator[Address]:
    model = FakeModel(load_s=0.0, step_s=0.0, n_turn_tokens=12)
    async with open_supervisor() as root:
        yield await root.start_child(ChildSpec("worker", partial(FakeWorker, model)))


@asynccontextmanager
async def open_real() -> AsyncIterator[Address]:
    actor = process_actor(
        "olm.native.worker:Worker", config=wire.WorkerConfig(), options=worker_options()
    )
    async with open_supervisor() as root:
        yield await root.start_child(ChildSpec("worker", actor))


@pytest.fixture(
    params=[open_fake, pytest.param(open_real, marks=[pytest.mark.native, pytest.mark.slow])]
)
def open_worker(request: pytest.FixtureRequest) -> OpenWorker:
    """The fake, then the real one."""
    opener: OpenWorker = request.param
    return opener


async def load(worker: Address, path: str = TINY) -> wire.Loaded:
    message = wire.Load(path=path, options=LoadOptions(n_ctx=N_CTX), n_parallel=2)
    fracs = [0.0]
    async with worker.stream(message) as events:
        async for event in events:
            if isinstance(event, wire.Loaded):
                assert fracs == sorted(fracs)
                return event
            fracs.append(event.frac)
    raise AssertionError("a load ends with Loaded or an error")


def turn(text: str = "Hello!", **fields: object) -> wire.Turn:
    prompt = ChatPrompt(messages=(ChatMessage(role="user", content=text),))
    message = wire.Turn(prompt=prompt, sampling=Sampling(temperature=0.0))
    return msgspec.structs.replace(message, **fields)


async def run(worker: Address, message: wire.Turn) -> list[TurnEvent]:
    async with worker.stream(message) as events:
        return [event async for event in events]


async def test_a_turn_is_pieces_and_one_done(open_worker: OpenWorker) -> None:
    async with open_worker() as worker:
        loaded = await load(worker)
        events = await run(worker, turn())

    assert (loaded.n_ctx, loaded.n_parallel) == (N_CTX, 2)
    *pieces, done = events
    assert isinstance(done, Done)
    assert all(isinstance(piece, Piece) and piece.content + piece.thinking for piece in pieces)
    assert done.reason == "stop"
    assert done.n_generated >= len(pieces) > 0
    assert done.n_prompt > 0
    assert not done.truncated
    assert done.context == ()


async def test_n_predict_bounds_a_turn(open_worker: OpenWorker) -> None:
    async with open_worker() as worker:
        await load(worker)
        message = turn(sampling=Sampling(n_predict=3, temperature=0.0))
        *_, done = await run(worker, message)

    assert isinstance(done, Done)
    assert (done.reason, done.n_generated) == ("length", 3)


async def test_turns_run_side_by_side(open_worker: OpenWorker) -> None:
    async with open_worker() as worker:
        await load(worker)
        results: list[list[TurnEvent]] = []

        async def one() -> None:
            results.append(await run(worker, turn()))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(one)

    texts = {"".join(e.content for e in r if isinstance(e, Piece)) for r in results}
    assert len(results) == 5
    assert len(texts) == 1


async def test_a_stream_that_is_closed_frees_its_sequence(open_worker: OpenWorker) -> None:
    async with open_worker() as worker:
        await load(worker)
        endless = Sampling(n_predict=1_000_000, ignore_eos=True)
        async with worker.stream(turn(sampling=endless)) as events:
            for _ in range(10):
                await events.__anext__()

        async def stats() -> tuple[int, int]:
            found = await worker.ask(wire.WorkerStatsRequest())
            return found.n_running, found.n_decoded_tokens

        with trio.fail_after(5):
            while (await stats())[0]:
                await trio.sleep(0.01)
        # It would have gone on to ten contexts.
        assert (await stats())[1] < 5 * N_CTX


async def test_the_oldest_messages_are_dropped_when_they_do_not_fit(
    open_worker: OpenWorker,
) -> None:
    messages = tuple(ChatMessage(role="user", content=f"old message {n}") for n in range(40))
    prompt = ChatPrompt(messages=(*messages, ChatMessage(role="user", content="new")))
    async with open_worker() as worker:
        await load(worker)
        sampling = Sampling(n_predict=2)
        *_, done = await run(worker, wire.Turn(prompt=prompt, sampling=sampling))
        with pytest.raises(ContextTooLong, match="longer than the context length"):
            await run(worker, wire.Turn(prompt=prompt, sampling=sampling, truncate=False))

    assert isinstance(done, Done)
    assert done.truncated
    assert N_CTX // 2 < done.n_prompt < N_CTX


async def test_long_text_is_cut_in_the_middle_unless_shifting_is_off(
    open_worker: OpenWorker,
) -> None:
    message = wire.Turn(prompt=TextPrompt("word " * 500), sampling=Sampling(n_predict=2))
    async with open_worker() as worker:
        await load(worker)
        *_, done = await run(worker, message)
        with pytest.raises(ContextTooLong):
            await run(worker, msgspec.structs.replace(message, shift=False))

    assert isinstance(done, Done)
    assert done.truncated
    assert done.n_prompt < N_CTX


async def test_context_is_prompt_and_answer_when_asked_for(open_worker: OpenWorker) -> None:
    async with open_worker() as worker:
        await load(worker)
        *_, done = await run(worker, turn(want_context=True))
        assert isinstance(done, Done)
        prompt = TextPrompt("more", context=done.context[: N_CTX // 2])
        *_, more = await run(worker, wire.Turn(prompt=prompt, sampling=Sampling(n_predict=1)))

    assert len(done.context) >= done.n_prompt
    assert isinstance(more, Done)
    assert more.n_prompt > len(prompt.context)


async def test_tokens_are_text_again(open_worker: OpenWorker) -> None:
    text = "Grüße, 世界! "
    async with open_worker() as worker:
        await load(worker)
        tokens = await worker.ask(wire.Tokenize(text, add_special=False))
        back = await worker.ask(wire.Detokenize(tokens))

    assert back == text


async def test_rendering_shows_the_messages(open_worker: OpenWorker) -> None:
    async with open_worker() as worker:
        await load(worker)
        text = await worker.ask(
            wire.Render(ChatPrompt(messages=(ChatMessage(role="user", content="hi there"),)))
        )

    assert "user" in text
    assert "hi there" in text


async def test_embeddings_are_rows_of_length_one(open_worker: OpenWorker) -> None:
    async with open_worker() as worker:
        await load(worker)
        embedded = await worker.ask(wire.Embed(inputs=("one", "two three")))
        long = "word " * 500
        cut = await worker.ask(wire.Embed(inputs=(long,)))
        with pytest.raises(ContextTooLong, match="the input length exceeds the context length"):
            await worker.ask(wire.Embed(inputs=(long,), truncate=False))

    floats = array("f", embedded.vectors)
    assert len(floats) == 2 * embedded.n_embd
    assert len(embedded.n_tokens) == 2
    for start in (0, embedded.n_embd):
        row = floats[start : start + embedded.n_embd]
        assert math.hypot(*row) == pytest.approx(1, abs=1e-3)
    assert cut.n_tokens[0] <= N_CTX


async def test_a_prompt_may_be_tokens_and_so_may_what_is_embedded(open_worker: OpenWorker) -> None:
    text = "Once upon a time"
    async with open_worker() as worker:
        await load(worker)
        tokens = await worker.ask(wire.Tokenize(text))
        prompts = [
            TextPrompt("", tokens[:3]),
            TextPrompt(await worker.ask(wire.Detokenize(tokens[:3]))),
            TextPrompt(text, tokens),
        ]
        short = Sampling(n_predict=8, temperature=0.0)
        by_tokens, by_text, both = [
            await run(worker, turn(prompt=prompt, sampling=short)) for prompt in prompts
        ]
        embedded = await worker.ask(wire.Embed(inputs=(text, tokens)))

    ends = [events[-1] for events in (by_tokens, by_text, both)]
    n_prompts = [end.n_prompt for end in ends if isinstance(end, Done)]
    assert n_prompts == [3, 3, 2 * len(tokens)]
    assert [e for e in by_tokens if isinstance(e, Piece)] == [
        e for e in by_text if isinstance(e, Piece)
    ]
    assert embedded.n_tokens == (len(tokens), len(tokens))
    assert embedded.vectors[: 4 * embedded.n_embd] == embedded.vectors[4 * embedded.n_embd :]


async def test_text_tokens_and_pieces_lead_to_each_other(open_worker: OpenWorker) -> None:
    text = "Grüße, 世界! <b>"
    async with open_worker() as worker:
        await load(worker)
        tokens = await worker.ask(wire.Tokenize(text, add_special=False))
        back = await worker.ask(wire.Detokenize(tokens))
        pieces = await worker.ask(wire.Pieces(tokens))
        half = await worker.ask(wire.Detokenize(_beginning_of_a_character(tokens, pieces)))
        for message in (wire.Detokenize((1, 1 << 30)), wire.Pieces((1, 1 << 30))):
            with pytest.raises(InvalidRequest, match="token 1073741824 at place 1"):
                await worker.ask(message)

    assert back == text
    assert b"".join(pieces) == text.encode()
    assert len(pieces) == len(tokens)
    assert half.endswith("\ufffd")


def _beginning_of_a_character(tokens: Sequence[int], pieces: Sequence[bytes]) -> tuple[int, ...]:
    for n in range(1, len(tokens)):
        try:
            b"".join(pieces[:n]).decode()
        except UnicodeDecodeError:
            return tuple(tokens[:n])
    raise AssertionError("no character is cut in two")


async def test_a_prompt_is_counted_as_a_turn_counts_it_and_beyond(open_worker: OpenWorker) -> None:
    message = turn("Hello!", sampling=Sampling(n_predict=1))
    long = tuple(ChatMessage(role="user", content=f"message {n}") for n in range(100))
    async with open_worker() as worker:
        await load(worker)
        *_, done = await run(worker, message)
        n_tokens = await worker.ask(wire.CountTokens(message.prompt))
        n_long = await worker.ask(wire.CountTokens(ChatPrompt(messages=long)))
        whole = await worker.ask(wire.Render(ChatPrompt(messages=long), truncate=False))
        fitting = await worker.ask(wire.Render(ChatPrompt(messages=long)))

    assert isinstance(done, Done)
    assert n_tokens == done.n_prompt
    assert n_long > 2 * N_CTX
    assert "message 0" in whole
    assert "message 0" not in fitting


# -- only the real one -------------------------------------------------------------------------------------------


@pytest.mark.native
@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "text"),
    [(b"", "failed"), (b"GGUF" + b"\xff" * 100, "failed"), (None, "No such file")],
    ids=["empty", "damaged", "missing"],
)
async def test_weights_that_do_not_load(tmp_path: Path, data: bytes | None, text: str) -> None:
    path = tmp_path / "weights.gguf"
    if data is not None:
        path.write_bytes(data)
    async with open_real() as worker:
        with pytest.raises(LoadFailed, match=text) as caught:
            await load(worker, str(path))
        assert str(tmp_path) not in str(caught.value)
        # The worker lives, and may load something better.
        assert (await load(worker)).n_ctx == N_CTX


@pytest.mark.native
@pytest.mark.slow
async def test_what_a_request_gives_is_checked_against_the_vocabulary() -> None:
    unknown = TextPrompt("", context=(5, 99_999))
    async with open_real() as worker:
        await load(worker)
        with pytest.raises(InvalidRequest, match="token 99999 at place 1 is not in the model"):
            await run(worker, turn(prompt=unknown))
        with pytest.raises(InvalidRequest, match="token -1 at place 0 is not in the model"):
            await worker.ask(wire.Embed(inputs=("fine", (-1,))))
        with pytest.raises(NotSupported, match="does not support reranking"):
            await worker.ask(wire.Rerank("query", ("document",)))


@pytest.mark.native
@pytest.mark.slow
async def test_the_stop_string_of_a_request_is_told() -> None:
    sampling = Sampling(n_predict=60, temperature=0.0, stop=("no such text", "e"))
    async with open_real() as worker:
        await load(worker)
        *_, told = await run(worker, turn(sampling=sampling, tell_stop=True))
        *_, kept = await run(worker, turn(sampling=sampling))

    assert isinstance(told, Done)
    assert isinstance(kept, Done)
    assert (told.reason, told.stop, kept.reason, kept.stop) == ("stop", "e", "stop", "")


@pytest.mark.native
@pytest.mark.slow
async def test_a_ranker_scores_and_does_not_embed(tmp_path: Path) -> None:
    import gguf

    path = tmp_path / "ranker.gguf"
    write_bert(path, pooling=gguf.PoolingType.RANK, head=True)
    documents = ("the sky is blue", "a cat sat", "")
    async with open_real() as worker:
        await load(worker, str(path))
        ranked = await worker.ask(wire.Rerank("the cat", documents))
        alone = [await worker.ask(wire.Rerank("the cat", (text,))) for text in documents]
        with pytest.raises(NotSupported, match="gives no embeddings: use rerank"):
            await worker.ask(wire.Embed(inputs=("the sky",)))

    assert ranked.n_tokens == (8, 7, 4)
    assert ranked.scores == pytest.approx([one.scores[0] for one in alone], abs=1e-4)
    assert len(set(ranked.scores)) == 3


@pytest.mark.native
@pytest.mark.slow
async def test_a_turn_before_the_load_is_refused() -> None:
    async with open_real() as worker:
        with pytest.raises(LoadFailed, match="holds no model"):
            await run(worker, turn())


@pytest.mark.native
@pytest.mark.slow
async def test_an_empty_prompt_is_refused() -> None:
    async with open_real() as worker:
        await load(worker)
        with pytest.raises(InvalidRequest):
            await run(worker, wire.Turn(prompt=TextPrompt("")))


@pytest.mark.native
@pytest.mark.slow
async def test_a_consumer_that_pauses_gets_everything_in_order() -> None:
    async with open_real() as worker:
        await load(worker)
        message = turn(sampling=Sampling(n_predict=110, ignore_eos=True, seed=3))
        at_once = await run(worker, message)
        async with worker.stream(message) as events:
            await trio.sleep(0.5)
            slowly = [event async for event in events]

    def text(events: list[TurnEvent]) -> str:
        return "".join(event.content for event in events if isinstance(event, Piece))

    assert text(slowly) == text(at_once)
    assert isinstance(slowly[-1], Done)
    assert slowly[-1].n_generated == 110


@pytest.mark.native
@pytest.mark.slow
async def test_logprobs_come_with_the_pieces() -> None:
    async with open_real() as worker:
        await load(worker)
        message = turn(sampling=Sampling(n_predict=5, n_logprobs=2, temperature=0.0))
        events = await run(worker, message)

    entries = [entry for event in events if isinstance(event, Piece) for entry in event.logprobs]
    assert len(entries) == 5
    for entry in entries:
        assert entry.logprob <= 0
        assert len(entry.top) == 2
        assert entry.top[0].logprob >= entry.top[1].logprob


@pytest.mark.native
@pytest.mark.slow
async def test_a_worker_knows_its_process() -> None:
    async with open_real() as worker:
        pid = await worker.ask(ProcessIdRequest())

        environ = await trio.Path(f"/proc/{pid}/environ").read_bytes()

    # Set before the process was executed; libc reads it at the first allocation.
    assert b"MALLOC_ARENA_MAX=2" in environ
    assert b"OMP_NUM_THREADS" not in environ
