"""How many connections downloads have: the decisions, and the places they are about."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from olm.actors.connections import Connections
from olm.registry.fetch import Part
from olm.registry.width import Width, slow_ones

MB = 1 << 20


def run_link(width: Width, per_connection: float, link: float, seconds: int) -> list[int]:
    """Let a link of so many bytes a second be used; the widths, second by second."""
    n_bytes, seen = 0.0, []
    for second in range(seconds):
        width.observe(float(second), int(n_bytes), width.target)
        seen.append(width.target)
        n_bytes += min(per_connection * width.target, link)
    return seen


@given(
    per_connection=st.floats(0.1 * MB, 100 * MB),
    link=st.floats(0.1 * MB, 1000 * MB),
    most=st.integers(1, 32),
    first=st.integers(1, 32),
)
def test_the_width_uses_the_link_and_no_more_than_that_needs(
    per_connection: float, link: float, most: int, first: int
) -> None:
    width = Width(most, first)

    seen = run_link(width, per_connection, link, 25)

    assert all(1 <= target <= most for target in seen)
    reachable = min(per_connection * most, link)
    # Doubling stops where it brings less than a tenth, so that much may be left.
    assert min(per_connection * width.target, link) >= reachable / 1.1 / 1.01
    assert width.target <= max(2 * link / per_connection + 1, min(first, most))


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans(), st.integers(0, 20)), max_size=60))
def test_whatever_happens_the_width_stays_within_its_bounds(
    events: list[tuple[float, bool, int]],
) -> None:
    width, now_s, n_bytes = Width(16), 0.0, 0
    for after_s, is_refused, n_busy in events:
        now_s += after_s
        n_bytes += int(after_s * MB)
        if is_refused:
            width.refused(now_s)
        else:
            width.observe(now_s, n_bytes, n_busy)
        assert 1 <= width.target <= 16


def test_a_refusal_halves_the_width_once_and_it_comes_back_later() -> None:
    width = Width(16, 8)

    width.refused(100.0)
    width.refused(100.2)  # the next of several that were under way

    assert width.target == 4
    n_bytes = 0
    for second in range(101, 129):
        width.observe(float(second), n_bytes := n_bytes + width.target * MB, width.target)
    assert width.target == 4
    for second in range(129, 145):
        width.observe(float(second), n_bytes := n_bytes + width.target * MB, width.target)
    assert width.target > 4


def test_places_that_nobody_needs_teach_nothing() -> None:
    width = Width(16, 4)

    for second in range(30):
        width.observe(float(second), second * MB, 2)

    assert width.target == 4


@given(st.dictionaries(st.integers(), st.tuples(st.floats(0, 60), st.floats(0, 1e9)), max_size=16))
def test_never_half_of_the_connections_are_slow(rates: dict[int, tuple[float, float]]) -> None:
    slow = slow_ones(rates)

    assert 2 * len(slow) <= len(rates)
    assert all(rates[key][0] >= 5 for key in slow)


def test_the_one_that_crawls_is_slow_and_a_new_one_is_not_yet() -> None:
    assert slow_ones({1: (9, 50.0), 2: (9, 60.0), 3: (9, 55.0), 4: (9, 5.0)}) == {4}
    assert slow_ones({1: (9, 50.0), 2: (9, 60.0), 3: (9, 55.0), 4: (2, 5.0)}) == set()
    assert slow_ones({1: (9, 50.0), 2: (9, 5.0)}) == set()


async def test_places_go_to_who_has_the_fewest(autojump_clock: trio.testing.MockClock) -> None:
    connections, served = Connections(Width(2, 2)), list[str]()

    async def use(owner: str) -> None:
        async with connections.transfer(owner, Part(0, 1)):
            served.append(owner)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for owner in ("a", "a", "a", "a", "b"):
            nursery.start_soon(use, owner)
            await trio.testing.wait_all_tasks_blocked()

    # Two places are free at once, and which of the two admitted runs first is chance.
    assert [served[:2], sorted(served[2:4]), served[4:]] == [["a", "a"], ["a", "b"], ["a"]]


async def test_a_place_that_is_not_waited_for_any_more_goes_to_the_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    connections, reached = Connections(Width(1, 1)), list[str]()

    async def use(owner: str, wait_s: float) -> None:
        with trio.move_on_after(wait_s):
            async with connections.transfer(owner, Part(0, 1)):
                reached.append(owner)
                await trio.sleep(3)

    async with trio.open_nursery() as nursery:
        for owner, wait_s in (("first", 9.0), ("impatient", 1.0), ("patient", 9.0)):
            nursery.start_soon(use, owner, wait_s)
            await trio.testing.wait_all_tasks_blocked()

    assert reached == ["first", "patient"]


@pytest.mark.parametrize("is_exempt", [False, True])
async def test_a_connection_much_slower_than_its_peers_is_ended_keeping_its_bytes(
    autojump_clock: trio.testing.MockClock, is_exempt: bool
) -> None:
    connections, ended = Connections(Width(8, 8)), list[tuple[int, int]]()

    async def bring(rate: int) -> None:
        part = Part(0, 100 * MB)
        async with connections.transfer("one", part, is_exempt=is_exempt) as transfer:
            with transfer.scope:
                for _ in range(20):
                    await trio.sleep(1)
                    part.at += rate
        if transfer.scope.cancelled_caught:
            ended.append((rate, part.at))

    async with trio.open_nursery() as nursery:
        for rate in (1000, 1100, 900, 10):
            nursery.start_soon(bring, rate)
        for _ in range(8):
            await trio.sleep(1.01)
            connections.restart_slow("one", trio.current_time())

    assert ended == ([] if is_exempt else [(10, 50)])
