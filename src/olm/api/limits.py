"""How many connections there may be, in all and of one client. Pure counting; `connection` turns clients away."""

from __future__ import annotations

import ipaddress
import resource
from collections import Counter
from typing import Final

from olm.api.auth import is_this_machine
from olm.config import Settings

__all__ = ["Crowd", "client_of", "crowd_of"]

RESERVED_FILES: Final = 256
"""Descriptors kept for everything but connections: workers' pipes, the store, uploads, the log."""
MIN_CONNECTIONS: Final = 64
_IPV6_PREFIX: Final = 64
"""What one customer of a provider has at least: counting single addresses there would count nothing."""


class Crowd:
    """Counts the connections of one server.

    Args:
        max_all: connections at once.
        max_each: connections at once of one client elsewhere. This machine's are not held to it: they may belong to a
            proxy, which speaks for many.
    """

    def __init__(self, max_all: int, max_each: int) -> None:
        self._max_all = max_all
        self._max_each = max_each
        self._n_all = 0
        self._n_each: Counter[str] = Counter()

    def enter(self, peer: str) -> bool:
        """Count a connection in, unless there is no room; `peer` as `auth.peer_name` writes it."""
        client = client_of(peer)
        if self._n_all >= self._max_all:
            return False
        if not is_this_machine(peer) and self._n_each[client] >= self._max_each:
            return False
        self._n_all += 1
        self._n_each[client] += 1
        return True

    def leave(self, peer: str) -> None:
        """Count out a connection that `enter` let in."""
        client = client_of(peer)
        self._n_all -= 1
        self._n_each[client] -= 1
        if not self._n_each[client]:
            del self._n_each[client]


def client_of(peer: str) -> str:
    """Tell which connections belong together: those of one IPv4 address, or of one IPv6 network of 64 bits."""
    if ":" not in peer:
        return peer
    address, _, _zone = peer.partition("%")
    return str(ipaddress.IPv6Network((address, _IPV6_PREFIX), strict=False))


def crowd_of(settings: Settings) -> Crowd:
    """Make the counter that the settings ask for, within what the limit of open files allows."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = max(MIN_CONNECTIONS, soft - RESERVED_FILES)
    max_all = (
        settings.max_connections
        if soft == resource.RLIM_INFINITY
        else min(room, settings.max_connections)
    )
    return Crowd(max_all, settings.max_connections_per_client)
