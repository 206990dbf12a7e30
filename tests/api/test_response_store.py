"""Kept responses: whose they are, what they share, and what has to go when there is no more room."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from olm.api.response_store import Exchange, Item, ResponseStore, Stored


def item(name: str, n_bytes: int = 10) -> Item:
    return Item(name, b"x" * n_bytes)


def stored(name: str, *before: Exchange, n_bytes: int = 10) -> Stored:
    own = Exchange([item(f"in-{name}", n_bytes)], [item(f"out-{name}")])
    return Stored(name, b"{}", (*before, own))


def test_owners_see_only_their_own() -> None:
    store = ResponseStore()
    store.add("a", stored("r"))

    assert store.get("a", "r") is not None
    assert store.get("b", "r") is None
    assert store.item("a", "in-r") == b"x" * 10
    assert store.item("b", "in-r") is None
    assert not store.remove("b", "r")
    assert store.remove("a", "r")
    assert not store.remove("a", "r")
    assert (len(store), store.size_bytes, store.item("a", "in-r")) == (0, 0, None)


def test_a_conversation_outlives_its_beginning() -> None:
    store = ResponseStore()
    first = stored("1")
    second = stored("2", *first.exchanges)
    store.add("a", first)
    store.add("a", second)

    store.remove("a", "1")

    assert [i.id for i in second.input] == ["in-1", "out-1", "in-2"]
    assert store.item("a", "out-1") is not None
    store.remove("a", "2")
    assert store.item("a", "out-1") is None
    assert store.size_bytes == 0


def test_shared_exchanges_count_once() -> None:
    store = ResponseStore()
    large = stored("0", n_bytes=100_000)
    store.add("a", large)
    for i in range(50):
        store.add("a", stored(f"{i}", *large.exchanges))

    assert store.size_bytes < 200_000


def test_the_least_recently_used_goes_first() -> None:
    store = ResponseStore(max_responses=2)
    store.add("a", stored("1"))
    store.add("a", stored("2"))
    store.get("a", "1")
    store.add("a", stored("3"))

    assert store.get("a", "2") is None
    assert store.get("a", "1") is not None


def test_who_holds_most_makes_room() -> None:
    by_count = ResponseStore(max_responses=3)
    by_count.add("quiet", stored("q"))
    for i in range(9):
        by_count.add("loud", stored(f"{i}"))
    by_bytes = ResponseStore(max_bytes=20_000)
    by_bytes.add("quiet", stored("q"))
    for i in range(9):
        by_bytes.add("loud", stored(f"{i}", n_bytes=5000))

    assert by_count.get("quiet", "q") is not None
    assert by_bytes.get("quiet", "q") is not None
    assert by_bytes.size_bytes <= 20_000


def test_what_is_larger_than_the_store_is_not_kept() -> None:
    store = ResponseStore(max_bytes=5000)
    store.add("a", stored("1"))
    store.add("b", stored("2", n_bytes=9000))

    assert store.get("a", "1") is not None
    assert store.get("b", "2") is None


class Machine(RuleBasedStateMachine):
    """Whatever is done, the counts are those of what is there, and within the bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.store = ResponseStore(max_responses=6, max_bytes=8000)
        self.made: list[tuple[str, Stored]] = []

    @rule(
        owner=st.sampled_from("ab"),
        n_bytes=st.integers(0, 3000),
        after=st.none() | st.integers(0, 20),
    )
    def add(self, owner: str, n_bytes: int, after: int | None) -> None:
        before: tuple[Exchange, ...] = ()
        if after is not None and after < len(self.made):
            known_owner, known = self.made[after]
            if known_owner == owner:
                before = known.exchanges
        new = stored(f"r{len(self.made)}", *before, n_bytes=n_bytes)
        self.made.append((owner, new))
        self.store.add(owner, new)

    @rule(index=st.integers(0, 20))
    def remove(self, index: int) -> None:
        if index < len(self.made):
            owner, known = self.made[index]
            self.store.remove(owner, known.id)

    @invariant()
    def counts_are_true(self) -> None:
        there = [(owner, r) for owner, r in self.made if self.store.get(owner, r.id)]
        shared = {e for _, r in there for e in r.exchanges}
        own = sum(len(r.json) + 300 + 8 * len(r.exchanges) for _, r in there)
        items = {i.id for e in shared for i in (*e.input, *e.output)}

        assert len(self.store) == len(there) <= 6
        assert self.store.size_bytes == own + sum(e.size_bytes for e in shared) <= 8000
        for owner, response in self.made:
            for kept in response.conversation:
                found = self.store.item(owner, kept.id)
                assert (found is not None) == (kept.id in items)


Machine.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestMachine = Machine.TestCase
