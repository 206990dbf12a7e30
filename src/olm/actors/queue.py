"""Who waits for what, in fair order: round robin over clients, first come first served within each. Values only.

`FairQueue` is the line of one model, `WaitingRoom` all lines together with their bounds. Nothing here knows slots,
time or errors: granting and refusing is `olm.actors.book`'s business. Joining, leaving from anywhere and taking the
next are O(1) in the number of those who wait; finding a place is O(clients).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterator
from typing import Generic, TypeVar

import attrs

__all__ = ["FairQueue", "QueueBounds", "QueueRow", "WaitingRoom"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@attrs.frozen
class QueueBounds:
    """How many may wait: in all, for one model, from one client. 0 for a model or a client: no bound of its own."""

    in_all: int = 512
    per_model: int = 0
    per_client: int = 0


@attrs.frozen
class QueueRow:
    """Who runs and who waits for one model.

    Attributes:
        model: shortest form with its tag.
        state: `ready`, `loading`, `leaving` or `stopping` (it must go first), `waiting` (for room to be loaded).
        n_slots: turns that may run at once, 0 while the model is not loaded.
        n_running: requests that were given a slot; n_paused: those of them that lend it out, because nobody reads.
        n_clients: different clients among the waiting. longest_wait_s, mean_turn_s: seconds.
    """

    model: str
    state: str
    n_slots: int
    n_running: int
    n_paused: int
    n_waiting: int
    n_clients: int
    longest_wait_s: float
    mean_turn_s: float


class FairQueue(Generic[T]):
    """A line in which every client that waits is served once before any is served twice.

    A client that comes, or comes back, stands behind all clients that wait. Plain dicts would do but for their holes:
    finding the first key of one is O(removed), so the ring and its lines are linked.
    """

    def __init__(self) -> None:
        self._ring: OrderedDict[str, OrderedDict[int, T]] = OrderedDict()
        self._clients: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[tuple[int, T]]:
        """All who wait, in the order in which they would be served if nobody came or left."""
        ring = [iter(line.items()) for line in self._ring.values()]
        while ring:
            rest = []
            for line in ring:
                for item in line:
                    yield item
                    rest.append(line)
                    break
            ring = rest

    @property
    def clients(self) -> Collection[str]:
        """The clients that wait, in the order of their turns."""
        return self._ring.keys()

    def n_of(self, client: str) -> int:
        """Count the requests of one client."""
        return len(self._ring.get(client, ()))

    def push(self, ticket_id: int, client: str, item: T) -> None:
        """Join behind the client's own requests; a client that had none stands behind the other clients."""
        self._ring.setdefault(client, OrderedDict())[ticket_id] = item
        self._clients[ticket_id] = client

    def remove(self, ticket_id: int) -> T:
        """Leave, from wherever in the line. Raises KeyError."""
        client = self._clients.pop(ticket_id)
        line = self._ring[client]
        item = line.pop(ticket_id)
        if not line:
            del self._ring[client]
        return item

    def head(self, client: str | None = None) -> tuple[int, T]:
        """Look at who is next, of all or of one client. Raises KeyError when there is nobody."""
        if client is None:
            client = next(iter(self._ring), "")
        return next(iter(self._ring[client].items()))

    def client_of(self, ticket_id: int) -> str:
        """Say whose ticket that is. Raises KeyError."""
        return self._clients[ticket_id]

    def newest(self, client: str) -> int:
        """The ticket that a client took last. Raises KeyError when it has none."""
        return next(reversed(self._ring[client]))

    def take(self) -> tuple[int, T]:
        """Take who is next; the client's further requests go behind the other clients'. Raises KeyError."""
        ticket_id, item = self.head()
        client = self._clients[ticket_id]
        self.remove(ticket_id)
        if client in self._ring:
            self._ring.move_to_end(client)
        return ticket_id, item

    def position(self, client: str) -> int:
        """Say where the client's next request would stand, from 1: that many turns until it is served."""
        n_own, position, is_before = self.n_of(client), 1, True
        for other, line in self._ring.items():
            if other == client:
                position, is_before = position + n_own, False
            else:
                position += min(len(line), n_own + is_before)
        return position


