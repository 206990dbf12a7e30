"""Routes that need no model: liveness, version, status, and those olm answers with a refusal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from quart import Quart, Response

from olm import __version__
from olm.actors.client import Olm
from olm.api.encoding import to_json
from olm.api.gate import Call
from olm.api.routes.endpoint import Handler, add, json_reply
from olm.api.schemas import VersionResponse
from olm.errors import OlmError

__all__ = ["CONSTANTS", "OLLAMA_VERSION", "register"]

OLLAMA_VERSION: Final = "0.33.0"
"""The Ollama whose behaviour this is. Clients compare it: VS Code refuses less than 0.6.4."""

_CLOUD: Final = (
    ("POST", "/api/me", "account lookup is unavailable"),
    ("POST", "/api/signout", "sign out is unavailable"),
    ("DELETE", "/api/user/keys/<key>", "sign out is unavailable"),
    ("POST", "/api/experimental/web_search", "web search is unavailable"),
    ("POST", "/api/experimental/web_fetch", "web fetch is unavailable"),
)
_STATUS: Final = b'{"cloud":{"disabled":true,"source":"config"}}'
_JSON: Final = b"application/json; charset=utf-8"

# Our own version goes into a header: the body must be Ollama's, because clients compare it.
_SERVER: Final = (b"server", b"olm/" + __version__.encode())

CONSTANTS: Final[Mapping[str, tuple[Sequence[tuple[bytes, bytes]], bytes]]] = {
    "/": ([(b"content-type", b"text/plain; charset=utf-8")], b"Ollama is running"),
    "/api/version": (
        [(b"content-type", _JSON), _SERVER],
        to_json(VersionResponse(version=OLLAMA_VERSION)),
    ),
}
"""Answers to GET and HEAD that `asgi` gives without Quart; the rules here serve the path's other methods."""


def register(app: Quart, _olm: Olm) -> None:
    """Add these routes to the application."""
    for path, (headers, body) in CONSTANTS.items():
        add(app, ("GET", "HEAD"), path, _constant(headers, body))
    add(app, ("GET",), "/api/status", _constant([(b"content-type", _JSON)], _STATUS))
    add(app, ("GET",), "/api/experimental/model-recommendations", _recommendations)
    for method, path, what in _CLOUD:
        add(app, (method,), path, _refusal(OlmError, f"ollama cloud is disabled: {what}", 403))


def _constant(headers: Sequence[tuple[bytes, bytes]], body: bytes) -> Handler:
    fields = {name.decode(): value.decode() for name, value in headers}

    async def handler(_call: Call) -> Response:
        return Response(body, headers=fields)

    return handler


async def _recommendations(_call: Call) -> Response:
    return json_reply(b'{"recommendations":[]}')


def _refusal(kind: type[OlmError], message: str, status: int | None = None) -> Handler:
    async def handler(_call: Call, **_variables: str) -> Response:
        raise kind(message, status=status)

    return handler
