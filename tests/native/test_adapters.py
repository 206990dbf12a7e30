"""Adapters by request: each answer is what it would be alone, and no request waits long for those with other adapters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from native_kit import Ask

from kit.hf import FIXTURES, reference
from olm.chat.types import Sampling
from olm.checkpoint.folder import open_checkpoint
from olm.convert.lazy import constant
from olm.convert.lora import plan_adapter
from olm.convert.metadata import Metadata
from olm.convert.model_file import ModelFile, OutTensor
from olm.convert.run import convert
from olm.convert.wire import Convert
from olm.convert.writer import write_gguf
from olm.gguf import read_header
from olm.native.engine import Done, Embedding, Engine, EngineOptions, Piece
from olm.native.handles import Model
from olm.native.lib import AdapterFailed, InvalidArgument
from olm.native.quantize import CancelFlag

pytestmark = pytest.mark.native

BASE, LORA = "llama-untied", "llama-untied-lora"
ON, OFF, HALF = (1.0,), (0.0,), (0.5,)
N_NEW = 16


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The converted base and its adapter."""
    folder = tmp_path_factory.mktemp("adapters")
    base, lora = folder / "base.gguf", folder / "lora.gguf"
    sources = {path.name: str(path) for path in (FIXTURES / BASE).iterdir()}
    convert(Convert(target=str(base), files=sources, name=BASE), lambda _: None, CancelFlag())
    with open_checkpoint(FIXTURES / LORA) as checkpoint:
        write_gguf(plan_adapter(checkpoint, read_header(base)), lora)
    return base, lora


@pytest.fixture
def adapted(backend: Path, files: tuple[Path, Path]) -> Iterator[Model]:
    """The base with its adapter at full scale."""
    base, lora = files
    with Model.load(base, adapters=[(str(lora), 1.0)]) as model:
        yield model


@pytest.fixture
def engine(adapted: Model) -> Iterator[Engine]:
    """An engine with room for four."""
    with Engine(
        adapted, EngineOptions(n_ctx=256, n_parallel=4, n_threads=1, type_k="f32", type_v="f32")
    ) as made:
        yield made


def _prompt() -> list[int]:
    return cast("list[int]", reference(LORA)["tokens"])


def _wanted(name: str) -> list[int]:
    return cast("list[int]", reference(name)["greedy_continuation"])


def _greedy(n_predict: int = N_NEW) -> Sampling:
    return Sampling(temperature=0, n_predict=n_predict, ignore_eos=True)


async def test_each_request_has_its_own(engine: Engine, gather: Ask) -> None:
    """The same prompt with the adapter and without it, at once, as Transformers computes both."""
    requests = [engine.submit(_prompt(), _greedy(), adapters=scales) for scales in (ON, OFF, None)]

    answers = await gather(engine, *requests)

    assert _wanted(LORA) != _wanted(BASE)
    assert [a.tokens for a in answers] == [_wanted(LORA), _wanted(BASE), _wanted(LORA)]


async def test_together_each_says_what_it_says_alone(engine: Engine, gather: Ask) -> None:
    wanted: Sequence[tuple[float, ...]] = [ON, HALF, OFF, (0.25,), HALF, ON]
    prompts = [_prompt()[i : i + 40] for i in range(len(wanted))]
    alone = []
    for prompt, scales in zip(prompts, wanted, strict=True):
        alone += await gather(engine, engine.submit(prompt, _greedy(), adapters=scales))

    together = await gather(
        engine,
        *[
            engine.submit(prompt, _greedy(), adapters=scales)
            for prompt, scales in zip(prompts, wanted, strict=True)
        ],
    )

    assert [a.tokens for a in together] == [a.tokens for a in alone]
    assert len({tuple(a.tokens) for a in alone}) > 3


async def test_what_another_adapter_computed_is_not_used_again(engine: Engine, gather: Ask) -> None:
    prompt = _prompt()
    await gather(engine, engine.submit(prompt, _greedy(), adapters=ON))
    before = engine.stats().n_cached_tokens

    [without] = await gather(engine, engine.submit(prompt, _greedy(), adapters=OFF))
    found_by_other = engine.stats().n_cached_tokens - before
    [again] = await gather(engine, engine.submit(prompt, _greedy(), adapters=ON))

    assert found_by_other == 0
    assert without.tokens == _wanted(BASE)
    assert again.tokens == _wanted(LORA)
    assert engine.stats().n_cached_tokens - before == len(prompt) - 1


