"""`/v1/embeddings`."""

from __future__ import annotations

import attrs
import trio
from quart import Quart, Response

from olm.actors.client import Olm
from olm.api import schemas_responses as wire
from olm.api.body import decode
from olm.api.dialects.openai_embeddings import (
    embed_request,
    embeddings_json,
    encoding_format,
    vector_json,
)
from olm.api.gate import Call
from olm.api.routes.endpoint import add, json_reply

__all__ = ["register"]


def register(app: Quart, olm: Olm) -> None:
    """Add this route to the application."""
    add(app, ("POST",), "/v1/embeddings", _Routes(olm).embeddings)


@attrs.frozen
class _Routes:
    olm: Olm

    async def embeddings(self, call: Call) -> Response:
        request = decode(call.take_body(), wire.EmbeddingsRequest)
        encoding = encoding_format(request.encoding_format)
        result = await self.olm.models.embed(embed_request(request))
        vectors: list[bytes] = []
        for vector in result.vectors:
            await trio.lowlevel.checkpoint()  # a row of 4096 numbers takes 2 ms
            vectors.append(vector_json(vector, encoding))
        return json_reply(embeddings_json(vectors, request.model or "", result.n_tokens))
