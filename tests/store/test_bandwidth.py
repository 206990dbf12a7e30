"""Limits on bytes a second: alone, shared, one within another."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from olm.actors.bandwidth import Bandwidth, due_s


async def taken_s(*spenders: tuple[Bandwidth, int], n_pieces: int = 10) -> float:
    """How long it takes all of them to spend their pieces."""

    async def spend(limit: Bandwidth, n_bytes: int) -> None:
        for _ in range(n_pieces):
            await limit.spend(n_bytes)

    began_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for limit, n_bytes in spenders:
            nursery.start_soon(spend, limit, n_bytes)
    return trio.current_time() - began_s


async def test_bytes_pass_at_the_rate(autojump_clock: MockClock) -> None:
    assert await taken_s((Bandwidth(1000), 1000)) == pytest.approx(10, abs=0.11)


async def test_without_a_limit_nothing_waits(autojump_clock: MockClock) -> None:
    assert await taken_s((Bandwidth(), 1 << 40), (Bandwidth(0, Bandwidth()), 1 << 40)) == 0


async def test_two_that_share_a_limit_share_its_rate(autojump_clock: MockClock) -> None:
    shared = Bandwidth(1000)

    assert await taken_s((shared, 500), (shared, 500)) == pytest.approx(10, abs=0.11)


@pytest.mark.parametrize(("own", "all_"), [(500, 2000), (2000, 500), (500, 0), (0, 500)])
async def test_the_stricter_of_two_limits_holds(
    autojump_clock: MockClock, own: int, all_: int
) -> None:
    limit = Bandwidth(own, Bandwidth(all_))

    assert await taken_s((limit, 500)) == pytest.approx(10, abs=0.11)


async def test_what_is_within_a_limit_counts_for_all(autojump_clock: MockClock) -> None:
    everything = Bandwidth(1000)
    fast, slow = Bandwidth(0, everything), Bandwidth(100, everything)

    assert await taken_s((fast, 900), (slow, 100)) == pytest.approx(10, abs=0.11)


async def test_an_idle_time_saves_up_little(autojump_clock: MockClock) -> None:
    limit = Bandwidth(1000)
    await limit.spend(1000)
    await trio.sleep(3600)

    assert await taken_s((limit, 1000)) == pytest.approx(10, abs=0.11)


async def test_a_new_rate_holds_from_then_on(autojump_clock: MockClock) -> None:
    limit = Bandwidth(1000)
    await limit.spend(1000)
    limit.rate = 100

    assert await taken_s((limit, 100)) == pytest.approx(10, abs=0.11)


async def test_who_is_cancelled_waits_no_longer(autojump_clock: MockClock) -> None:
    with trio.move_on_after(1) as scope:
        await Bandwidth(1).spend(1_000_000)

    assert scope.cancelled_caught


def test_bytes_are_due_after_those_before_them() -> None:
    assert due_s(7.0, 100, 50.0, now_s=5.0) == 9.0
    assert due_s(1.0, 100, 50.0, now_s=5.0) == pytest.approx(6.9)


def test_pieces_are_small_where_the_rate_is() -> None:
    assert Bandwidth().piece_bytes(1 << 20) == 1 << 20
    assert Bandwidth(1 << 20).piece_bytes(1 << 20) == (1 << 20) // 10
    assert Bandwidth(0, Bandwidth(100_000)).piece_bytes(1 << 20) == 10_000
    assert Bandwidth(10).piece_bytes(1 << 20) == 1024
