"""How fast bytes may pass: limits in bytes a second, shared by whoever moves bytes and combined one within another.

`due_s` decides; `Bandwidth` waits. Who moves bytes, and what rate is wanted, is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import trio

__all__ = ["Bandwidth", "due_s"]

_BURST_S: Final = 0.1
"""What may be saved up while nothing moves, in seconds of the rate: enough to make up for a late wake-up, no more."""
_PIECE_S: Final = 0.1
"""How long one piece should take, so that a slow transfer moves evenly and is not taken for one that stands still."""
_MIN_PIECE_BYTES: Final = 1024


def due_s(free_s: float, n_bytes: int, rate: float, now_s: float) -> float:
    """Say when `n_bytes` more have passed, given that those before had passed at `free_s`."""
    return max(free_s, now_s - _BURST_S) + n_bytes / rate


class Bandwidth:
    """A limit shared by all tasks that spend from it; first come, first served.

    Attributes:
        rate: bytes a second; 0 for no limit. May be changed at any time, and holds for what is spent from then on.
    """

    __slots__ = ("_free_s", "_within", "rate")

    def __init__(self, rate: float = 0, within: Bandwidth | None = None) -> None:
        """Make a limit; what is spent here is spent from `within` too, so the stricter of the two holds."""
        self.rate = rate
        self._within = within
        self._free_s = float("-inf")

    async def spend(self, n_bytes: int) -> None:
        """Return when `n_bytes` more may have passed; at once, without a checkpoint, where nothing limits.

        Call it for bytes about to be sent, or just received. Cancelled, they count as passed all the same.
        """
        now_s = trio.current_time()
        free_s = now_s
        for limit in self._limits():
            limit._free_s = due_s(limit._free_s, n_bytes, limit.rate, now_s)
            free_s = max(free_s, limit._free_s)
        if free_s > now_s:
            await trio.sleep_until(free_s)

    def piece_bytes(self, at_most: int) -> int:
        """How many bytes to move at a time: no more than a tenth of a second's, so that the flow is even."""
        rates = [limit.rate for limit in self._limits()]
        return (
            max(min(at_most, *(int(rate * _PIECE_S) for rate in rates)), _MIN_PIECE_BYTES)
            if rates
            else at_most
        )

    def _limits(self) -> Iterator[Bandwidth]:
        limit: Bandwidth | None = self
        while limit is not None:
            if limit.rate > 0:
                yield limit
            limit = limit._within
