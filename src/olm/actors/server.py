"""The HTTP server as an actor: last of the tree to start, first to stop, and its stop is the drain.

What is served is `olm.api`'s business. The listening sockets belong to the tree, so that a restart of this actor
refuses nobody and a second daemon on the same port fails before anything else is touched.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio

from olm.actors.client import Olm
from olm.actors.runtime import Actor, Message, handles
from olm.actors.stats import SnapshotSource
from olm.api.app import create_app
from olm.api.limits import crowd_of
from olm.api.serve import serve
from olm.api.sockets import Listeners
from olm.api.tls import certificates_of
from olm.config import Settings
from olm.log import get_logger

__all__ = ["Ping", "Reload", "Server", "ServerConfig"]

_log = get_logger("server")


class Ping(Message[None], frozen=True):
    """Ask for a sign of life."""


class Reload(Message[None], frozen=True):
    """Read the API keys and the certificate again. Bad ones are logged, and those there were stay in use."""


@attrs.frozen
class ServerConfig:
    """What a server is made with; `snapshot` asks the actors for their numbers."""

    olm: Olm
    settings: Settings
    listeners: Listeners
    snapshot: SnapshotSource


class Server(Actor):
    """Serves HTTP while it lives."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._certificates = certificates_of(config.settings)
        self._api = create_app(config.olm, config.settings, config.snapshot)
        self._shutdown = trio.Event()
        self._served = trio.Event()
        self._urls: Sequence[str] = ()

    async def start(self) -> None:
        """Begin to accept connections."""
        await self.nursery.start(self._serve)

    async def stop(self) -> None:
        """Refuse new requests, let running ones finish within the drain timeout, then end the rest with an error."""
        self._shutdown.set()
        await self._served.wait()

    @handles(Ping)
    def ping(self, _: Ping) -> None:
        """See `Ping`."""

    @handles(Reload)
    def reload(self, _: Reload) -> None:
        """See `Reload`. Small local files: it takes a millisecond."""
        self._api.auth.keyring.reload()
        if self._certificates is not None:
            self._certificates.reload()

    async def _serve(self, task_status: trio.TaskStatus[Sequence[str]]) -> None:
        config = self._config
        try:
            await serve(
                self._api,
                config.listeners,
                drain_timeout_s=config.settings.drain_timeout_s,
                shutdown=self._shutdown,
                crowd=crowd_of(config.settings),
                certificates=self._certificates,
                task_status=task_status,
            )
        finally:
            self._served.set()
