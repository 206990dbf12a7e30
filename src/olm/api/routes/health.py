"""`/health`, `/ready` and `/api/props`: whether the daemon lives, whether it can work, what it works with.

Health costs nothing and says only that requests are taken: while the daemon drains, everything is 503 before any route
(`olm.api.asgi`). Readiness asks the actors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import attrs
import msgspec
from quart import Quart, Response

from olm import __version__
from olm.actors.client import Olm
from olm.actors.stats import RunnerStats, SnapshotSource
from olm.actors.watchdog import Ping, silent_actors
from olm.api.encoding import to_json
from olm.api.gate import Call
from olm.api.routes.endpoint import JSON_TYPE, add, json_reply
from olm.api.routes.system import OLLAMA_VERSION
from olm.api.schemas_operations import (
    HealthResponse,
    LoadedProps,
    PropsResponse,
    ReadyResponse,
    ServerDefaults,
)
from olm.chat.types import Sampling
from olm.config import Settings

__all__ = ["CONSTANTS", "register"]

_OK: Final = ((b"content-type", JSON_TYPE.encode()),), to_json(HealthResponse())

CONSTANTS: Final[Mapping[str, tuple[Sequence[tuple[bytes, bytes]], bytes]]] = {
    "/health": _OK,
    "/v1/health": _OK,
}
"""Answers to GET and HEAD that `asgi` gives without Quart, as `system.CONSTANTS`."""

_PATIENCE_S: Final = 2.0
"""Probes of Kubernetes and Docker wait one to thirty seconds; an actor of ours answers in a millisecond."""

_TEMPLATE_CAPS: Final = ("tools", "thinking")


def register(app: Quart, olm: Olm, settings: Settings, snapshot: SnapshotSource | None) -> None:
    """Add these routes to the application."""
    routes = _Routes(olm, settings, snapshot)
    for path in CONSTANTS:
        add(app, ("GET", "HEAD"), path, routes.health)
    add(app, ("GET",), "/ready", routes.ready)
    add(app, ("GET",), "/api/props", routes.props)


@attrs.frozen
class _Routes:
    olm: Olm
    settings: Settings
    snapshot: SnapshotSource | None

    async def health(self, _call: Call) -> Response:
        return json_reply(_OK[1])

    async def ready(self, _call: Call) -> Response:
        pings: Mapping[str, Ping] = {
            "store": partial(self.olm.store.has_blob, "sha256:" + "0" * 64),
            "scheduler": self.olm.models.ps,
        }
        silent = await silent_actors(pings, within_s=_PATIENCE_S)
        status = ReadyResponse(status="unavailable" if silent else "ok", silent=silent)
        return json_reply(to_json(status), 503 if silent else 200)

    async def props(self, _call: Call) -> Response:
        runners = (await self.snapshot()).scheduler.runners if self.snapshot is not None else ()
        return json_reply(to_json(_props(self.settings, runners)))


def _props(settings: Settings, runners: Sequence[RunnerStats]) -> PropsResponse:
    sampling = {field: getattr(Sampling(), field) for field in Sampling.__struct_fields__}
    keep_alive_s = settings.keep_alive_s
    return PropsResponse(
        build_info=f"olm {__version__}",
        ollama_version=OLLAMA_VERSION,
        default_generation_settings=msgspec.to_builtins(sampling),
        defaults=ServerDefaults(
            num_ctx=settings.context_length,
            num_parallel=settings.num_parallel,
            keep_alive_s=keep_alive_s if math.isfinite(keep_alive_s) else -1,
            max_loaded_models=settings.max_loaded_models,
            max_queue=settings.max_queue,
        ),
        total_slots=sum(runner.info.n_parallel for runner in runners),
        models=[_loaded(runner) for runner in runners],
    )


def _loaded(runner: RunnerStats) -> LoadedProps:
    model, info = runner.model, runner.info
    return LoadedProps(
        name=model.name,
        digest=model.digest,
        n_ctx=info.n_ctx,
        n_ctx_train=info.n_ctx_train,
        total_slots=info.n_parallel,
        slots_busy=runner.n_active,
        size=model.size_bytes,
        size_vram=model.vram_bytes,
        embedding=info.embedding,
        chat_template_caps={cap: cap in info.template_caps for cap in _TEMPLATE_CAPS},
        cpu_variant=info.cpu_variant,
    )
