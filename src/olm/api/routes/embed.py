"""`/api/embed` and the older `/api/embeddings`."""

from __future__ import annotations

import json
from collections.abc import Sequence

import attrs
import trio
from quart import Quart, Response

from olm.actors.client import EmbedRequest, EmbedResult, Olm
from olm.api import schemas as wire
from olm.api.body import decode
from olm.api.dialects.ollama import LoadModel, embed_request, embedding_request
from olm.api.encoding import to_json
from olm.api.floats import float32_row
from olm.api.gate import Call
from olm.api.routes.endpoint import add, json_reply
from olm.errors import ModelNotFound

__all__ = ["register"]


def register(app: Quart, olm: Olm) -> None:
    """Add these routes to the application."""
    routes = _Routes(olm)
    add(app, ("POST",), "/api/embed", routes.embed)
    add(app, ("POST",), "/api/embeddings", routes.embeddings)


@attrs.frozen
class _Routes:
    olm: Olm

    async def embed(self, call: Call) -> Response:
        request = decode(call.take_body(), wire.EmbedRequest)
        name = request.model or ""
        model = to_json(name)
        result = await self._run(embed_request(request), name)
        if result is None:
            return json_reply(b'{"model":' + model + b',"embeddings":[]}')
        rows = [await _row(vector) for vector in result.vectors]
        parts = [b'{"model":', model, b',"embeddings":[', b",".join(rows), b"]"]
        metrics = (
            ("total_duration", call.elapsed_ns()),
            ("load_duration", result.load_ns),
            ("prompt_eval_count", result.n_tokens),
        )
        parts += [f',"{key}":{value}'.encode() for key, value in metrics if value]
        return json_reply(b"".join([*parts, b"}"]))

    async def embeddings(self, call: Call) -> Response:
        request = decode(call.take_body(), wire.EmbeddingRequest)
        result = await self._run(embedding_request(request), request.model or "")
        row = await _row(result.vectors[0]) if result is not None else b"[]"
        return json_reply(b'{"embedding":' + row + b"}")

    async def _run(self, wanted: EmbedRequest | LoadModel, name: str) -> EmbedResult | None:
        try:
            if isinstance(wanted, EmbedRequest):
                return await self.olm.models.embed(wanted)
            await self.olm.models.load(
                wanted.model, options=wanted.options, keep_alive_s=wanted.keep_alive_s
            )
        except ModelNotFound as exc:
            quoted = json.dumps(name, ensure_ascii=False)
            raise ModelNotFound(f"model {quoted} not found, try pulling it first") from exc
        return None


async def _row(vector: Sequence[float]) -> bytes:
    """Encode one vector and let others run: a row of 4096 takes 2 ms."""
    await trio.lowlevel.checkpoint()
    return float32_row(vector)
