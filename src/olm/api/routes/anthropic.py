"""Anthropic's Messages API: `/v1/messages`, streamed or whole, and `/v1/messages/count_tokens`.

`?beta=true`, which newer clients add, changes nothing here; neither do the headers `anthropic-version` and
`anthropic-beta`. Keys (`x-api-key`) are the outer rules' business.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import attrs
from quart import Quart, Response

from olm.actors.client import ChatRequest, Olm
from olm.api import schemas_anthropic as wire
from olm.api.body import decode
from olm.api.choices import collect
from olm.api.dialects.anthropic import (
    count_request,
    estimated_tokens,
    messages_request,
    without_thinking,
)
from olm.api.dialects.anthropic_events import PING, MessageForm, count_json, error_event
from olm.api.gate import Call
from olm.api.heartbeat import open_beating
from olm.api.routes.endpoint import add, json_reply
from olm.api.streaming import StreamResponse, sse

__all__ = ["register"]

_EVENTS: Final = sse(error_event)


def register(app: Quart, olm: Olm) -> None:
    """Add these routes to the application."""
    routes = _Routes(olm)
    add(app, ("POST",), "/v1/messages", routes.messages)
    add(app, ("POST",), "/v1/messages/count_tokens", routes.count_tokens)


@attrs.frozen
class _Routes:
    olm: Olm

    async def messages(self, call: Call) -> Response:
        _tell_id(call)
        request = decode(call.take_body(), wire.MessagesRequest)
        wanted = await self._thinkable(messages_request(request))
        form = MessageForm(
            request.model or "",
            stops=request.stop_sequences or (),
            n_input=estimated_tokens(wanted),
        )
        turn = self.olm.models.chat(wanted)
        if request.stream:
            work = partial(open_beating, turn, start=form.start, write=form.event, beat=PING)
            return StreamResponse(call, work, _EVENTS)
        return json_reply(form.whole((await collect([turn]))[0]))

    async def count_tokens(self, call: Call) -> Response:
        _tell_id(call)
        request = decode(call.take_body(), wire.CountRequest)
        wanted = await self._thinkable(count_request(request))
        return json_reply(count_json(await self.olm.models.count_tokens(wanted)))

    async def _thinkable(self, wanted: ChatRequest) -> ChatRequest:
        """Without thinking where the model has none; only a request that wants it costs a look at the store."""
        if not wanted.think:
            return wanted
        model = await self.olm.store.get(wanted.model)
        return wanted if "thinking" in model.capabilities else without_thinking(wanted)


def _tell_id(call: Call) -> None:
    """Anthropic's clients look for the request's id under this name."""
    call.headers.append((b"request-id", call.id.encode("ascii")))
