"""When to restart and how long to wait before: pure decisions of supervisors, fed with times and a random source."""

from __future__ import annotations

import random
from collections import deque
from typing import Literal

import attrs

from olm.actors.runtime._exits import Crashed, Exit, Killed

__all__ = ["Backoff", "Intensity", "Restart", "RestartPolicy", "Strategy", "wants_restart"]

Restart = Literal["permanent", "transient", "temporary"]
Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]


@attrs.frozen
class RestartPolicy:
    """How many crashes a supervisor bears, and how it spaces the restarts.

    More than `max_restarts` crashes within `period_s` end the supervisor: it escalates. Limits multiply with depth
    (3 under 3 is up to 15 lives), so keep two levels.

    The first restart comes at once. Each further one waits twice as long as the one before, from `backoff_s` up to
    `backoff_max_s`, more or less by `jitter_frac`; after `quiet_s` without a crash (default: `period_s`) it starts over.
    """

    max_restarts: int = 3
    period_s: float = 60.0
    backoff_s: float = 0.1
    backoff_max_s: float = 30.0
    jitter_frac: float = 0.2
    quiet_s: float | None = None


class Intensity:
    """The crashes that a supervisor has seen within its period."""

    __slots__ = ("_policy", "_times_s")

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._times_s: deque[float] = deque()

    def record(self, now_s: float) -> bool:
        """Note a crash; tell whether it is still within the limit."""
        times = self._times_s
        times.append(now_s)
        while times[0] <= now_s - self._policy.period_s:
            times.popleft()
        return len(times) <= self._policy.max_restarts


class Backoff:
    """The waits before the restarts of one child, or of one group that restarts together."""

    __slots__ = ("_last_s", "_policy", "_rng", "_streak")

    def __init__(self, policy: RestartPolicy, rng: random.Random) -> None:
        self._policy = policy
        self._rng = rng
        self._streak = 0
        self._last_s = 0.0

    def next_s(self, now_s: float) -> float:
        """Return how many seconds to wait after a crash at `now_s`."""
        policy = self._policy
        quiet_s = policy.period_s if policy.quiet_s is None else policy.quiet_s
        if now_s - self._last_s >= quiet_s:
            self._streak = 0
        self._last_s = now_s
        self._streak += 1
        if self._streak == 1:
            return 0.0
        # The exponent is held so that the power cannot overflow under a policy without a limit.
        delay_s = min(policy.backoff_max_s, policy.backoff_s * 2.0 ** min(self._streak - 2, 64))
        return delay_s * (1.0 + policy.jitter_frac * self._rng.uniform(-1.0, 1.0))


def wants_restart(restart: Restart, exit_: Exit) -> bool:
    """Tell whether a child that ended by itself is to be started again."""
    if restart == "permanent":
        return True
    return restart == "transient" and isinstance(exit_, Crashed | Killed)
