"""The scheduler's book-keeping: queue, slots, shared loads, eviction, keep-alive; and that no ticket is ever lost."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kit.models import MIB, FakeMemory, stored_model
from olm.actors.book import Action, Book, Demand, Grant, Refuse, StartRunner, StopRunner
from olm.actors.placement import Policy
from olm.actors.queue import QueueBounds
from olm.chat.options import LoadOptions
from olm.errors import Busy, LoadFailed, ShuttingDown
from olm.native.wire import Loaded


def make_book(
    *,
    n_parallel: int = 2,
    max_loaded: int = 3,
    max_queue: int = 8,
    max_client: int = 0,
    memory: FakeMemory | None = None,
    keep_alive_s: float = 300.0,
) -> Book:
    return Book(
        Policy(n_parallel=n_parallel, max_loaded=max_loaded),
        keep_alive_s=keep_alive_s,
        bounds=QueueBounds(max_queue, per_client=max_client),
        memory=memory or FakeMemory(),
    )


def demand(
    name: str = "a",
    client: str = "",
    *,
    keep_alive_s: float | None = None,
    n_ctx: int | None = None,
) -> Demand:
    return Demand(stored_model(name), LoadOptions(n_ctx=n_ctx), keep_alive_s, client)


def load(book: Book, name: str = "a", now_s: float = 0.0) -> tuple[int, int]:
    """Load a model; return its runner and the granted ticket."""
    ticket = book.request(demand(name), 0.0)
    [start] = book.decide(now_s)
    assert isinstance(start, StartRunner)
    finish_load(book, start, now_s)
    assert book.decide(now_s) == [Grant(ticket, start.runner_id)]
    return start.runner_id, ticket


def finish_load(book: Book, start: StartRunner, now_s: float = 0.0) -> None:
    n_ctx = start.plan.options.n_ctx or 0
    info = Loaded(n_ctx=n_ctx, n_ctx_train=n_ctx, n_parallel=start.plan.n_parallel)
    book.loaded(start.runner_id, info, start.runner_id, now_s)


def stopped(actions: list[Action]) -> list[int]:
    return [action.runner_id for action in actions if isinstance(action, StopRunner)]


def test_waiting_requests_share_one_load() -> None:
    book = make_book(n_parallel=2)
    tickets = [book.request(demand(), 0.0) for _ in range(3)]

    [start] = book.decide(0.0)
    assert isinstance(start, StartRunner)
    assert book.decide(0.0) == []
    finish_load(book, start)

    assert book.decide(0.0) == [Grant(ticket, start.runner_id) for ticket in tickets[:2]]
    assert (book.n_active, book.n_waiting) == (2, 1)


def test_a_freed_slot_goes_to_the_longest_waiting() -> None:
    book = make_book(n_parallel=1)
    runner, first = load(book)
    second, _third = book.request(demand(), 0.0), book.request(demand(), 0.0)
    assert book.decide(1.0) == []

    book.leave(first, 2.0)

    assert book.decide(2.0) == [Grant(second, runner)]


def test_a_ticket_that_left_costs_nothing() -> None:
    book = make_book(n_parallel=1, max_queue=1)
    _runner, first = load(book)
    second = book.request(demand(), 0.0)
    with pytest.raises(Busy) as full:
        book.request(demand(), 0.0)
    assert full.value.message == "server busy, please try again.  maximum pending requests exceeded"
    assert isinstance(full.value.details["retry_after_s"], float)

    book.leave(second, 1.0)
    third = book.request(demand(), 0.0)
    book.leave(first, 2.0)

    assert [a.ticket_id for a in book.decide(2.0) if isinstance(a, Grant)] == [third]


def test_a_load_that_fails_answers_everybody_who_waits_for_it() -> None:
    book = make_book()
    tickets = [book.request(demand(), 0.0) for _ in range(2)]
    [start] = book.decide(0.0)
    assert isinstance(start, StartRunner)
    error = LoadFailed("no")

    refused = book.failed(start.runner_id, error)
    book.gone(start.runner_id)

    assert refused == [Refuse(ticket, error) for ticket in tickets]
    assert (book.decide(0.0), book.n_waiting) == ([], 0)


def test_a_load_nobody_waits_for_is_cancelled() -> None:
    book = make_book()
    ticket = book.request(demand(), 0.0)
    [start] = book.decide(0.0)
    assert isinstance(start, StartRunner)

    book.leave(ticket, 1.0)

    assert stopped(book.decide(1.0)) == [start.runner_id]


def test_a_crash_sends_the_waiting_to_a_new_runner() -> None:
    book = make_book(n_parallel=1)
    runner, _active = load(book)
    waiting = book.request(demand(), 0.0)
    assert book.decide(0.0) == []

    book.gone(runner)

    [start] = book.decide(1.0)
    assert isinstance(start, StartRunner)
    finish_load(book, start)
    assert book.decide(1.0) == [Grant(waiting, start.runner_id)]


def test_an_idle_model_goes_when_its_keep_alive_is_over() -> None:
    book = make_book(keep_alive_s=10.0)
    runner, ticket = load(book)
    book.leave(ticket, 5.0)

    assert book.next_deadline_s() == 15.0
    assert book.decide(14.9) == []
    assert stopped(book.decide(15.0)) == [runner]
    assert book.decide(15.0) == []


def test_the_last_request_sets_keep_alive() -> None:
    book = make_book()
    _runner, ticket = load(book)
    again = book.request(demand(keep_alive_s=math.inf), 0.0)
    book.decide(0.0)
    for item in (ticket, again):
        book.leave(item, 1.0)
    assert book.next_deadline_s() == math.inf

    once = book.request(demand(keep_alive_s=0.0), 0.0)
    book.decide(2.0)
    book.leave(once, 3.0)

    assert len(stopped(book.decide(3.0))) == 1


def test_unload_waits_for_running_turns() -> None:
    book = make_book()
    runner, ticket = load(book)

    book.expire(demand().key)
    assert book.decide(1.0) == []
    book.leave(ticket, 2.0)

    assert stopped(book.decide(2.0)) == [runner]


def test_other_load_options_reload_after_the_running_turn() -> None:
    book = make_book()
    runner, ticket = load(book)
    other = book.request(demand(n_ctx=128), 0.0)
    assert book.decide(1.0) == []

    book.leave(ticket, 2.0)
    assert stopped(book.decide(2.0)) == [runner]
    book.gone(runner)

    [start] = book.decide(3.0)
    assert isinstance(start, StartRunner)
    assert start.plan.options.n_ctx == 128
    finish_load(book, start)
    assert book.decide(3.0) == [Grant(other, start.runner_id)]


def test_the_least_recently_used_idle_model_makes_room() -> None:
    book = make_book(max_loaded=2)
    old, old_ticket = load(book, "a", 0.0)
    _new, new_ticket = load(book, "b", 1.0)
    book.leave(new_ticket, 2.0)
    book.leave(old_ticket, 1.5)
    waiting = book.request(demand("c"), 0.0)

    assert stopped(book.decide(3.0)) == [old]
    book.gone(old)

    [start] = book.decide(4.0)
    assert isinstance(start, StartRunner)
    finish_load(book, start)
    assert book.decide(4.0) == [Grant(waiting, start.runner_id)]


def test_a_busy_model_lets_go_after_its_turns_when_another_must_load() -> None:
    book = make_book(max_loaded=1)
    runner, ticket = load(book, "a")
    waiting = book.request(demand("b"), 0.0)
    assert book.decide(1.0) == []

    late = book.request(demand("a"), 0.0)
    assert book.decide(1.0) == []
    book.leave(ticket, 2.0)
    assert stopped(book.decide(2.0)) == [runner]
    book.gone(runner)

    [start] = book.decide(3.0)
    assert isinstance(start, StartRunner)
    assert start.model.name == "b"
    book.leave(waiting, 3.0)
    book.leave(late, 3.0)


def test_names_that_share_weights_share_a_runner() -> None:
    book = make_book()
    runner, _ticket = load(book, "a")
    alias = book.request(Demand(stored_model("alias", weights="/blobs/a")), 0.0)

    assert book.decide(1.0) == [Grant(alias, runner)]


def test_fewer_slots_rather_than_no_load() -> None:
    memory = FakeMemory(total_bytes=600 * MIB)
    book = make_book(n_parallel=4, memory=memory)
    book.request(Demand(stored_model("a", size_bytes=100 * MIB, kv_bytes_per_token=32 * 1024)), 0.0)

    [start] = book.decide(0.0)

    assert isinstance(start, StartRunner)
    assert start.plan.n_parallel == 2


def test_a_model_too_big_for_the_machine_is_tried_when_alone() -> None:
    book = make_book(memory=FakeMemory(total_bytes=MIB))
    book.request(demand(), 0.0)

    [start] = book.decide(0.0)

    assert isinstance(start, StartRunner)
    assert start.plan.n_parallel == 1


def test_a_small_model_does_not_overtake_a_big_one_that_waits_for_room() -> None:
    book = make_book(memory=FakeMemory(total_bytes=2000 * MIB))
    for name, size_mib in (("a", 1200), ("b", 1200), ("c", 10)):
        book.request(Demand(stored_model(name, size_bytes=size_mib * MIB)), 0.0)

    starts = [action for action in book.decide(0.0) if isinstance(action, StartRunner)]

    assert [start.model.name for start in starts] == ["a"]


def test_draining_refuses_the_waiting_and_the_new_but_not_the_running() -> None:
    book = make_book(n_parallel=1)
    _runner, active = load(book)
    waiting = book.request(demand(), 0.0)

    [refused] = book.drain()

    assert refused.ticket_id == waiting
    assert isinstance(refused.error, ShuttingDown)
    with pytest.raises(ShuttingDown):
        book.request(demand(), 0.0)
    assert book.n_active == 1
    book.leave(active, 1.0)
    assert book.n_active == 0


def test_rows_tell_when_a_model_goes() -> None:
    book = make_book(keep_alive_s=10.0)
    _runner, ticket = load(book)
    assert [row.expires_s for row in book.rows(5.0).values()] == [10.0]

    book.leave(ticket, 6.0)

    assert [row.expires_s for row in book.rows(8.0).values()] == [8.0]


def test_clients_are_served_in_turn() -> None:
    book = make_book(n_parallel=1)
    runner, running = load(book)
    greedy = [book.request(demand(client="a"), 0.0) for _ in range(3)]
    modest = book.request(demand(client="b"), 0.0)
    served = []

    for now_s in range(1, 5):
        book.leave(running, now_s)
        [grant] = book.decide(now_s)
        assert isinstance(grant, Grant)
        running = grant.ticket_id
        served.append((running, grant.position))

    assert served == [(greedy[0], 1), (modest, 2), (greedy[1], 2), (greedy[2], 3)]
    assert grant == Grant(running, runner)


def test_who_is_refused_learns_the_place_and_when_to_come_back() -> None:
    book = make_book(n_parallel=2, max_queue=4)
    _runner, first = load(book)
    book.leave(first, 100.0)
    for _ in range(6):
        book.request(demand(), 100.0)
        book.decide(100.0)

    with pytest.raises(Busy) as full:
        book.request(demand(), 100.0)

    # The turn of 100 s moved the mean from the guess, 5 s, to 24 s; two slots, and half of five turns.
    assert full.value.details == {"retry_after_s": 30.0, "queue_position": 5}


def test_a_bound_for_each_client_leaves_room_for_the_others() -> None:
    book = make_book(n_parallel=1, max_client=2)
    load(book)
    for _ in range(2):
        book.request(demand(client="a"), 0.0)

    with pytest.raises(Busy):
        book.request(demand("b", client="a"), 0.0)
    book.request(demand(client="b"), 0.0)

    assert book.n_waiting == 3


def test_in_a_full_queue_the_greediest_gives_way_to_the_modest_but_not_to_the_greedy() -> None:
    book = make_book(n_parallel=1, max_queue=4)
    load(book)
    greedy = [book.request(demand(client="a"), 0.0) for _ in range(4)]

    modest = [book.request(demand(client="b"), 0.0) for _ in range(2)]
    gave_way = book.decide(0.0)
    with pytest.raises(Busy):
        book.request(demand(client="b"), 0.0)

    assert [a.ticket_id for a in gave_way if isinstance(a, Refuse)] == [greedy[3], greedy[2]]
    assert all(isinstance(a.error, Busy) for a in gave_way if isinstance(a, Refuse))
    assert book.n_waiting == 4
    for ticket in (*greedy[:2], *modest):
        book.leave(ticket, 1.0)
    assert book.n_waiting == 0


def test_who_wants_another_load_waits_for_its_turn_first() -> None:
    """Else two clients that want other options would have the model loaded anew for every request."""
    book = make_book(n_parallel=1)
    runner, ticket = load(book)
    same, other = book.request(demand(), 0.0), book.request(demand(n_ctx=128), 0.0)

    book.leave(ticket, 1.0)
    assert book.decide(1.0) == [Grant(same, runner)]
    book.leave(same, 2.0)

    assert stopped(book.decide(2.0)) == [runner]
    book.leave(other, 2.0)


def test_a_parked_turn_lends_its_slot_out_and_takes_it_back() -> None:
    book = make_book(n_parallel=1)
    runner, slow = load(book)
    second, third = book.request(demand(), 0.0), book.request(demand(), 0.0)
    assert book.decide(0.0) == []

    assert book.park(slow)
    assert book.decide(1.0) == [Grant(second, runner)]
    book.unpark(slow)
    book.leave(second, 2.0)
    assert book.decide(2.0) == [], "the slow one is back and holds the slot"

    book.leave(slow, 3.0)
    assert book.decide(3.0) == [Grant(third, runner)]


def test_a_parked_turn_that_leaves_takes_no_slot_along() -> None:
    book = make_book(n_parallel=1)
    _runner, slow = load(book)
    second, _third = book.request(demand(), 0.0), book.request(demand(), 0.0)
    book.park(slow)
    book.decide(1.0)

    book.leave(slow, 2.0)

    assert book.decide(2.0) == [], "the second has the only slot"
    book.leave(second, 3.0)
    assert len(book.decide(3.0)) == 1


def test_a_model_that_must_go_does_not_wait_for_parked_turns() -> None:
    book = make_book(max_loaded=1)
    runner, slow = load(book, "a")
    assert book.park(slow)
    waiting = book.request(demand("b"), 1.0)

    actions = book.decide(1.0)

    [ended] = [a for a in actions if isinstance(a, Refuse)]
    assert (ended.ticket_id, stopped(actions)) == (slow, [runner])
    assert "nobody read it" in ended.error.message
    book.leave(slow, 1.0)
    assert (book.n_active, book.n_waiting) == (0, 1)
    book.leave(waiting, 1.0)


def test_no_more_are_parked_than_may_wait() -> None:
    book = make_book(n_parallel=4, max_queue=2)
    _runner, first = load(book)
    more = [book.request(demand(), 0.0) for _ in range(2)]
    book.decide(0.0)

    assert [book.park(ticket) for ticket in (first, *more)] == [True, True, False]


def test_a_thousand_waiting_that_leave_cost_nothing() -> None:
    book = make_book(n_parallel=1, max_queue=1000)
    _runner, first = load(book)
    tickets = [book.request(demand(client=f"c{i % 50}"), 0.0) for i in range(1000)]
    assert book.decide(0.0) == []
    for ticket in tickets:
        book.leave(ticket, 1.0)
        assert book.decide(1.0) == []

    assert (book.n_waiting, book.n_active) == (0, 1)
    assert [(row.n_waiting, row.n_running) for row in book.queue_rows(1.0)] == [(0, 1)]
    book.leave(first, 2.0)


def test_the_lines_are_told_by_model() -> None:
    book = make_book(n_parallel=1, max_loaded=1)
    _runner, slow = load(book, "b")
    book.park(slow)
    book.unpark(slow)
    for client, now_s in (("x", 1.0), ("x", 2.0), ("y", 3.0)):
        book.request(demand("b", client), now_s)
    book.request(demand("a"), 4.0)
    book.decide(4.0)

    first, second = book.queue_rows(10.0)

    assert (first.model, first.state, first.n_slots, first.n_waiting) == ("a", "waiting", 0, 1)
    assert (second.model, second.state, second.n_slots, second.n_running) == ("b", "leaving", 1, 1)
    assert (second.n_waiting, second.n_clients, second.longest_wait_s) == (3, 2, 9.0)


class BookMachine(RuleBasedStateMachine):
    """Any order of events: slots and memory are never over-committed, every ticket has one outcome, nobody starves.

    A slot is granted only while fewer turns than slots run, those parked not counted, and to a client's oldest request.
    """

    def __init__(self) -> None:
        super().__init__()
        self.memory = FakeMemory(total_bytes=2000 * MIB)
        self.book = make_book(max_queue=6, memory=self.memory, keep_alive_s=20.0)
        self.now_s = 0.0
        self.waiting: set[int] = set()
        self.active: dict[int, int] = {}
        self.parked: set[int] = set()
        self.who: dict[int, tuple[str, str]] = {}
        self.starts: dict[int, StartRunner] = {}
        self.loading: set[int] = set()
        self.stopping: set[int] = set()

    def settle(self) -> None:
        for action in self.book.decide(self.now_s):
            match action:
                case Grant(ticket_id, runner_id):
                    self.waiting.remove(ticket_id)
                    assert runner_id in self.starts
                    assert runner_id not in self.loading | self.stopping
                    oldest = min(
                        t for t in (*self.waiting, ticket_id) if self.who[t] == self.who[ticket_id]
                    )
                    assert ticket_id == oldest
                    busy = [
                        t for t, r in self.active.items() if r == runner_id and t not in self.parked
                    ]
                    assert len(busy) < self.starts[runner_id].plan.n_parallel
                    self.active[ticket_id] = runner_id
                case StartRunner(runner_id):
                    assert all(
                        other.model.weights != action.model.weights
                        for other in self.starts.values()
                    )
                    self.starts[runner_id] = action
                    self.loading.add(runner_id)
                case StopRunner(runner_id):
                    assert runner_id not in self.stopping
                    assert runner_id not in self.active.values()
                    self.stopping.add(runner_id)
                case Refuse(ticket_id):
                    assert ticket_id in self.waiting | self.parked
                    self.drop(ticket_id)
        assert self.book.decide(self.now_s) == []

    @rule(
        name=st.sampled_from("abcd"),
        client=st.sampled_from("xyz"),
        n_ctx=st.none() | st.sampled_from([64, 4096]),
        keep=st.none() | st.sampled_from([0.0, 5.0, math.inf]),
        size=st.sampled_from([50, 700, 1500, 4000]),
    )
    def request(
        self, name: str, client: str, n_ctx: int | None, keep: float | None, size: int
    ) -> None:
        model = stored_model(name, size_bytes=size * MIB, kv_bytes_per_token=8192)
        demand = Demand(model, LoadOptions(n_ctx=n_ctx), keep, client)
        try:
            ticket = self.book.request(demand, self.now_s)
            self.waiting.add(ticket)
            self.who[ticket] = (name, client)
        except Busy:
            assert len(self.waiting) >= 6
        self.settle()

    @precondition(lambda self: self.waiting or self.active)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.waiting | self.active.keys())))
        self.book.leave(ticket, self.now_s)
        self.drop(ticket)
        self.settle()

    @precondition(lambda self: self.active)
    @rule(data=st.data())
    def reader_goes_or_comes(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.active)))
        if ticket in self.parked:
            self.book.unpark(ticket)
            self.parked.remove(ticket)
        elif self.book.park(ticket):
            self.parked.add(ticket)
        self.settle()

    def drop(self, ticket: int) -> None:
        self.waiting.discard(ticket)
        self.parked.discard(ticket)
        self.active.pop(ticket, None)

    @precondition(lambda self: self.loading)
    @rule(data=st.data(), ok=st.booleans(), used=st.floats(0, 1))
    def end_load(self, data: st.DataObject, ok: bool, used: float) -> None:
        runner_id = data.draw(st.sampled_from(sorted(self.loading)))
        self.loading.remove(runner_id)
        start = self.starts[runner_id]
        if ok:
            self.memory.used[runner_id] = int(start.plan.need_bytes * used)
            finish_load(self.book, start, self.now_s)
        else:
            for refuse in self.book.failed(runner_id, LoadFailed("no")):
                self.waiting.remove(refuse.ticket_id)
            self.forget(runner_id)
        self.settle()

    @precondition(lambda self: self.starts)
    @rule(data=st.data())
    def runner_ends(self, data: st.DataObject) -> None:
        self.forget(data.draw(st.sampled_from(sorted(self.starts))))
        self.settle()

    @rule(seconds=st.sampled_from([0.5, 5.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds
        self.settle()

    def forget(self, runner_id: int) -> None:
        self.book.gone(runner_id)
        self.memory.used.pop(runner_id, None)
        del self.starts[runner_id]
        self.loading.discard(runner_id)
        self.stopping.discard(runner_id)
        # Its turns fail; their callers leave.
        for ticket in [t for t, r in self.active.items() if r == runner_id]:
            self.book.leave(ticket, self.now_s)
            self.drop(ticket)

    @invariant()
    def books_agree(self) -> None:
        assert (self.book.n_waiting, self.book.n_active) == (len(self.waiting), len(self.active))

    @invariant()
    def memory_is_not_over_committed(self) -> None:
        if len(self.starts) > 1:
            first = min(self.starts)
            later = sum(s.plan.need_bytes for i, s in self.starts.items() if i != first)
            assert later <= self.memory.total_bytes
        assert len(self.starts) <= 3

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """Somebody waits only while something is under way that will let them go on."""
        if self.waiting:
            assert self.active or self.loading or self.stopping

    def teardown(self) -> None:
        """Let everything go on to its end: the queue empties."""
        for _ in range(500):
            if not self.waiting:
                break
            for ticket in list(self.active):
                self.book.leave(ticket, self.now_s)
                self.drop(ticket)
            for runner_id in list(self.stopping):
                self.forget(runner_id)
            for runner_id in list(self.loading):
                self.loading.remove(runner_id)
                finish_load(self.book, self.starts[runner_id], self.now_s)
            self.settle()
        assert not self.waiting


TestBookMachine = BookMachine.TestCase
TestBookMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
