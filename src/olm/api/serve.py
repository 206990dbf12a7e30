"""Serving: accept, hand over to connections, and stop in order: refuse, drain, abort, close.

Actors stay outside: `serve` is one task of somebody else's nursery and owns nothing but sockets in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config

from olm.api.asgi import MAX_HEAD_BYTES, Api
from olm.api.connection import Connections
from olm.api.limits import Crowd
from olm.api.sockets import Listeners
from olm.api.tls import Certificates
from olm.log import get_logger

__all__ = ["make_config", "serve"]

KEEP_ALIVE_S: Final = 300.0
"""Ollama keeps idle connections for ever; five minutes outlive the pools of the usual clients."""
ABORT_GRACE_S: Final = 2.0
"""For aborted requests to write their error."""
CLOSE_GRACE_S: Final = 1.0
"""For sockets to say goodbye before they are closed under whoever still writes."""

_log = get_logger("http")


async def serve(
    api: Api,
    listeners: Listeners,
    *,
    drain_timeout_s: float,
    shutdown: trio.Event,
    crowd: Crowd | None = None,
    certificates: Certificates | None = None,
    task_status: trio.TaskStatus[Sequence[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `shutdown` is set and everything has been drained, then return.

    After `shutdown`: new requests get 503 with Retry-After, also on new connections (inherited sockets are instead
    left to our successor, whose accept queue they are). Requests in flight have `drain_timeout_s`; then their work is
    cancelled and each writes its error; then every socket is closed.

    Args:
        listeners: from `sockets.open_listeners`; they stay open until the caller closes them.
        crowd, certificates: see `Connections`.
        task_status: started with the URLs once connections are accepted.

    Cancellation closes every connection at once.
    """
    connections = Connections(
        ASGIWrapper(api), make_config(), crowd=crowd, certificates=certificates
    )
    accept_scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_close_on_cancel, connections)
        async with trio.open_nursery() as acceptors:
            acceptors.start_soon(_accept, connections, listeners, nursery, accept_scope)
            _warn_if_open(api, listeners)
            task_status.started(listeners.urls)
            await shutdown.wait()
            await _drain(api, connections, listeners, accept_scope, drain_timeout_s)
            accept_scope.cancel("drained")
        await connections.close_idle()
        with trio.move_on_after(CLOSE_GRACE_S):
            await connections.wait_none_open()
        connections.close_all()
        nursery.cancel_scope.cancel("server stopped")


def _warn_if_open(api: Api, listeners: Listeners) -> None:
    if listeners.is_exposed and api.auth.is_open:
        _log.warning(
            "%s is open to everybody who reaches it: there are no API keys (see 'olm keys add')",
            ", ".join(listeners.urls),
        )


async def _accept(
    connections: Connections, listeners: Listeners, nursery: trio.Nursery, scope: trio.CancelScope
) -> None:
    with scope:
        await trio.serve_listeners(
            connections.handle,
            [
                # The listener closes its socket when it ends; the caller owns the original.
                trio.SocketListener(trio.socket.from_stdlib_socket(sock.dup()))
                for sock in listeners.sockets
            ],
            handler_nursery=nursery,
        )


async def _drain(
    api: Api,
    connections: Connections,
    listeners: Listeners,
    accept_scope: trio.CancelScope,
    drain_timeout_s: float,
) -> None:
    api.gate.drain()
    if listeners.inherited:
        accept_scope.cancel("handed back to the service manager")
    _log.info("draining: requests=%d connections=%d", api.gate.n_in_flight, connections.n_open)
    with trio.move_on_after(drain_timeout_s):
        await api.gate.wait_idle()
        return
    api.gate.abort("drain timeout")
    with trio.move_on_after(ABORT_GRACE_S):
        await api.gate.wait_idle()


async def _close_on_cancel(connections: Connections) -> None:
    """Close the sockets when the server is cancelled: hypercorn shields writes, and would wait for dead clients."""
    try:
        await trio.sleep_forever()
    finally:
        connections.close_all()


def make_config() -> Config:
    """The configuration of hypercorn: limits, quiet headers, our log."""
    config = Config()
    config.errorlog = _log
    config.accesslog = None
    config.include_server_header = False
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.keep_alive_max_requests = 1 << 62
    config.h11_max_incomplete_size = MAX_HEAD_BYTES
    return config
