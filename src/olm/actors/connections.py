"""The connections of all downloads: how many there may be at once, who gets the next one, and which are too slow.

`olm.registry.width` decides; here are the waiting and the cancelling. Nothing is sent from here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

import attrs
import trio

from olm.registry.fetch import Part
from olm.registry.width import Width, slow_ones

__all__ = ["Connections", "Transfer"]


@attrs.define(eq=False)
class Transfer:
    """One connection at work on a part.

    Attributes:
        owner: the download it works for.
        scope: cancelled when another connection should go on with the part.
        is_exempt: it may be as slow as it likes.
    """

    owner: Hashable
    part: Part
    is_exempt: bool = False
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _began_s: float = attrs.field(factory=trio.current_time, init=False)
    _began_at: int = attrs.field(
        default=attrs.Factory(lambda self: self.part.at, takes_self=True), init=False
    )
    _seen: tuple[float, int] | None = attrs.field(default=None, init=False)
    _rate: float = attrs.field(default=0.0, init=False)

    @property
    def n_bytes(self) -> int:
        """How many bytes it has brought."""
        return self.part.at - self._began_at

    def look(self, now_s: float) -> tuple[float, float]:
        """Its age and its rate of late; each look counts as much as all before."""
        seen_s, seen_bytes = self._seen or (self._began_s, 0)
        if now_s > seen_s:
            rate = (self.n_bytes - seen_bytes) / (now_s - seen_s)
            self._rate = rate if self._seen is None else (self._rate + rate) / 2
            self._seen = (now_s, self.n_bytes)
        return now_s - self._began_s, self._rate


@attrs.define(eq=False)
class _Waiting:
    owner: Hashable
    admitted: trio.Event = attrs.field(factory=trio.Event)


class Connections:
    """Gives places to downloads, to whoever has the fewest first. One for all of them."""

    def __init__(self, width: Width | None = None) -> None:
        self.width = width or Width()
        self._busy: Counter[Hashable] = Counter()
        self._waiting: list[_Waiting] = []
        self._transfers: set[Transfer] = set()
        self._n_bytes = 0

    @asynccontextmanager
    async def transfer(
        self, owner: Hashable, part: Part, *, is_exempt: bool = False
    ) -> AsyncIterator[Transfer]:
        """Wait for a place and hold it while the block runs; see `Transfer`."""
        await self._acquire(owner)
        transfer = Transfer(owner, part, is_exempt)
        self._transfers.add(transfer)
        try:
            yield transfer
        finally:
            self._transfers.remove(transfer)
            self._n_bytes += transfer.n_bytes
            self._release(owner)

    def tick(self, now_s: float) -> None:
        """Look how fast bytes come in; every second or so, by whoever downloads."""
        n_bytes = self._n_bytes + sum(transfer.n_bytes for transfer in self._transfers)
        self.width.observe(now_s, n_bytes, self._busy.total())
        self._admit()

    def refused(self, now_s: float) -> None:
        """Note that a server has had enough."""
        self.width.refused(now_s)

    def restart_slow(self, owner: Hashable, now_s: float) -> None:
        """End those connections of a download that are much slower than its others."""
        rates = {
            transfer: transfer.look(now_s)
            for transfer in self._transfers
            if transfer.owner is owner
        }
        for transfer in slow_ones(rates):
            if not transfer.is_exempt:
                transfer.scope.cancel("much slower than the other connections of this download")

    async def _acquire(self, owner: Hashable) -> None:
        waiting = _Waiting(owner)
        self._waiting.append(waiting)
        self._admit()
        try:
            await waiting.admitted.wait()
        except trio.Cancelled:
            if waiting.admitted.is_set():
                self._release(owner)
            else:
                self._waiting.remove(waiting)
            raise

    def _release(self, owner: Hashable) -> None:
        self._busy[owner] -= 1
        self._busy += Counter()  # forgets those that have none
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._busy.total() < self.width.target:
            # The first of the least served: min keeps the order of waiting.
            chosen = min(self._waiting, key=lambda waiting: self._busy[waiting.owner])
            self._waiting.remove(chosen)
            self._busy[chosen.owner] += 1
            chosen.admitted.set()
