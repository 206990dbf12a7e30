"""What every route has around it: the call, its scope, and its errors turned into answers."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, cast

from quart import Quart, Response, request

from olm.api.errors import SHUTTING_DOWN, dialect_of, error_body, error_headers, expected_error
from olm.api.gate import CALL_KEY, Call
from olm.errors import OlmError, ShuttingDown

__all__ = ["Handler", "add", "empty", "json_reply", "pattern"]

Handler = Callable[..., Awaitable[Response]]
"""Takes the call and the path's variables."""

JSON_TYPE = "application/json; charset=utf-8"

_VARIABLE: Final = re.compile(r"<(?:\w+:)?(\w+)>")


def add(app: Quart, methods: Iterable[str], path: str, handler: Handler) -> None:
    """Register a route. Its name is its path, so that no two can collide."""
    app.add_url_rule(
        path,
        endpoint=f"{' '.join(methods)} {path}",
        view_func=_endpoint(pattern(path), handler),
        methods=list(methods),
        provide_automatic_options=False,
    )


def pattern(path: str) -> str:
    """Write a rule's path as OpenAPI does: `/v1/models/{model}` for `/v1/models/<path:model>`."""
    return _VARIABLE.sub(r"{\1}", path)


def json_reply(body: bytes, status: int = 200) -> Response:
    """A whole JSON answer."""
    return Response(body, status, content_type=JSON_TYPE)


def empty(status: int = 200) -> Response:
    """An answer without a body or a type, as Go writes it."""
    response = Response(b"", status)
    response.headers.pop("content-type", None)
    return response


def _endpoint(route: str, handler: Handler) -> Callable[..., Awaitable[Response]]:
    async def view(**variables: str) -> Response:
        # Put there by `asgi.Api` before Quart is called; Quart has no typed place for it.
        call = cast("Call", cast("dict[str, object]", request.scope)[CALL_KEY])
        call.route = route
        response: Response | None = None
        with call.working() as scope:
            try:
                response = await handler(call, **variables)
            except Exception as exc:
                # The edge of the route: groups must not reach Quart, which would pick a member at random.
                response = _error(call, await expected_error(exc, request_id=call.id))
        if scope.cancelled_caught or response is None:
            response = _error(call, ShuttingDown(SHUTTING_DOWN))
        return response

    return view


def _error(call: Call, error: OlmError) -> Response:
    body = error_body(error, dialect_of(call.path), call.id)
    return Response(body, error.http_status, dict(error_headers(error)))
