"""How many connections a download should have at once. Pure: time and counts are arguments.

More are tried while more bring more: the number doubles, the rate before and after is compared, and without a gain it
goes back and stays for a while. A server that says it has enough (429, 5xx) halves it at once. Each connection is
compared with its peers, too: one much slower than they are is better opened again.
"""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Mapping
from typing import Final, TypeVar

import attrs

__all__ = ["Width", "slow_ones"]

K = TypeVar("K", bound=Hashable)

_SETTLE_S: Final = 1.0
"""After a change new connections have to get up to speed; what comes meanwhile is not measured."""
_MEASURE_S: Final = 2.0
_GAIN_FRAC: Final = 0.1
"""Twice the connections must bring a tenth more, or they only take from each other and from other people."""
_HOLD_S: Final = 30.0
"""How long to stay after a try that brought nothing, or a refusal: links and servers change within minutes."""
_SLOW_FRAC: Final = 0.25
_SLOW_AFTER_S: Final = 5.0
_MIN_PEERS: Final = 3


@attrs.define
class Width:
    """The number of connections wanted, `target`, between 1 and `most`."""

    most: int = 16
    target: int = attrs.field(default=4)
    _before: tuple[int, float] | None = attrs.field(default=None, init=False)
    """The width before the last growth, and its rate."""
    _held_until_s: float = attrs.field(default=float("-inf"), init=False)
    _mark: tuple[float, int] | None = attrs.field(default=None, init=False)
    """When the measurement that goes on began (it may lie ahead), and the bytes at that moment."""

    def __attrs_post_init__(self) -> None:
        self.target = min(self.target, self.most)

    def observe(self, now_s: float, n_bytes: int, n_busy: int) -> None:
        """Note how many bytes have come in all, ever, and how many connections are busy; call it every second or so."""
        if n_busy < self.target:
            self._mark = None  # nobody wants more than there are, so nothing can be learned
            return
        if self._mark is None or now_s < self._mark[0]:
            begin_s = now_s + _SETTLE_S if self._mark is None else self._mark[0]
            self._mark = (begin_s, n_bytes)
        elif now_s - self._mark[0] >= _MEASURE_S:
            rate = (n_bytes - self._mark[1]) / (now_s - self._mark[0])
            self._mark = (now_s, n_bytes)
            self._decide(now_s, rate)

    def _decide(self, now_s: float, rate: float) -> None:
        if self._before is not None:
            width, before = self._before
            self._before = None
            if rate < before * (1 + _GAIN_FRAC):
                self._change(width)
                self._held_until_s = now_s + _HOLD_S
                return
        if now_s >= self._held_until_s and self.target < self.most:
            self._before = (self.target, rate)
            self._change(min(2 * self.target, self.most))

    def refused(self, now_s: float) -> None:
        """Note that a server has had enough. Several refusals within a moment count as one."""
        if now_s < self._held_until_s - _HOLD_S + _SETTLE_S:
            return
        self._before = None
        self._change(max(1, self.target // 2))
        self._held_until_s = now_s + _HOLD_S

    def _change(self, target: int) -> None:
        self.target = target
        self._mark = None


def slow_ones(rates: Mapping[K, tuple[float, float]]) -> set[K]:
    """Find the connections that are much slower than their peers; never the half of them or more.

    Args:
        rates: of each its age in seconds and its rate of late in bytes a second.
    """
    grown = {key: rate for key, (age_s, rate) in rates.items() if age_s >= _SLOW_AFTER_S}
    if len(grown) < _MIN_PEERS:
        return set()
    usual = statistics.median(grown.values())
    return {key for key, rate in grown.items() if rate < usual * _SLOW_FRAC}
