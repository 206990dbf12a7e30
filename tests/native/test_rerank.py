"""Models with a ranking head: what they read for a document, what they say, and which files are none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Protocol

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.bert import CONTEXT, head_tensors, write_bert
from olm.errors import ContextTooLong
from olm.native.engine import Embedding, Engine, EngineOptions
from olm.native.handles import Model
from olm.native.ranking import rank_inputs
from olm.native.wire import Rerank

pytestmark = pytest.mark.native

CLS, SEP, END, THE, SKY, CAT = 2, 3, 4, 5, 6, 10
RANK = gguf.PoolingType.RANK
DOCUMENTS = ("the sky is blue", "a cat sat", "", "blue blue the cat is the sky")
WANTED = Rerank("the cat", DOCUMENTS)
TEMPLATE = "query: {query} the {document}[SEP]"

Matrix = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


class Load(Protocol):
    def __call__(self, **fields: object) -> Model: ...


@pytest.fixture(scope="module")
def load(backend: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Load]:
    """Write and load a BERT with these fields."""
    folder = tmp_path_factory.mktemp("rankers")
    with ExitStack() as stack:

        def make(**fields: object) -> Model:
            path = folder / f"{len(list(folder.iterdir()))}.gguf"
            write_bert(path, **fields)  # type: ignore[arg-type]
            return stack.enter_context(Model.load(path))

        yield make


@pytest.fixture(scope="module")
def ranker(load: Load) -> Model:
    return load(pooling=RANK, head=True)


@pytest.fixture(scope="module")
def ended(load: Load) -> Model:
    return load(pooling=RANK, head=True, eos=True)


@pytest.fixture(scope="module")
def templated(load: Load) -> Model:
    return load(pooling=RANK, head=True, rerank_template=TEMPLATE)


async def outputs(model: Model, rows: Sequence[Sequence[int]], pooling: str = "") -> Matrix:
    options = EngineOptions(n_ctx=CONTEXT, n_threads=1, pooling=pooling)
    with Engine(model, options) as engine:
        engine.embed(rows, normalize=False)
        [event] = await engine.next_events()
    assert isinstance(event, Embedding), event
    return np.frombuffer(event.vectors, "<f4").reshape(event.n_vectors, event.n_embd)


def test_a_head_and_its_pooling_make_a_ranker(load: Load, ranker: Model) -> None:
    assert ranker.info.can_rank
    assert not load().info.can_rank
    assert not load(pooling=RANK).info.can_rank
    assert not load(head=True).info.can_rank


async def test_all_documents_in_one_request_score_as_each_alone(ranker: Model) -> None:
    rows = rank_inputs(WANTED, n_ctx=CONTEXT, model=ranker)

    together = await outputs(ranker, rows)
    alone = np.concatenate([await outputs(ranker, [row]) for row in rows])

    assert together.shape == (4, 2)
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert np.ptp(together[:, 0]) > 0.01


async def test_scores_are_what_the_head_makes_of_the_first_state(ranker: Model) -> None:
    rows = rank_inputs(WANTED, n_ctx=CONTEXT, model=ranker)

    states = await outputs(ranker, rows, pooling="cls")
    head = head_tensors()
    hidden = np.tanh(states @ head["cls.weight"].T + head["cls.bias"])
    expected = hidden @ head["cls.output.weight"].T + head["cls.output.bias"]

    np.testing.assert_allclose(await outputs(ranker, rows), expected, atol=1e-3)


def test_query_and_document_stand_between_special_tokens(ranker: Model, ended: Model) -> None:
    wanted = Rerank("the cat", ("the sky", "[SEP]"))

    plain, marks = rank_inputs(wanted, n_ctx=CONTEXT, model=ranker)
    closed, _ = rank_inputs(wanted, n_ctx=CONTEXT, model=ended)

    # As llama-server writes it: each special token only where the vocabulary adds it.
    assert list(plain) == [CLS, THE, CAT, SEP, THE, SKY]
    assert list(closed) == [CLS, THE, CAT, END, SEP, THE, SKY, END]
    assert SEP not in marks[4:], "a document cannot write special tokens"


def test_a_template_of_the_file_is_used_instead(templated: Model) -> None:
    row, *_ = rank_inputs(WANTED, n_ctx=CONTEXT, model=templated)

    text = TEMPLATE.replace("{query}", "the cat").replace("{document}", DOCUMENTS[0])
    assert list(row) == templated.tokenize(text, add_special=False)
    assert row[-1] == SEP


def test_a_query_that_names_the_document_is_no_place_for_it(templated: Model) -> None:
    wanted = Rerank("{document}", ("sky",))

    [row] = rank_inputs(wanted, n_ctx=CONTEXT, model=templated)

    assert row.count(SKY) == 1


@pytest.mark.parametrize("which", ["ended", "templated"])
@given(n_query=st.integers(0, 40), n_document=st.integers(0, 200))
def test_a_long_document_loses_its_end_and_nothing_else(
    request: pytest.FixtureRequest, which: str, n_query: int, n_document: int
) -> None:
    model: Model = request.getfixturevalue(which)
    wanted = Rerank("cat " * n_query, ("sky " * n_document,))

    [row] = rank_inputs(wanted, n_ctx=CONTEXT, model=model)
    [whole] = rank_inputs(wanted, n_ctx=1000, model=model)

    assert len(row) == min(len(whole), CONTEXT)
    assert row.count(CAT) == n_query
    assert row[-1] == whole[-1] != SKY
    # one document less long is the same input
    kept = Rerank(wanted.query, ("sky " * row.count(SKY),))
    assert list(rank_inputs(kept, n_ctx=1000, model=model)[0]) == list(row)


@pytest.mark.parametrize("which", ["ranker", "templated"])
def test_what_does_not_fit_is_refused(request: pytest.FixtureRequest, which: str) -> None:
    model: Model = request.getfixturevalue(which)

    with pytest.raises(ContextTooLong, match="a document with its query"):
        rank_inputs(Rerank("cat", ("sky " * 100,), False), n_ctx=CONTEXT, model=model)
    with pytest.raises(ContextTooLong, match="leaves no room"):
        rank_inputs(Rerank("cat " * 100, ("sky",)), n_ctx=CONTEXT, model=model)
