"""`/v1/audio/transcriptions`: the form is read and the model looked up; no model that olm runs can hear yet."""

from __future__ import annotations

import attrs
from quart import Quart, Response, request

from olm.actors.client import Olm
from olm.api.dialects.openai_audio import transcription_request
from olm.api.gate import Call
from olm.api.routes.endpoint import add
from olm.errors import NotSupported, NotYetSupported

__all__ = ["register"]


def register(app: Quart, olm: Olm) -> None:
    """Add this route to the application."""
    add(app, ("POST",), "/v1/audio/transcriptions", _Routes(olm).transcriptions)


@attrs.frozen
class _Routes:
    olm: Olm

    async def transcriptions(self, call: Call) -> Response:
        content_type = request.headers.get("content-type", "")
        wanted = transcription_request(call.take_body(), content_type)
        model = await self.olm.store.get(wanted.model)
        if "audio" not in model.capabilities:
            raise NotSupported(f"{model.full_name} does not support audio", param="model")
        raise NotYetSupported(f"transcribing with {model.name}: audio is not supported yet")
