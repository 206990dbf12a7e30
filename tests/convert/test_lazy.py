"""Lazy tensors give what numpy gives, whichever rows are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from olm.checkpoint.types import RowReader
from olm.convert import lazy
from olm.convert.hparams import Hparams
from olm.convert.parts import interleave_rope, llama3_rope_factors
from olm.errors import CheckpointError

pytestmark = pytest.mark.native

Array = NDArray[Any]


@attrs.frozen
class Held:
    """A tensor in memory that notes how many rows were read at most at a time."""

    values: Array
    dtype: str = "F32"
    reads: list[int] = attrs.field(factory=list, eq=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def read(self, start: int, stop: int) -> Array:
        rows = self.values.reshape(-1, self.shape[-1] if self.shape else 1)
        assert 0 <= start <= stop <= len(rows), "rows beyond the tensor"
        self.reads.append(stop - start)
        return rows[start:stop]


def numbered(*shape: int) -> Held:
    return Held(np.arange(np.prod(shape), dtype=np.float32).reshape(shape))


CASES: dict[str, tuple[Callable[[], RowReader], Callable[[], Array]]] = {
    "take a slice": (
        lambda: lazy.take(numbered(7, 3, 2), slice(2, 6)),
        lambda: numbered(7, 3, 2).values[2:6],
    ),
    "take every other": (
        lambda: lazy.take(numbered(8, 3), slice(1, None, 2)),
        lambda: numbered(8, 3).values[1::2],
    ),
    "take far apart": (
        lambda: lazy.take(numbered(1000, 3), [999, 0, 500]),
        lambda: numbered(1000, 3).values[[999, 0, 500]],
    ),
    "take of a vector": (
        lambda: lazy.take(numbered(9), [8, 1, 1]),
        lambda: numbered(9).values[[8, 1, 1]],
    ),
    "columns": (
        lambda: lazy.columns(numbered(4, 2, 9), slice(3, 7)),
        lambda: numbered(4, 2, 9).values[..., 3:7],
    ),
    "stack": (
        lambda: lazy.stack([numbered(3, 4), numbered(3, 4), numbered(3, 4)]),
        lambda: np.stack([numbered(3, 4).values] * 3),
    ),
    "stack vectors": (
        lambda: lazy.stack([numbered(4), numbered(4)]),
        lambda: np.stack([numbered(4).values] * 2),
    ),
    "concat rows": (
        lambda: lazy.concat([numbered(3, 2, 4), numbered(1, 2, 4)]),
        lambda: np.concatenate([numbered(3, 2, 4).values, numbered(1, 2, 4).values]),
    ),
    "concat columns": (
        lambda: lazy.concat([numbered(3, 4), numbered(3, 2)], axis=-1),
        lambda: np.concatenate([numbered(3, 4).values, numbered(3, 2).values], axis=-1),
    ),
    "concat vectors": (
        lambda: lazy.concat([numbered(3), numbered(2)]),
        lambda: np.concatenate([numbered(3).values, numbered(2).values]),
    ),
    "reshape": (
        lambda: lazy.reshape(numbered(6, 10), (4, -1, 5)),
        lambda: numbered(6, 10).values.reshape(4, 3, 5),
    ),
    "reshape longer": (
        lambda: lazy.reshape(numbered(12, 5), (4, 15)),
        lambda: numbered(12, 5).values.reshape(4, 15),
    ),
    "transpose": (
        lambda: lazy.transpose(numbered(300, 7)),
        lambda: numbered(300, 7).values.T,
    ),
    "transpose matrices": (
        lambda: lazy.transpose(numbered(3, 5, 4)),
        lambda: numbered(3, 5, 4).values.swapaxes(1, 2),
    ),
    "transpose rows": (
        lambda: lazy.transpose(numbered(2, 3, 4, 5), (1, 0, 2, 3)),
        lambda: numbered(2, 3, 4, 5).values.transpose(1, 0, 2, 3),
    ),
    "transpose all": (
        lambda: lazy.transpose(numbered(2, 3, 4, 5), (3, 1, 0, 2)),
        lambda: numbered(2, 3, 4, 5).values.transpose(3, 1, 0, 2),
    ),
    "map": (
        lambda: lazy.map_values(numbered(4, 3), lambda x: x + np.float32(1)),
        lambda: numbered(4, 3).values + 1,
    ),
    "one of another": (
        lambda: lazy.take(lazy.transpose(lazy.reshape(numbered(8, 6), (4, 2, 6))), [3, 0]),
        lambda: numbered(8, 6).values.reshape(4, 2, 6).swapaxes(1, 2)[[3, 0]],
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@given(data=st.data())
def test_rows_are_numpys(
    case: tuple[Callable[[], RowReader], Callable[[], Array]], data: st.DataObject
) -> None:
    reader, wanted = case[0](), case[1]()
    rows = wanted.reshape(-1, wanted.shape[-1])
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))

    assert reader.shape == wanted.shape
    np.testing.assert_array_equal(reader.read(start, stop), rows[start:stop])


@pytest.mark.parametrize("axis", [0, -1])
def test_split_is_the_opposite_of_concat(axis: int) -> None:
    whole = numbered(12, 12)

    parts = lazy.split(whole, [5, 0, 7], axis)

    np.testing.assert_array_equal(lazy.read_all(lazy.concat(parts, axis)), whole.values)


def test_few_rows_of_many_are_read_alone() -> None:
    source = numbered(100_000, 2)

    lazy.take(source, [0, 99_999]).read(0, 2)

    assert source.reads == [1, 1]


def test_heads_are_interleaved_for_rope() -> None:
    """Row i of a head's first half is followed by row i of its second half (llama.cpp's `permute`)."""
    order = lazy.read_all(interleave_rope(numbered(12), 2))

    assert order.tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


def test_low_frequencies_are_stretched_as_in_llama_3() -> None:
    settings: dict[str, object] = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0}
    settings |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    settings["original_max_position_embeddings"] = 8192

    factors = llama3_rope_factors(Hparams(settings), 64)

    # Of Llama 3.2 1B, as its published GGUFs have them.
    assert factors is not None
    values = lazy.read_all(factors).tolist()
    assert values[:15] == [1.0] * 15
    assert values[15:19] == pytest.approx([1.2876, 3.3140, 10.4296, 32.0], rel=0.3)
    assert values[19:] == [32.0] * 13


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: lazy.take(numbered(3, 2), [3]), "asked of a tensor"),
        (lambda: lazy.stack([numbered(3, 2), numbered(2, 3)]), "different shapes"),
        (lambda: lazy.stack([]), "no tensors"),
        (lambda: lazy.concat([numbered(3, 2), numbered(3, 3)]), "cannot be joined"),
        (lambda: lazy.split(numbered(3, 2), [1, 1]), "cannot be cut"),
        (lambda: lazy.reshape(numbered(3, 2), (4, 2)), "cannot become"),
        (lambda: lazy.transpose(numbered(3, 2), (0, 0)), "no order"),
        (lambda: interleave_rope(numbered(9, 2), 2), "do not divide into 2 heads"),
        (lambda: lazy.columns(Held(np.zeros((2, 34), np.uint8), "Q8_0"), [0]), "packed as Q8_0"),
    ],
)
def test_what_does_not_fit_is_refused(wrong: Callable[[], object], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        wrong()


def test_packed_rows_can_be_taken_and_stacked() -> None:
    """Their shape counts elements, their rows are bytes."""

    @attrs.frozen
    class Packed:
        shape: Sequence[int] = (4, 32)
        dtype: str = "Q8_0"

        def read(self, start: int, stop: int) -> Array:
            return np.arange(4 * 34, dtype=np.uint8).reshape(4, 34)[start:stop]

    reader = lazy.take(lazy.stack([Packed(), Packed()]), [1])  # type: ignore[list-item]  # a sequence serves

    assert reader.shape == (1, 4, 32)
    np.testing.assert_array_equal(reader.read(1, 3), Packed().read(1, 3))
