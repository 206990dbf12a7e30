"""The application: Quart with its web-form defaults off, Ollama's routes on it, the outer rules around it.

The traps of the stack are cured here and in `asgi`, `streaming`, `connection` and `serve`, each once. No route logic.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, cast

import attrs
from hypercorn.typing import ASGISendCallable
from quart import Response as QuartResponse
from quart import current_app, request
from quart.routing import QuartMap, QuartRule
from quart.typing import ResponseTypes
from quart.wrappers.base import BaseRequestWebsocket
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import MapAdapter

from olm.actors.client import Olm
from olm.actors.stats import SnapshotSource
from olm.api.access import log_access
from olm.api.asgi import Api, AsgiApp
from olm.api.auth import Authorizer
from olm.api.errors import dialect_of, error_body
from olm.api.guards import Guard, is_loopback
from olm.api.metrics import Metrics
from olm.api.metrics_jobs import MeteredJobs
from olm.api.metrics_models import MeteredModels
from olm.api.routes import (
    anthropic,
    archive,
    audio,
    check,
    embed,
    generate,
    health,
    imatrix,
    jobs,
    metrics,
    models,
    openai,
    openai_embeddings,
    openapi,
    queue,
    rerank,
    responses,
    system,
    text,
)
from olm.api.streaming import StreamResponse
from olm.config import Settings
from olm.errors import OlmError

__all__ = ["create_app"]

_TEXT: Final = "text/plain"


class _Rule(QuartRule):
    """A rule that answers HEAD only when asked to: Ollama serves it on four paths (spec §1.1)."""

    def __init__(self, string: str, *, methods: Iterable[str], endpoint: str) -> None:
        wanted = frozenset(methods)
        super().__init__(string, methods=wanted, endpoint=endpoint)
        self.methods = set(wanted)


class _Map(QuartMap):
    """Routes by path alone. Quart would put the Host through IDNA first, which a hostile one makes fail."""

    def bind_to_request(
        self, request: BaseRequestWebsocket, subdomain: str | None, server_name: str | None
    ) -> MapAdapter:
        query = request.query_string.decode("latin1")
        return self.bind("localhost", None, None, "http", request.method, request.path, query)


class _Connection(TrioASGIHTTPConnection):
    """One exchange; a stream writes itself in the request's task (see `streaming`)."""

    async def _send_response(self, send: ASGISendCallable, response: ResponseTypes) -> None:
        if isinstance(response, StreamResponse):
            await response.run(send)
        else:
            await super()._send_response(send, response)


class _Quart(QuartTrio):
    asgi_http_class = _Connection
    url_rule_class = _Rule  # type: ignore[assignment]  # `add` gives it nothing but methods and endpoint
    url_map_class = _Map


def create_app(olm: Olm, settings: Settings, snapshot: SnapshotSource | None = None) -> Api:
    """Build the ASGI application of one server.

    Args:
        olm: the clients that do the work.
        settings: `address` decides about the Host check, `origins` are further CORS origins, `api_keys` may name keys.
        snapshot: what the actors have counted, for `/metrics` and `/api/props`; None leaves it out of them.
    """
    constants = {**system.CONSTANTS, **health.CONSTANTS}
    counted = Metrics(constants)
    olm = attrs.evolve(
        olm, models=MeteredModels(olm.models, counted), jobs=MeteredJobs(olm.jobs, counted)
    )
    quart = _Quart("olm.api", static_folder=None)
    # Web-form defaults would cut streams after 60 s and refuse images over 16 MiB; our limits are in `body`.
    quart.config["RESPONSE_TIMEOUT"] = None
    quart.config["BODY_TIMEOUT"] = None
    quart.config["MAX_CONTENT_LENGTH"] = None
    quart.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    quart.url_map.merge_slashes = False
    quart.url_map.redirect_defaults = False
    for group in (
        system,
        models,
        queue,
        generate,
        embed,
        jobs,
        archive,
        check,
        imatrix,
        openai,
        openai_embeddings,
        responses,
        rerank,
        audio,
        anthropic,
        text,
    ):
        group.register(quart, olm)
    quart.register_error_handler(HTTPException, _http_error)
    guard = Guard(settings.origins, check_host=is_loopback(settings.address))
    auth = Authorizer.from_settings(settings, guard.names_us)
    api = Api(olm, cast("AsgiApp", quart), guard, auth, constants)
    api.gate.watch(log_access)
    api.gate.watch(counted.ended)
    metrics.register(quart, counted, api.gate, snapshot)
    health.register(quart, olm, settings, snapshot)
    openapi.register(quart)
    return api


async def _http_error(error: HTTPException) -> QuartResponse:
    """Answer what no route handled, as gin does: 404 and 405 in plain text, slashes at the end redirected."""
    if isinstance(error, NotFound):
        return _redirect_slash() or _plain("404 page not found", 404)
    if isinstance(error, MethodNotAllowed):
        allow = ", ".join(sorted(error.valid_methods or ()))
        return _plain("405 method not allowed", 405, {"allow": allow})
    failure = OlmError(error.description or "bad request", status=error.code or 500)
    body = error_body(failure, dialect_of(request.path))
    return QuartResponse(body, failure.http_status, content_type="application/json; charset=utf-8")


def _redirect_slash() -> QuartResponse | None:
    """gin's RedirectTrailingSlash: 301 for GET, 307 for the rest, when the path without the slash exists."""
    path = request.path
    if path == "/" or not path.endswith("/"):
        return None
    if not current_app.url_map.bind("localhost").allowed_methods(path[:-1]):
        return None
    query = request.query_string.decode("latin1")
    target = path[:-1] + (f"?{query}" if query else "")
    return _plain("", 301 if request.method == "GET" else 307, {"location": target})


def _plain(text: str, status: int, headers: dict[str, str] | None = None) -> QuartResponse:
    return QuartResponse(text, status, headers or {}, content_type=_TEXT)
