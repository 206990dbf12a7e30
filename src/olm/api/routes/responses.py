"""`/v1/responses`: answers, streamed or whole, that can be continued, read again and forgotten."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

import attrs
from quart import Quart, Response, request

from olm.actors.client import Olm
from olm.api import schemas_responses as wire
from olm.api.choices import collect
from olm.api.dialects.openai_common import decode_body
from olm.api.dialects.openai_responses import Wanted, new_response, responses_request
from olm.api.dialects.openai_responses_events import Finished, ResponseForm
from olm.api.dialects.openai_responses_items import keep_items, page, read_input, read_items
from olm.api.encoding import to_json
from olm.api.gate import Call
from olm.api.heartbeat import open_beating
from olm.api.response_store import Exchange, ResponseStore, Stored
from olm.api.routes.endpoint import add, json_reply
from olm.api.streaming import StreamResponse, sse
from olm.errors import InvalidRequest, NotFound

__all__ = ["register"]

_BEAT: Final = b": waiting\n\n"
"""A comment, which clients of event streams pass over."""


def register(app: Quart, olm: Olm) -> None:
    """Add these routes to the application, with a store of their own."""
    routes = _Routes(olm, ResponseStore())
    one = "/v1/responses/<response_id>"
    add(app, ("POST",), "/v1/responses", routes.create)
    add(app, ("POST",), "/v1/responses/input_tokens", routes.input_tokens)
    add(app, ("GET",), one, routes.read)
    add(app, ("DELETE",), one, routes.delete)
    add(app, ("GET",), f"{one}/input_items", routes.input_items)
    add(app, ("POST",), f"{one}/cancel", routes.cancel)


@attrs.frozen
class _Asked:
    """A request, read: what it wants, its own items, and the conversation that it continues."""

    request: wire.ResponsesRequest
    wanted: Wanted
    items: Sequence[wire.InputItem]
    before: tuple[Exchange, ...]


@attrs.frozen
class _Routes:
    olm: Olm
    store: ResponseStore

    async def create(self, call: Call) -> Response:
        asked = self._read(call)
        form = self._form(asked, _owner(call))
        turn = self.olm.models.chat(asked.wanted.chat)
        if not asked.request.stream:
            return json_reply(form.whole((await collect([turn]))[0]))
        work = partial(open_beating, turn, start=form.start, write=form.line, beat=_BEAT)
        return StreamResponse(call, work, sse(form.failed))

    async def input_tokens(self, call: Call) -> Response:
        asked = self._read(call)
        n_tokens = await self.olm.models.count_tokens(asked.wanted.chat)
        counted = wire.InputTokens(object="response.input_tokens", input_tokens=n_tokens)
        return json_reply(to_json(counted))

    async def read(self, call: Call, response_id: str) -> Response:
        if request.args.get("stream", "").lower() == "true":
            raise InvalidRequest("a response that has ended cannot be streamed", param="stream")
        return json_reply(self._found(call, response_id).json)

    async def delete(self, call: Call, response_id: str) -> Response:
        self._found(call, response_id)
        self.store.remove(_owner(call), response_id)
        return json_reply(to_json(wire.Deleted(id=response_id, object="response", deleted=True)))

    async def input_items(self, call: Call, response_id: str) -> Response:
        found = self._found(call, response_id)
        return json_reply(to_json(page(found.input, request.args)))

    async def cancel(self, call: Call, response_id: str) -> Response:
        self._found(call, response_id)
        raise InvalidRequest("Cannot cancel a synchronous response.")

    def _read(self, call: Call) -> _Asked:
        """Read a request and what it refers to."""
        body = decode_body(call.take_body(), wire.ResponsesRequest)
        owner = _owner(call)
        before = self._continued(owner, body.previous_response_id)
        items = read_input(body.input, partial(self.store.item, owner))
        kept = read_items(before.conversation) if before is not None else []
        wanted = responses_request(body, items, kept)
        return _Asked(body, wanted, items, before.exchanges if before is not None else ())

    def _continued(self, owner: str, response_id: str | None) -> Stored | None:
        if not response_id:
            return None
        found = self.store.get(owner, response_id)
        if found is None:
            raise InvalidRequest(
                f"Previous response with id '{response_id}' not found.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        return found

    def _form(self, asked: _Asked, owner: str) -> ResponseForm:
        """The writer of a new response; it keeps the response when that has ended."""
        new = new_response(
            asked.request,
            asked.wanted.tools.told,
            response_id=_new_id("resp"),
            created_s=_epoch_s(),
        )
        own = keep_items(asked.items, _new_id) if new.store else []

        def finished(end: Finished) -> None:
            if new.store:
                exchange = Exchange(own, end.output)
                self.store.add(owner, Stored(new.id, end.json, (*asked.before, exchange)))

        return ResponseForm(
            new,
            asked.wanted.tools.groups,
            new_id=_new_id,
            epoch_s=_epoch_s,
            finished=finished,
        )

    def _found(self, call: Call, response_id: str) -> Stored:
        found = self.store.get(_owner(call), response_id)
        if found is None:
            raise NotFound(f"Response with id '{response_id}' not found.", param="response_id")
        return found


def _owner(call: Call) -> str:
    """Whose responses a request may see: those of its key, without one those of its address."""
    return call.client


def _new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(24)}"


def _epoch_s() -> int:
    return int(time.time())
