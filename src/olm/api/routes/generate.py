"""`/api/generate` and `/api/chat`: turns, streamed or whole; requests that only load, unload or render a prompt."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from functools import partial

import attrs
from quart import Quart, Response

from olm.actors.client import Olm, Turn
from olm.api import schemas as wire
from olm.api.body import decode
from olm.api.dialects.ollama import (
    LoadModel,
    UnloadModel,
    chat_request,
    generate_request,
)
from olm.api.dialects.ollama_events import ChatForm, GenerateForm
from olm.api.gate import Call
from olm.api.routes.endpoint import add, json_reply
from olm.api.streaming import StreamResponse, turn_lines, whole_turn

__all__ = ["register"]

Form = ChatForm | GenerateForm


def register(app: Quart, olm: Olm) -> None:
    """Add these routes to the application."""
    routes = _Routes(olm)
    add(app, ("POST",), "/api/generate", routes.generate)
    add(app, ("POST",), "/api/chat", routes.chat)


@attrs.frozen
class _Routes:
    olm: Olm

    async def generate(self, call: Call) -> Response:
        request = decode(call.take_body(), wire.GenerateRequest)
        wanted = generate_request(request)
        form = GenerateForm(request.model or "")
        if isinstance(wanted, LoadModel | UnloadModel):
            return await self._without_turn(wanted, form)
        if request.debug_render_only:
            return json_reply(form.rendered(await self.olm.models.render(wanted)))
        turn = self.olm.models.generate(wanted)
        return await _answer(call, turn, form, stream=request.stream is not False)

    async def chat(self, call: Call) -> Response:
        request = decode(call.take_body(), wire.ChatRequest)
        wanted = chat_request(request)
        if isinstance(wanted, LoadModel | UnloadModel):
            return await self._without_turn(wanted, ChatForm(request.model or ""))
        form = ChatForm(request.model or "", has_tools=bool(wanted.tools_json))
        if request.debug_render_only:
            return json_reply(form.rendered(await self.olm.models.render(wanted)))
        turn = self.olm.models.chat(wanted)
        return await _answer(call, turn, form, stream=request.stream is not False)

    async def _without_turn(self, wanted: LoadModel | UnloadModel, form: Form) -> Response:
        if isinstance(wanted, UnloadModel):
            await self.olm.models.unload(wanted.model)
            return json_reply(form.without_turn("unload"))
        await self.olm.models.load(
            wanted.model,
            options=wanted.options,
            keep_alive_s=wanted.keep_alive_s,
            think=wanted.think,
        )
        return json_reply(form.without_turn("load"))


async def _answer(
    call: Call, turn: AbstractAsyncContextManager[Turn], form: Form, *, stream: bool
) -> Response:
    if stream:
        return StreamResponse(call, partial(turn_lines, turn, form, call))
    async with turn as running:
        events = await whole_turn(running)
        body = form.whole(events, load_ns=running.load_ns, total_ns=call.elapsed_ns)
    return json_reply(body)
