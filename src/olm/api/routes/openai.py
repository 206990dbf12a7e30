"""OpenAI's `/v1/chat/completions`, `/v1/completions` and `/v1/models`."""

from __future__ import annotations

import secrets
import time
from functools import partial
from typing import Final

import attrs
from quart import Quart, Response

from olm.actors.client import Olm
from olm.api import schemas_openai as wire
from olm.api.choices import choice_lines, collect
from olm.api.dialects.openai_chat import chat_requests
from olm.api.dialects.openai_common import decode_body
from olm.api.dialects.openai_completions import CompletionPlan, plan_completions
from olm.api.dialects.openai_completions_events import (
    CompletionForm,
    completion_document,
    completion_rendered,
)
from olm.api.dialects.openai_events import (
    Answering,
    ChatForm,
    Tally,
    chat_document,
    chat_rendered,
)
from olm.api.encoding import to_json
from olm.api.errors import error_body
from olm.api.gate import Call
from olm.api.routes.endpoint import add, json_reply
from olm.api.streaming import StreamResponse, sse
from olm.errors import OlmError
from olm.store.names import ModelName

__all__ = ["register"]


def register(app: Quart, olm: Olm) -> None:
    """Add these routes to the application."""
    routes = _Routes(olm)
    add(app, ("POST",), "/v1/chat/completions", routes.chat)
    add(app, ("POST",), "/v1/completions", routes.completions)
    add(app, ("GET",), "/v1/models", routes.models)
    add(app, ("GET",), "/v1/models/<path:model>", routes.model)


def _error_frame(error: OlmError, request_id: str) -> bytes:
    return b"data: " + error_body(error, "openai", request_id) + b"\n\n"


_SSE: Final = sse(_error_frame, b"data: [DONE]\n\n")


@attrs.frozen
class _Routes:
    olm: Olm

    async def chat(self, call: Call) -> Response:
        request = decode_body(call.take_body(), wire.ChatCompletionRequest)
        wanted = chat_requests(request)
        answer = _answering("chatcmpl", request)
        if request.debug_render_only:
            return json_reply(chat_rendered(answer, await self.olm.models.render(wanted[0])))
        turns = [self.olm.models.chat(one) for one in wanted]
        if not request.stream:
            return json_reply(chat_document(answer, await collect(turns)))
        tally = Tally(len(turns), len(turns)) if _wants_usage(request) else None
        forms = [ChatForm(answer, index, tally) for index in range(len(turns))]
        return StreamResponse(call, partial(choice_lines, turns, forms, call), _SSE)

    async def completions(self, call: Call) -> Response:
        request = decode_body(call.take_body(), wire.CompletionRequest)
        plan = plan_completions(request)
        answer = _answering("cmpl", request)
        if request.debug_render_only:
            prompt = await self.olm.models.render(plan.requests[0])
            return json_reply(completion_rendered(answer, prompt))
        echoes = await self._echoes(plan)
        turns = [self.olm.models.generate(one) for one in plan.requests]
        if not request.stream:
            return json_reply(completion_document(answer, plan, await collect(turns), echoes))
        tally = Tally(len(turns), plan.n_each) if _wants_usage(request) else None
        forms = [
            CompletionForm(answer, index, tally, echoes[index // plan.n_each])
            for index in range(len(turns))
        ]
        return StreamResponse(call, partial(choice_lines, turns, forms, call), _SSE)

    async def _echoes(self, plan: CompletionPlan) -> list[str]:
        """What stands before the answers to each prompt: nothing, or the prompt's text."""
        if not plan.echo:
            return [""] * len(plan.prompts)
        model = plan.requests[0].model
        return [
            prompt if isinstance(prompt, str) else await self.olm.models.detokenize(model, prompt)
            for prompt in plan.prompts
        ]

    async def models(self, _call: Call) -> Response:
        rows = [_model(row.name, row.modified_ns) for row in await self.olm.store.list()]
        return json_reply(to_json(wire.ModelList(object="list", data=rows)))

    async def model(self, _call: Call, model: str) -> Response:
        found = await self.olm.store.get(model)
        return json_reply(to_json(_model(model, found.modified_ns)))


def _answering(prefix: str, request: wire.TurnFields) -> Answering:
    return Answering(
        f"{prefix}-{secrets.token_hex(12)}", (request.model or "").strip(), int(time.time())
    )


def _wants_usage(request: wire.TurnFields) -> bool:
    return request.stream_options is not None and bool(request.stream_options.include_usage)


def _model(name: str, modified_ns: int) -> wire.Model:
    return wire.Model(
        id=name,
        object="model",
        created=modified_ns // 1_000_000_000,
        owned_by=ModelName.parse(name).namespace,
    )
