"""The built-in model and an engine for the tests of `olm.native`. Without the built extension nothing here is collected."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for native_kit: tests are no package

from native_kit import Answer, Ask, Chat, Greedy, MakeEngine

if TYPE_CHECKING:
    from olm.native.engine import Engine
    from olm.native.handles import Model

_BUILT = importlib.util.find_spec("olm.native._olm") is not None
collect_ignore_glob = [] if _BUILT else ["test_*.py"]

TINY = Path(__file__).parents[2] / "src/olm/data/tiny/tiny-q8_0.gguf"


@pytest.fixture(scope="session")
def backend() -> Path:
    """Load the CPU backend, once for the test process."""
    from olm.native.devices import choose_cpu_variant
    from olm.native.handles import initialize

    variant = choose_cpu_variant()
    initialize(variant.path)
    return variant.path


@pytest.fixture(scope="session")
def tiny(backend: Path) -> Iterator[Model]:
    """The built-in model."""
    from olm.native.handles import Model

    with Model.load(TINY) as model:
        yield model


@pytest.fixture
def make_engine(tiny: Model) -> Iterator[MakeEngine]:
    """Make engines on the built-in model that are closed after the test."""
    from olm.native.engine import Engine, EngineOptions

    with ExitStack() as stack:

        def make(**fields: object) -> Engine:
            options = EngineOptions(**{"n_ctx": 512, "n_parallel": 8, "n_threads": 1, **fields})  # type: ignore[arg-type]  # by name
            return stack.enter_context(Engine(tiny, options))

        yield make


@pytest.fixture
def gather() -> Ask:
    """Wait for the answers of requests."""
    from olm.native.engine import Done, Failed, Piece, Progress

    async def wait(engine: Engine, *requests: int) -> list[Answer]:
        answers = {request: Answer() for request in requests}
        while not all(answer.ended for answer in answers.values()):
            for event in await engine.next_events():
                answer = answers[event.request]
                match event:
                    case Progress():
                        answer.progress.append(event)
                    case Piece() | Done():
                        answer.text += event.text
                        answer.tokens.extend(event.tokens)
                        answer.logprobs.extend(event.logprobs)
                        if event.text:
                            answer.pieces.append(event.text)
                        if isinstance(event, Done):
                            answer.done = event
                    case Failed():
                        answer.failed = event
        return list(answers.values())

    return wait


@pytest.fixture
def greedy(tiny: Model) -> Greedy:
    """Run the reference loop on the built-in model."""
    from olm.native.lib import check, ffi, lib, new_int, new_pointer

    def run(tokens: list[int], n_predict: int, n_chunk: int = 0) -> list[int]:
        ids = ffi.new("int32_t[]", tokens)
        out, n_out = new_pointer("int32_t **"), new_int("size_t *")
        check(
            lib.olm_test_greedy(tiny.pointer, ids, len(tokens), n_predict, n_chunk, 1, out, n_out)
        )
        try:
            return list(ffi.unpack(out[0], n_out[0]))
        finally:
            lib.olm_free(out[0])

    return run


@pytest.fixture
def chat_tokens(tiny: Model) -> Chat:
    """Tokens of a question in the built-in model's chat form."""

    def tokens(question: str) -> list[int]:
        text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        return tiny.tokenize(text)

    return tokens