class WaitingRoom(Generic[K, T]):
    """All lines, by what they wait for (`K`, a model), and the bounds that hold for them together."""

    def __init__(self, bounds: QueueBounds) -> None:
        self._bounds = bounds
        self._lines: dict[K, FairQueue[T]] = {}
        self._keys: dict[int, K] = {}
        self._tickets: dict[str, OrderedDict[int, None]] = {}
        self._load_turns: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, ticket_id: object) -> bool:
        return ticket_id in self._keys

    @property
    def lines(self) -> dict[K, FairQueue[T]]:
        """The lines with anybody in them."""
        return self._lines

    def position(self, key: K, client: str) -> int:
        """Say where the client's next request for this would stand, from 1."""
        line = self._lines.get(key)
        return line.position(client) if line is not None else 1

    def is_open(self, key: K, client: str) -> bool:
        """Say whether one more may wait, by all bounds."""
        bounds = self._bounds
        line = self._lines.get(key, ())
        return (
            len(self._keys) < bounds.in_all
            and (not bounds.per_model or len(line) < bounds.per_model)
            and not self._is_client_full(client)
        )

    def newest_of_greediest(self, key: K, client: str) -> int | None:
        """Find the ticket that gives way to this client's request where the room is full; None: nobody's does.

        The client with the most tickets loses its newest, if it still has as many as the newcomer then. So nobody can
        fill the room against the others, and one client alone may use all of it.
        """
        if self._is_client_full(client):
            return None
        bounds, line = self._bounds, self._lines.get(key)
        if line is not None and bounds.per_model and len(line) >= bounds.per_model:
            greediest = max(line.clients, key=line.n_of)
            gives_way = line.n_of(greediest) > line.n_of(client) + 1
            return line.newest(greediest) if gives_way else None
        greediest = max(self._tickets, key=self._n_of, default=client)
        gives_way = self._n_of(greediest) > self._n_of(client) + 1
        return next(reversed(self._tickets[greediest])) if gives_way else None

    def push(self, ticket_id: int, key: K, client: str, item: T) -> None:
        """Let one more wait, whatever the bounds say."""
        self._lines.setdefault(key, FairQueue()).push(ticket_id, client, item)
        self._keys[ticket_id] = key
        self._tickets.setdefault(client, OrderedDict())[ticket_id] = None

    def remove(self, ticket_id: int) -> T:
        """Let a ticket leave. Raises KeyError."""
        line = self._lines[self._keys[ticket_id]]
        self._forget(ticket_id, line.client_of(ticket_id))
        item = line.remove(ticket_id)
        self._close(line, self._keys.pop(ticket_id))
        return item

    def take(self, key: K) -> tuple[int, T]:
        """Take the head of a line; its client's further requests go behind the others'. Raises KeyError."""
        line = self._lines[key]
        ticket_id, _ = line.head()
        self._forget(ticket_id, line.client_of(ticket_id))
        del self._keys[ticket_id]
        taken = line.take()
        self._close(line, key)
        return taken

    def next_load(self, keys: Collection[K]) -> tuple[K, str]:
        """Choose which of these to load next, and for which client: round robin over clients here too."""
        if len(keys) == 1:
            [key] = keys
            return key, next(iter(self._lines[key].clients))
        _, _, key, client = min(
            (self._load_turns.get(client, 0), self._lines[key].head(client)[0], key, client)
            for key in keys
            for client in self._lines[key].clients
        )
        return key, client

    def note_load(self, client: str, turn: int) -> None:
        """Note that a load was begun for a client; `turn` grows from call to call."""
        self._load_turns[client] = turn

    def _close(self, line: FairQueue[T], key: K) -> None:
        if not line:
            del self._lines[key]

    def _forget(self, ticket_id: int, client: str) -> None:
        tickets = self._tickets[client]
        del tickets[ticket_id]
        if not tickets:
            del self._tickets[client]
            self._load_turns.pop(client, None)

    def _n_of(self, client: str) -> int:
        return len(self._tickets.get(client, ()))

    def _is_client_full(self, client: str) -> bool:
        return bool(self._bounds.per_client) and self._n_of(client) >= self._bounds.per_client
