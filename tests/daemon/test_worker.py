"""One body of tests for the real worker and for its fake, so that the fake stays true; and what only the real one can do."""

from __future__ import annotations

import math
from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib import resources
from pathlib import Path

import msgspec
import pytest
import trio

from kit.fake_worker import FakeModel, FakeWorker
from olm.actors.runtime import Address, ChildSpec, open_supervisor, process_actor
from olm.actors.tree import worker_options
from olm.chat.options import LoadOptions
from olm.chat.types import ChatMessage, ChatPrompt, Done, Piece, Sampling, TextPrompt, TurnEvent
from olm.errors import ContextTooLong, InvalidRequest, LoadFailed
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
