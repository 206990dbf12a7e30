"""`/metrics`: what was counted, for Prometheus."""

from __future__ import annotations

from functools import partial
from typing import Final

import attrs
import trio
from quart import Quart, Response, request

from olm.actors.stats import Snapshot, SnapshotSource
from olm.api.gate import Call, Gate
from olm.api.metrics import Metrics
from olm.api.routes.endpoint import add
from olm.errors import OlmError

__all__ = ["register"]

_PATIENCE_S: Final = 2.0
"""Scrapers give up after ten seconds; a daemon whose scheduler hangs shall still tell the rest."""


def register(app: Quart, metrics: Metrics, gate: Gate, snapshot: SnapshotSource | None) -> None:
    """Add the route to the application."""
    add(app, ("GET",), "/metrics", _Routes(metrics, gate, snapshot).metrics)


@attrs.frozen
class _Routes:
    page: Metrics
    gate: Gate
    snapshot: SnapshotSource | None
    # One scrape at a time is written; it must not take the threads that files are read in.
    limiter: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))

    async def metrics(self, _call: Call) -> Response:
        accept = request.headers.get("accept", "")
        snapshot = await self._take()
        write = partial(
            _write, self.page.copy(), snapshot, n_in_flight=self.gate.n_in_flight, accept=accept
        )
        body, content_type = await trio.to_thread.run_sync(write, limiter=self.limiter)
        return Response(body, content_type=content_type)

    async def _take(self) -> Snapshot | None:
        if self.snapshot is None:
            return None
        with trio.move_on_after(_PATIENCE_S):
            try:
                return await self.snapshot()
            except OlmError:
                pass  # it is being restarted
        return None


def _write(
    metrics: Metrics, snapshot: Snapshot | None, *, n_in_flight: int, accept: str
) -> tuple[bytes, str]:
    # Local: the writer's package costs 13 ms and half a MiB, for daemons that are scraped.
    from olm.api.metrics_text import write_metrics

    return write_metrics(metrics, snapshot, n_in_flight=n_in_flight, accept=accept)
