"""The loop of an actor: take a message out of the mailbox, run its handler, give the outcome to the caller.

Where the loop begins and what happens after it ends is `_life`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import checkpoint, enable_ki_protection

from olm.actors.runtime._calls import Call, Reply, expected_error
from olm.actors.runtime._exits import Crashed, stopped_error
from olm.actors.runtime._messages import Handler, Mode
from olm.actors.runtime._streams import Stream

if TYPE_CHECKING:
    from olm.actors.runtime._actor import Actor
    from olm.actors.runtime._address import Address

__all__ = ["serve"]

_log = logging.getLogger("olm.actors")

# Messages handled before the loop lets other tasks run. 256 short handlers take about 0.1 ms; yielding at each
# message would make a `tell` ten times as dear.
_BATCH: Final = 256


@enable_ki_protection
async def serve(address: Address, actor: Actor) -> None:
    """Handle messages until the address is closed. Raises whatever crashes the actor."""
    queue = address.queue
    table = address.table
    on_taken = address.on_taken
    sync = Mode.SYNC
    while address.ending is None:
        budget = _BATCH
        while queue:
            entry = queue.popleft()
            if address.has_overflow:
                address.refill()
            if on_taken is not None:
                on_taken()
            handler = table.get(entry.__class__)
            if handler is None:
                # An envelope. Its class is in no table, and its message was checked by the sender.
                await _open_envelope(address, actor, entry)  # type: ignore[arg-type] # see above
            elif handler[1] is sync:
                try:
                    handler[0](actor, entry)
                except Exception as exc:
                    _note_refused(address, entry, exc)
            else:
                await _told(address, actor, entry, handler)
            budget -= 1
            if not budget:
                budget = _BATCH
                await checkpoint()
        if address.on_idle is not None:
            address.on_idle()
        if address.ending is None:
            await address.wait_mail()


async def _open_envelope(address: Address, actor: Actor, entry: Call | Stream[object]) -> None:
    message = entry.message
    if isinstance(entry, Stream):
        handler = address.stream_table[message.__class__]
        address.adopt(entry)
        actor.nursery.start_soon(
            _produce, address, actor, entry, handler, name=f"{actor.name} stream"
        )
        return
    handler = address.table[message.__class__]
    function, mode = handler
    try:
        if mode is Mode.SYNC:
            value = function(actor, message)
        elif mode is Mode.ASYNC:
            # The table holds a coroutine function under this mode.
            value = await function(actor, message)  # type: ignore[misc]
        else:
            await _defer(address, actor, entry, handler)
            return
    except Exception as exc:
        error = expected_error(exc)
        if error is None:
            entry.fail(stopped_error(address.name, Crashed(exc)))
            raise
        entry.fail(error)
    except BaseException:
        # Cancelled: by the stop ladder, or by a crash in the nursery whose cause is known only after it closed.
        address.defer(entry)
        raise
    else:
        entry.answer(value)


async def _defer(address: Address, actor: Actor, call: Call, handler: Handler) -> None:
    function, mode = handler
    reply = Reply[object](call)
    address.defer(call)
    outcome = function(actor, call.message, reply)
    if mode is Mode.ASYNC_DEFERRED:
        await outcome  # type: ignore[misc] # the table holds a coroutine function under this mode


async def _told(address: Address, actor: Actor, message: object, handler: Handler) -> None:
    """Handle a told message whose handler waits or defers."""
    try:
        if handler.mode is Mode.ASYNC:
            await handler.function(actor, message)  # type: ignore[misc] # a coroutine function under this mode
        else:
            await _defer(address, actor, Call(message, address), handler)
    except Exception as exc:
        _note_refused(address, message, exc)


def _note_refused(address: Address, message: object, exc: Exception) -> None:
    """Count an expected error that nobody waits for; raise anything else on."""
    error = expected_error(exc)
    if error is None:
        raise exc
    address.n_refused += 1
    _log.warning("actor %s refused a told %s: %s", address.name, type(message).__name__, error)


async def _produce(
    address: Address, actor: Actor, stream: Stream[object], handler: Handler
) -> None:
    """Run a stream handler as a task of its own until it returns, fails, or the consumer leaves."""
    with trio.CancelScope() as scope:
        stream.scope = scope
        if stream.ended:
            scope.cancel("the consumer left")
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            await handler.function(actor, stream.message, stream.make_sink())  # type: ignore[misc] # a coroutine function
        except Exception as exc:
            error = expected_error(exc)
            if error is None:
                stream.end(stopped_error(address.name, Crashed(exc)))
                raise
            stream.end(error)
        else:
            stream.end()
