"""Responses that can be asked for again or continued: kept in memory, within bounds, each for its owner alone.

The conversation before a response is kept with it, so that it can be continued after its predecessor was deleted or
has made room; exchanges that several responses share are kept, and counted, once. When there is no more room, whoever
holds most loses what was used longest ago. Nothing survives the daemon's end. What items mean is in
`dialects.openai_responses_items`.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import attrs

__all__ = ["Exchange", "Item", "ResponseStore", "Stored"]

MAX_RESPONSES: Final = 1024
MAX_BYTES: Final = 64 << 20
"""All responses together: as much as one request may be large."""
_OVERHEAD_BYTES: Final = 300
"""What an item, an exchange or a response takes in Python beside its text."""


@attrs.frozen
class Item:
    """An item of an input or an output, as JSON."""

    id: str
    json: bytes


@attrs.frozen(eq=False)
class Exchange:
    """What one request added to a conversation: its input, and the answer's output."""

    input: Sequence[Item]
    output: Sequence[Item]

    @property
    def size_bytes(self) -> int:
        """The memory it takes, roughly."""
        items = (*self.input, *self.output)
        return sum(len(item.json) + _OVERHEAD_BYTES for item in items) + _OVERHEAD_BYTES


@attrs.frozen(eq=False)
class Stored:
    """A response. `json` is the whole object; `exchanges` the conversation, ending with its own exchange."""

    id: str
    json: bytes
    exchanges: tuple[Exchange, ...]

    @property
    def input(self) -> list[Item]:
        """Everything the model was given, the conversation before it first."""
        before = [item for e in self.exchanges[:-1] for item in (*e.input, *e.output)]
        return [*before, *self.exchanges[-1].input]

    @property
    def conversation(self) -> list[Item]:
        """Everything up to and with its own output."""
        return [*self.input, *self.exchanges[-1].output]


class ResponseStore:
    """All kept responses of one server; used from the trio thread only."""

    def __init__(self, max_responses: int = MAX_RESPONSES, max_bytes: int = MAX_BYTES) -> None:
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._shelves: dict[str, _Shelf] = {}

    @property
    def size_bytes(self) -> int:
        """The memory all responses take, roughly."""
        return sum(shelf.size_bytes for shelf in self._shelves.values())

    def __len__(self) -> int:
        return sum(len(shelf) for shelf in self._shelves.values())

    def add(self, owner: str, stored: Stored) -> None:
        """Keep a response. One that is larger than the whole store is not kept."""
        self._shelves.setdefault(owner, _Shelf()).add(stored)
        while len(self) > self._max_responses:
            self._drop_oldest(len)
        while self.size_bytes > self._max_bytes:
            self._drop_oldest(lambda shelf: shelf.size_bytes)

    def get(self, owner: str, response_id: str) -> Stored | None:
        """Find a response of this owner, which makes it the most recently used."""
        shelf = self._shelves.get(owner)
        return shelf.get(response_id) if shelf is not None else None

    def remove(self, owner: str, response_id: str) -> bool:
        """Forget a response of this owner; False when there is none."""
        shelf = self._shelves.get(owner)
        if shelf is None or shelf.get(response_id) is None:
            return False
        shelf.remove(response_id)
        if not len(shelf):
            del self._shelves[owner]
        return True

    def item(self, owner: str, item_id: str) -> bytes | None:
        """Find an item of any response of this owner, as JSON."""
        shelf = self._shelves.get(owner)
        return shelf.item(item_id) if shelf is not None else None

    def _drop_oldest(self, weight: Callable[[_Shelf], int]) -> None:
        owner, shelf = max(self._shelves.items(), key=lambda entry: weight(entry[1]))
        shelf.remove(shelf.oldest())
        if not len(shelf):
            del self._shelves[owner]


class _Shelf:
    """The responses of one owner, the least recently used first."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._responses: OrderedDict[str, Stored] = OrderedDict()
        self._uses: Counter[Exchange] = Counter()
        self._items: dict[str, Item] = {}

    def __len__(self) -> int:
        return len(self._responses)

    def oldest(self) -> str:
        return next(iter(self._responses))

    def get(self, response_id: str) -> Stored | None:
        found = self._responses.get(response_id)
        if found is not None:
            self._responses.move_to_end(response_id)
        return found

    def item(self, item_id: str) -> bytes | None:
        found = self._items.get(item_id)
        return found.json if found is not None else None

    def add(self, stored: Stored) -> None:
        self._responses[stored.id] = stored
        self.size_bytes += _own_bytes(stored)
        for exchange in stored.exchanges:
            self._uses[exchange] += 1
            if self._uses[exchange] == 1:
                self.size_bytes += exchange.size_bytes
                self._items.update((item.id, item) for item in _items(exchange))

    def remove(self, response_id: str) -> None:
        stored = self._responses.pop(response_id)
        self.size_bytes -= _own_bytes(stored)
        for exchange in stored.exchanges:
            self._uses[exchange] -= 1
            if not self._uses[exchange]:
                del self._uses[exchange]
                self.size_bytes -= exchange.size_bytes
                for item in _items(exchange):
                    # A client may give two items the same id; the later one stays.
                    if self._items.get(item.id) is item:
                        del self._items[item.id]


def _items(exchange: Exchange) -> Sequence[Item]:
    return (*exchange.input, *exchange.output)


def _own_bytes(stored: Stored) -> int:
    """What a response takes beside its exchanges, its places in the list of them included."""
    return len(stored.json) + _OVERHEAD_BYTES + 8 * len(stored.exchanges)
