"""`/api/openapi.json` and `/api/docs`: the API's description, and a page to browse and try it without the internet."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from functools import partial
from importlib import resources
from typing import Final

import attrs
import trio
from quart import Quart, Response

from olm.api.encoding import to_json
from olm.api.gate import Call
from olm.api.routes.endpoint import add, json_reply, pattern

__all__ = ["register", "registered"]

_INLINE: Final = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)


def register(app: Quart) -> None:
    """Add these routes to the application."""
    routes = _Routes(app)
    add(app, ("GET",), "/api/openapi.json", routes.document)
    add(app, ("GET",), "/api/docs", routes.page)


def registered(app: Quart) -> Iterator[str]:
    """List the routes of an application, `METHOD /path/{variable}`."""
    for rule in app.url_map.iter_rules():
        for method in rule.methods or ():
            yield f"{method} {pattern(rule.rule)}"


@attrs.define
class _Routes:
    """`_document` is made at the first request, which takes 25 ms: routes do not change."""

    app: Quart
    _document: bytes = b""
    _limiter: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))

    async def document(self, _call: Call) -> Response:
        if not self._document:
            make = partial(_document, list(registered(self.app)))
            self._document = await trio.to_thread.run_sync(make, limiter=self._limiter)
        return json_reply(self._document)

    async def page(self, _call: Call) -> Response:
        page, policy = await trio.to_thread.run_sync(_page, limiter=self._limiter)
        headers = {
            "content-security-policy": policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
        }
        return Response(page, headers=headers, content_type="text/html; charset=utf-8")


def _document(routes: Iterable[str]) -> bytes:
    # Local: the table and its structs take 200 KiB, for daemons whose description is asked for.
    from olm.api.openapi import openapi_document

    return to_json(openapi_document(routes))


def _page() -> tuple[bytes, str]:
    """The page, and the policy that lets its own script and style run, and nothing that somebody got into it."""
    page = resources.files("olm.data").joinpath("docs.html").read_bytes()
    hashes = {
        kind.decode(): base64.b64encode(hashlib.sha256(text).digest()).decode()
        for kind, text in _INLINE.findall(page)
    }
    sources = " ".join(f"{kind}-src 'sha256-{value}';" for kind, value in sorted(hashes.items()))
    rest = "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return page, f"default-src 'none'; {sources} {rest}"
