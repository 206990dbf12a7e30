"""Text without generation: `/tokenize`, `/detokenize` and `/apply-template` as llama-server has them, the first two also
as `/api/tokenize` and `/api/detokenize`, which Ollama's users ask for (ollama issues 3582 and 12031)."""

from __future__ import annotations

import attrs
import msgspec
from quart import Quart, Response

from olm.actors.client import Olm
from olm.api import schemas_openai
from olm.api import schemas_text as wire
from olm.api.body import decode
from olm.api.dialects.openai_chat import chat_requests
from olm.api.dialects.openai_common import model_name
from olm.api.dialects.text import content_parts, only_model, piece
from olm.api.encoding import to_json
from olm.api.gate import Call
from olm.api.routes.endpoint import add, json_reply
from olm.errors import InvalidRequest

__all__ = ["register"]


def register(app: Quart, olm: Olm) -> None:
    """Add these routes to the application."""
    routes = _Routes(olm)
    for path in ("/tokenize", "/api/tokenize"):
        add(app, ("POST",), path, routes.tokenize)
    for path in ("/detokenize", "/api/detokenize"):
        add(app, ("POST",), path, routes.detokenize)
    for path in ("/apply-template", "/api/apply-template"):
        add(app, ("POST",), path, routes.apply_template)


@attrs.frozen
class _Routes:
    olm: Olm

    async def tokenize(self, call: Call) -> Response:
        request = decode(call.take_body(), wire.TokenizeRequest)
        parts = content_parts(request.content)
        model = await self._model(request.model)
        tokens: list[int] = []
        for at, part in enumerate(parts):
            if isinstance(part, int):
                tokens.append(part)
                continue
            tokens += await self.olm.models.tokenize(
                model,
                part,
                add_special=bool(request.add_special) and at == 0,
                parse_special=request.parse_special is not False,
            )
        if not request.with_pieces:
            return json_reply(to_json(wire.TokenizeResponse(tokens)))
        pieces = await self.olm.models.pieces(model, tokens)
        return json_reply(to_json(wire.TokenizeResponse(list(map(piece, tokens, pieces)))))

    async def detokenize(self, call: Call) -> Response:
        request = decode(call.take_body(), wire.DetokenizeRequest)
        if request.tokens is None:
            raise InvalidRequest("tokens is required")
        model = await self._model(request.model)
        content = await self.olm.models.detokenize(model, request.tokens)
        return json_reply(to_json(wire.DetokenizeResponse(content)))

    async def apply_template(self, call: Call) -> Response:
        request = decode(call.take_body(), schemas_openai.ChatCompletionRequest)
        request = msgspec.structs.replace(request, model=await self._model(request.model))
        # All of it, as llama-server writes it, also when it is longer than the context.
        wanted = attrs.evolve(chat_requests(request)[0], truncate=False)
        rendered = await self.olm.models.render(wanted)
        return json_reply(to_json(wire.PromptResponse(rendered.text)))

    async def _model(self, given: str | None) -> str:
        if given:
            return model_name(given)
        return only_model(await self.olm.models.ps())
