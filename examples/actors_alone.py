"""The actor runtime without the rest of olm: a small word-count service.

    python examples/actors_alone.py

Shows the whole of it in one page: an actor that answers and streams, a supervisor that brings it back after a crash, what
callers are told, and the same class in a process of its own.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import trio

from olm.actors import (
    Actor,
    ActorStopped,
    ChildSpec,
    Message,
    RestartPolicy,
    StreamMessage,
    StreamSink,
    handles,
    open_supervisor,
    process_actor,
    streams,
)
from olm.errors import InvalidRequest


class CountWords(Message[int], frozen=True):
    """Count the words of a text; the reply is how many there were."""

    text: str


class Where(Message[int], frozen=True):
    """Reply with the process id of the actor."""


class Break(Message[None], frozen=True):
    """Make the actor fail, as a bug would."""


class TopWords(StreamMessage[tuple[str, int]], frozen=True):
    """Stream the most frequent words, best first."""

    limit: int = 3


class WordCounter(Actor):
    """Counts words over all messages. Its state is its own: no locks, one message at a time."""

    async def start(self) -> None:
        self.words: Counter[str] = Counter()

    @handles(CountWords)
    def on_count(self, msg: CountWords) -> int:
        words = msg.text.lower().split()
        if not words:
            raise InvalidRequest("there is no word in this text")  # an answer, not a crash
        self.words.update(words)
        return len(words)

    @handles(Where)
    def on_where(self, msg: Where) -> int:
        return os.getpid()

    @handles(Break)
    def on_break(self, msg: Break) -> None:
        raise ZeroDivisionError("a bug")

    @streams(TopWords)
    async def on_top(self, msg: TopWords, out: StreamSink[tuple[str, int]]) -> None:
        for pair in self.words.most_common(msg.limit):
            await out.send(pair)


async def main() -> None:
    """Run the tour."""
    policy = RestartPolicy(max_restarts=3, period_s=60)
    async with open_supervisor("example", policy=policy) as supervisor:
        counter = await supervisor.start_child(ChildSpec("counter", WordCounter))

        print("words:", await counter.ask(CountWords("the cat and the dog and the bird")))
        async with counter.stream(TopWords()) as top:
            async for word, count in top:
                print(f"  {word}: {count}")

        try:
            await counter.ask(CountWords(""))
        except InvalidRequest as exc:
            print("answered with an error:", exc)

        try:
            await counter.ask(Break())
        except ActorStopped as exc:
            print("told about the crash:", exc)
        await counter.ask(CountWords("afresh"), wait_for_restart=True)
        print("and it is back, with a new state")

        # The same class in another process, behind the same kind of address.
        factory = process_actor(f"{Path(__file__).stem}:WordCounter")
        apart = await supervisor.start_child(ChildSpec("apart", factory))
        print("words:", await apart.ask(CountWords("one two three")))
        print("in its own process:", await apart.ask(Where()) != os.getpid())
        print(supervisor.tree())


if __name__ == "__main__":
    import logging

    logging.disable()  # the crash above is on purpose
    # The child imports this file by its name; a message class of `__main__` would be another one than the child's.
    import actors_alone

    trio.run(actors_alone.main)
