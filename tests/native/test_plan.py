"""Who computes how much in the next step: a pure decision."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olm.native.lib import lib, take_text

pytestmark = pytest.mark.native

Item = tuple[int, bool]  # n_left, stream
items = st.lists(
    st.one_of(st.just((1, True)), st.tuples(st.integers(1, 5000), st.just(False))), max_size=20
)


def plan(items: list[Item], n_batch: int = 512, n_chunk: int = 128) -> list[int]:
    request = {
        "items": [{"n_left": n_left, "stream": stream} for n_left, stream in items],
        "n_batch": n_batch,
        "n_chunk": n_chunk,
    }
    text = take_text(lambda out: lib.olm_test_plan(msgspec.json.encode(request), out))
    return msgspec.json.decode(text, type=list[int])


@given(items, st.integers(20, 600), st.integers(1, 300))
def test_a_step_keeps_its_bounds(items: list[Item], n_batch: int, n_chunk: int) -> None:
    take = plan(items, n_batch, n_chunk)

    assert len(take) == len(items)
    assert sum(take) <= n_batch
    assert all(0 <= n <= left for n, (left, _) in zip(take, items, strict=True))
    prompts = sum(n for n, (_, stream) in zip(take, items, strict=True) if not stream)
    if any(stream for _, stream in items):
        assert prompts <= n_chunk


@given(items)
def test_every_stream_gets_its_token(items: list[Item]) -> None:
    take = plan(items)

    assert all(n == 1 for n, (_, stream) in zip(take, items, strict=True) if stream)


@given(items.filter(lambda all_: any(not stream for _, stream in all_)))
def test_every_prompt_moves_when_there_is_room(items: list[Item]) -> None:
    take = plan(items)

    assert all(n >= 1 for n, (_, stream) in zip(take, items, strict=True) if not stream)


@given(items)
def test_no_room_is_left_while_a_prompt_waits(items: list[Item]) -> None:
    take = plan(items)

    n_streams = sum(stream for _, stream in items)
    budget = min(512 - n_streams, 128) if n_streams else 512
    wanted = sum(left for left, stream in items if not stream)
    done = sum(n for n, (_, stream) in zip(take, items, strict=True) if not stream)
    assert done == min(budget, wanted)


def test_a_short_prompt_does_not_wait_for_a_long_one() -> None:
    assert plan([(4000, False), (30, False), (1, True)]) == [98, 30, 1]


def test_one_prompt_alone_fills_the_batch() -> None:
    assert plan([(4000, False)]) == [512]
