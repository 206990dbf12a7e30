"""Who asks, for the queue, and where they stood in it, for them: the seam between requests and the models' fair queue.

The order itself is `olm.actors.queue`'s. Turns of every dialect pass `olm.api.metrics_models`, which calls this.
"""

from __future__ import annotations

from typing import Final, TypeVar

import attrs

from olm.actors.client import (
    ChatRequest,
    EmbedRequest,
    GenerateRequest,
    RerankRequest,
    Turn,
)
from olm.api.gate import current_call
from olm.api.limits import client_of

__all__ = ["POSITION_HEADER", "asked", "asking_client", "note_wait", "queue_client"]

R = TypeVar("R", bound=ChatRequest | GenerateRequest | EmbedRequest | RerankRequest)

POSITION_HEADER: Final = "x-olm-queue-position"
_WAIT_HEADER: Final = "x-olm-queue-ms"


def queue_client(name: str) -> str:
    """Tell which client somebody is: as named by their key or address, IPv6 by its network."""
    try:
        return client_of(name)
    except ValueError:
        return name  # a key's name may have colons too


def asking_client() -> str:
    """Tell who made the request that this task works for; empty outside of any."""
    call = current_call()
    return queue_client(call.client) if call is not None else ""


def asked(request: R) -> R:
    """Put the client into a request."""
    return attrs.evolve(request, client=asking_client())


def note_wait(turn: Turn) -> None:
    """Tell in the answer's headers that the turn had to wait: its place when it came, and for how long in all."""
    call = current_call()
    if call is None or not turn.queue_position:
        return
    if any(name == POSITION_HEADER.encode() for name, _ in call.headers):
        return  # of several answers to one request the first tells
    call.headers.append((POSITION_HEADER.encode(), str(turn.queue_position).encode()))
    call.headers.append((_WAIT_HEADER.encode(), str(turn.load_ns // 1_000_000).encode()))
