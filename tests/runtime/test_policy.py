"""The pure decisions of supervisors: intensity, backoff, who wants a restart."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olm.actors.runtime import Crashed, Killed, Normal, RestartPolicy, Shutdown
from olm.actors.runtime._policy import Backoff, Intensity, wants_restart

times = st.lists(st.floats(0, 1000), max_size=30).map(sorted)


@given(times, st.integers(0, 5), st.floats(0.1, 100))
def test_intensity_counts_the_crashes_within_the_period(
    times_s: list[float], limit: int, period_s: float
) -> None:
    intensity = Intensity(RestartPolicy(max_restarts=limit, period_s=period_s))
    for index, now_s in enumerate(times_s):
        recent = [s for s in times_s[: index + 1] if s > now_s - period_s]
        assert intensity.record(now_s) == (len(recent) <= limit)


@given(st.integers(0, 2**32), st.lists(st.floats(0, 5), max_size=40))
def test_backoff_grows_to_its_limit_and_never_beyond_its_jitter(
    seed: int, gaps_s: list[float]
) -> None:
    policy = RestartPolicy(backoff_s=0.5, backoff_max_s=8, jitter_frac=0.25, quiet_s=10)
    backoff = Backoff(policy, random.Random(seed))
    now_s = 100.0
    for index, gap_s in enumerate([0.0, *gaps_s]):
        now_s += gap_s
        wait_s = backoff.next_s(now_s)
        ideal_s = 0.0 if index == 0 else min(8, 0.5 * 2.0 ** min(index - 1, 30))
        assert ideal_s * 0.75 <= wait_s <= ideal_s * 1.25


def test_backoff_starts_over_after_a_quiet_time() -> None:
    backoff = Backoff(RestartPolicy(jitter_frac=0, quiet_s=10), random.Random(0))
    assert [backoff.next_s(now_s) for now_s in (0, 1, 2, 12, 13)] == [0, 0.1, 0.2, 0, 0.1]


def test_a_policy_without_limits_does_not_overflow() -> None:
    policy = RestartPolicy(max_restarts=10**9, backoff_max_s=5, jitter_frac=0)
    backoff = Backoff(policy, random.Random(0))
    assert [backoff.next_s(1.0) for _ in range(5000)][-1] == 5


CRASHED = Crashed(ValueError())


@pytest.mark.parametrize(
    ("restart", "wanted"),
    [("permanent", {"n", "s", "c", "k"}), ("transient", {"c", "k"}), ("temporary", set())],
)
def test_who_wants_a_restart(restart: str, wanted: set[str]) -> None:
    exits = {"n": Normal(), "s": Shutdown("x"), "c": CRASHED, "k": Killed("SIGSEGV")}
    assert {key for key, exit_ in exits.items() if wants_restart(restart, exit_)} == wanted  # type: ignore[arg-type]
