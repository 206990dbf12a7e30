"""`/v1/rerank` and `/api/rerank`: one route under the two names that clients use."""

from __future__ import annotations

import secrets

import attrs
from quart import Quart, Response

from olm.actors.client import Olm
from olm.api import schemas_responses as wire
from olm.api.body import decode
from olm.api.dialects.rerank import rerank_json, rerank_request
from olm.api.gate import Call
from olm.api.routes.endpoint import add, json_reply

__all__ = ["register"]


def register(app: Quart, olm: Olm) -> None:
    """Add these routes to the application."""
    routes = _Routes(olm)
    for path in ("/v1/rerank", "/api/rerank"):
        add(app, ("POST",), path, routes.rerank)


@attrs.frozen
class _Routes:
    olm: Olm

    async def rerank(self, call: Call) -> Response:
        request = decode(call.take_body(), wire.RerankRequest)
        ranking = rerank_request(request)
        result = await self.olm.models.rerank(ranking.request)
        answer_id = f"rerank-{secrets.token_hex(12)}"
        return json_reply(rerank_json(ranking, result, request.model or "", answer_id))
