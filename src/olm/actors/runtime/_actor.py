"""The base class of actors: what a user writes. How one is run is in `_serve` and `_life`."""

from __future__ import annotations

from typing import ClassVar

import trio

from olm.actors.runtime._address import Address
from olm.actors.runtime._exits import Normal
from olm.actors.runtime._messages import Handler, build_tables
from olm.actors.runtime._serve import serve

__all__ = ["Actor"]


class Actor:
    """State of its own, changed only by its handlers, one message at a time.

    Subclass it, decorate methods with `handles` and `streams`, and give the class (or a factory) to a supervisor.
    `address`, `nursery` and `name` are set before `start`; none of them is there yet in `__init__`.
    """

    __slots__ = ("__weakref__", "address", "name", "nursery", "stop_within_s")

    mailbox_size: ClassVar[int] = 64
    """How many messages may wait. Full means MailboxFull for `tell` and waiting for `ask`."""

    handler_table: ClassVar[dict[type, Handler]] = {}
    stream_table: ClassVar[dict[type, Handler]] = {}
    """Both are built from the decorators, and not to be touched."""

    address: Address
    """Its own address, to hand to others or to tell itself something."""
    name: str
    """The path of names in the tree, such as `root/models/scheduler`."""
    nursery: trio.Nursery
    """For work that outlasts a message. A crash in it crashes the actor; it is cancelled after `stop`."""
    stop_within_s: float
    """How long `stop` may take, from the child's spec."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "handler_table" not in vars(cls):
            cls.handler_table, cls.stream_table = build_tables(cls)

    async def start(self) -> None:
        """Prepare. The mailbox is read once this returned; what it raises is raised by `start_child` the first time."""

    async def stop(self) -> None:
        """Clean up, on every end but a failed `start`. Shielded from cancellation, and bounded by `stop_within_s`.

        After an orderly end the nursery still runs and is cancelled afterwards; after a crash it is gone already.
        """

    async def run_mailbox(self) -> None:
        """Handle messages until the address is closed. The runtime's seam: process actors forward them instead."""
        await serve(self.address, self)

    def finish(self) -> None:
        """End normally after the message being handled. Who is queued gets `ActorStopped`."""
        self.address.close(Normal())