async def test_streams_with_other_adapters_take_turns(engine: Engine) -> None:
    """None gets further ahead of the others than the steps of a few turns."""
    scales: Sequence[tuple[float, ...]] = [ON, OFF, HALF]
    requests = [engine.submit(_prompt()[:20], _greedy(120), adapters=s) for s in scales]
    counts = dict.fromkeys(requests, 0)
    lead = 0
    while min(counts.values()) < 100:
        for event in await engine.next_events():
            if isinstance(event, Piece):
                counts[event.request] += len(event.tokens)
            if all(counts.values()):
                lead = max(lead, max(counts.values()) - min(counts.values()))

    assert lead < 50, "of 120; some tokens are no text yet and come late"
    n_steps, n_changes = engine.stats().n_steps, engine.stats().n_adapter_changes
    assert n_steps / 8 < n_changes < n_steps / 3, "turns of four steps"


async def test_a_long_prompt_leaves_turns_to_streams_of_other_adapters(
    adapted: Model, gather: Ask
) -> None:
    options = EngineOptions(n_ctx=1024, n_parallel=2, n_batch=512, n_chunk=16, n_threads=1)
    with Engine(adapted, options) as engine:
        stream = engine.submit(_prompt()[:8], _greedy(200), adapters=OFF)
        while not any(isinstance(event, Piece) for event in await engine.next_events()):
            pass
        long = engine.submit(_prompt() * 7, _greedy(1), adapters=ON)
        n_tokens, is_over = 0, False
        while not is_over:
            for event in await engine.next_events():
                n_tokens += len(event.tokens) if isinstance(event, Piece) else 0
                is_over = is_over or (isinstance(event, Done) and event.request == long)

        assert n_tokens > 2 * len(_prompt()) * 7 / 16, "a turn of steps after each chunk"
        engine.cancel(stream)


async def test_requests_with_one_set_share_their_steps(engine: Engine, gather: Ask) -> None:
    requests = [engine.submit(_prompt()[i:], _greedy(), adapters=HALF) for i in range(4)]

    await gather(engine, *requests)

    assert engine.stats().n_adapter_changes == 1
    assert engine.stats().n_steps < 30


@pytest.mark.parametrize("scales", [(), (1.0, 1.0), (float("inf"),)])
def test_scales_must_be_one_for_each_adapter(engine: Engine, scales: tuple[float, ...]) -> None:
    with pytest.raises(InvalidArgument, match="adapters"):
        engine.submit([1, 2], _greedy(), adapters=scales)


def test_an_adapter_for_another_architecture_is_refused(
    backend: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    base, _ = files
    other = tmp_path / "other.gguf"
    with open_checkpoint(FIXTURES / LORA) as checkpoint:
        file = plan_adapter(checkpoint, read_header(base))
        file.metadata.text("general.architecture", "qwen2")
        write_gguf(file, other)

    with pytest.raises(AdapterFailed, match="arch"):
        Model.load(base, adapters=[(str(other), 1.0)])


async def _vectors(engine: Engine, *requests: int) -> list[bytes]:
    found: dict[int, bytes] = {}
    while len(found) < len(requests):
        for event in await engine.next_events():
            assert isinstance(event, Embedding), event
            found[event.request] = event.vectors
    return [found[request] for request in requests]


async def test_embeddings_are_computed_with_the_requests_adapters(engine: Engine) -> None:
    """Also when requests with others wait in the same line."""
    texts = [_prompt()[:9], _prompt()[3:20]]
    alone = []
    for scales in (ON, OFF):
        alone += await _vectors(engine, engine.embed(texts, adapters=scales))

    requests = [engine.embed(texts, adapters=scales) for scales in (ON, OFF, ON, OFF)]
    together = await _vectors(engine, *requests)

    assert alone[0] != alone[1]
    assert together == [*alone, *alone]


def test_an_adapter_of_embeddings_that_are_the_output_is_refused(
    backend: Path, tmp_path: Path
) -> None:
    """llama.cpp loads it, and ends the process at the first token."""
    base, lora = tmp_path / "base.gguf", tmp_path / "lora.gguf"
    sources = {path.name: str(path) for path in (FIXTURES / "llama-tied").iterdir()}
    convert(Convert(target=str(base), files=sources), lambda _: None, CancelFlag())
    meta = Metadata("llama")
    meta.text("general.type", "adapter")
    meta.text("adapter.type", "lora")
    meta.f32("adapter.lora.alpha", 1)
    shape = next(t.shape for t in read_header(base).tensors if t.name == "token_embd.weight")
    factors = {"a": np.zeros((shape[1], 2)), "b": np.zeros((shape[0], 2))}
    tensors = [
        OutTensor(f"token_embd.weight.lora_{side}", constant(values), "F32")
        for side, values in factors.items()
    ]
    write_gguf(ModelFile("adapter", meta, tensors), lora)

    with pytest.raises(AdapterFailed, match="are this model's output as well"):
        Model.load(base, adapters=[(str(lora), 1.0)])
