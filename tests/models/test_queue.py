"""Fair queues as data: round robin over clients, order within each, bounds, places told truly, leaving from anywhere."""

from __future__ import annotations

import time
from itertools import groupby

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from olm.actors.queue import FairQueue, QueueBounds, WaitingRoom

CLIENTS = st.sampled_from("abcd")


def queue_of(clients: str) -> FairQueue[str]:
    """Tickets 0, 1, … of these clients, in this order; each carries its client's name."""
    queue: FairQueue[str] = FairQueue()
    for ticket_id, client in enumerate(clients):
        queue.push(ticket_id, client, client)
    return queue


def served(queue: FairQueue[str]) -> list[tuple[int, str]]:
    return [queue.take() for _ in range(len(queue))]


def test_clients_take_turns() -> None:
    assert "".join(client for _, client in served(queue_of("aaaabbc"))) == "abcabaa"


def test_a_client_that_comes_back_stands_behind_those_who_wait() -> None:
    queue = queue_of("ab")
    queue.take()
    queue.push(9, "a", "a")
    queue.push(10, "b", "b")

    assert [ticket_id for ticket_id, _ in served(queue)] == [1, 9, 10]


@given(st.text("abcd", max_size=30))
def test_each_client_is_served_in_order_and_none_twice_before_all_once(clients: str) -> None:
    queue = queue_of(clients)
    foretold = list(queue)
    order = served(queue)

    assert order == foretold
    assert sorted(order) == list(enumerate(clients))
    for client in set(clients):
        own = [ticket_id for ticket_id, c in order if c == client]
        assert own == sorted(own)
    # In the n-th round everybody with n requests is served once, in the order of their coming.
    rounds: dict[str, int] = {}
    numbered = [(rounds.setdefault(c, 0), c, rounds.update({c: rounds[c] + 1})) for _, c in order]
    assert [n for n, _, _ in numbered] == sorted(n for n, _, _ in numbered)
    for n, group in groupby(numbered, key=lambda item: item[0]):
        there = [c for c in dict.fromkeys(clients) if clients.count(c) > n]
        assert [c for _, c, _ in group] == there


@given(st.text("abcd", max_size=20), st.integers(0, 20), CLIENTS)
def test_the_place_told_is_the_place_taken(clients: str, n_taken: int, client: str) -> None:
    queue = queue_of(clients)
    for _ in range(min(n_taken, len(queue))):
        queue.take()

    position = queue.position(client)
    queue.push(99, client, client)

    assert [ticket_id for ticket_id, _ in queue].index(99) == position - 1


class RoomMachine(RuleBasedStateMachine):
    """Any order of coming, leaving and serving, against a list that is searched from its beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.bounds = QueueBounds(in_all=8, per_model=5, per_client=4)
        self.room: WaitingRoom[str, tuple[str, str]] = WaitingRoom(self.bounds)
        self.here: dict[int, tuple[str, str]] = {}
        self.n = 0

    def n_of(self, client: str) -> int:
        return sum(c == client for _, c in self.here.values())

    @rule(key=st.sampled_from("xyz"), client=CLIENTS)
    def come(self, key: str, client: str) -> None:
        if not self.room.is_open(key, client):
            gives_way = self.room.newest_of_greediest(key, client)
            if gives_way is None:
                return
            key_full = sum(k == key for k, _ in self.here.values()) >= self.bounds.per_model
            lost_key, greedy = self.here.pop(gives_way)
            assert self.room.remove(gives_way) == (lost_key, greedy)
            assert lost_key == key or not key_full
            assert greedy != client
            mine = [k == key or not key_full for k, c in self.here.values() if c == client]
            rest = [k == key or not key_full for k, c in self.here.values() if c == greedy]
            assert sum(rest) > sum(mine), "nobody loses a place to somebody with as many"
        self.n += 1
        self.room.push(self.n, key, client, (key, client))
        self.here[self.n] = (key, client)

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        ticket_id = data.draw(st.sampled_from(sorted(self.here)))
        assert self.room.remove(ticket_id) == self.here.pop(ticket_id)

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def serve(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.room.lines)))
        foretold = next(iter(self.room.lines[key]))
        ticket_id, item = self.room.take(key)
        assert (ticket_id, item) == foretold
        assert self.here.pop(ticket_id) == item

    @precondition(lambda self: self.here)
    @rule()
    def load(self) -> None:
        key, client = self.room.next_load(self.room.lines.keys())
        assert client in self.room.lines[key].clients
        self.n += 1
        self.room.note_load(client, self.n)

    @invariant()
    def agrees(self) -> None:
        assert len(self.room) == len(self.here)
        assert all(ticket_id in self.room for ticket_id in self.here)
        found = {i: item for line in self.room.lines.values() for i, item in line}
        assert found == self.here

    @invariant()
    def bounds_hold(self) -> None:
        keys = [key for key, _ in self.here.values()]
        assert len(self.here) <= self.bounds.in_all
        assert all(keys.count(key) <= self.bounds.per_model for key in "xyz")
        assert all(self.n_of(client) <= self.bounds.per_client for client in "abcd")


TestRoomMachine = RoomMachine.TestCase
TestRoomMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_loads_go_round_the_clients_too() -> None:
    room: WaitingRoom[str, str] = WaitingRoom(QueueBounds())
    for ticket_id, (key, client) in enumerate(("1a", "2a", "3a", "4b", "5b")):
        room.push(ticket_id, key, client, client)
    order = []

    keys = list(room.lines)
    while keys:
        key, client = room.next_load(keys)
        room.note_load(client, 100 + len(order))
        keys.remove(key)
        order.append(key)

    assert order == ["1", "4", "2", "5", "3"]


def test_leaving_costs_the_same_however_many_wait() -> None:
    def cpu_s(n: int) -> float:
        room: WaitingRoom[str, None] = WaitingRoom(QueueBounds(in_all=n))
        for ticket_id in range(n):
            room.push(ticket_id, "m", f"c{ticket_id % 7}", None)
        started_s = time.process_time()
        for ticket_id in range(0, n, 2):  # from the middle, and then whoever is first
            room.remove(ticket_id)
        while len(room):
            room.take("m")
        return (time.process_time() - started_s) / n

    few, many = (min(cpu_s(n) for _ in range(3)) for n in (300, 30_000))

    assert many < 30 * few, "if each looked at all, it would be a hundred times as much"
