"""`/api/tags`, `show`, `ps`, `copy`, `delete` and the probe of a blob."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

import attrs
from quart import Quart, Response

from olm.actors.client import (
    LoadedModel,
    ModelDetails,
    ModelSummary,
    Olm,
    ShowResult,
)
from olm.api import schemas as wire
from olm.api.blobs import parse_digest
from olm.api.body import decode
from olm.api.dialects.common import local_name
from olm.api.encoding import to_json
from olm.api.gate import Call
from olm.api.routes.endpoint import add, empty, json_reply
from olm.errors import InvalidRequest, NotFound
from olm.units import rfc3339

__all__ = ["register"]

_FOREVER_S: Final = ((1 << 63) - 1) / 1e9
"""How far ahead Ollama puts the end of a model that stays: the longest Go duration, 292 years."""
_COPILOT: Final = "GitHubCopilotChat/"


def register(app: Quart, olm: Olm) -> None:
    """Add these routes to the application."""
    routes = _Routes(olm)
    add(app, ("GET", "HEAD"), "/api/tags", routes.tags)
    add(app, ("GET",), "/api/ps", routes.ps)
    add(app, ("POST",), "/api/show", routes.show)
    add(app, ("POST",), "/api/copy", routes.copy)
    add(app, ("DELETE",), "/api/delete", routes.delete)
    # POST is served by `asgi` before Quart; the rule is here so that the path has both methods.
    add(app, ("HEAD", "POST"), "/api/blobs/<digest>", routes.has_blob)


@attrs.frozen
class _Routes:
    olm: Olm

    async def tags(self, _call: Call) -> Response:
        rows = [_tags_row(model) for model in await self.olm.store.list()]
        return json_reply(to_json(wire.TagsResponse(models=rows)))

    async def ps(self, _call: Call) -> Response:
        now_ns = time.time_ns()
        rows = [_process_row(model, now_ns) for model in await self.olm.models.ps()]
        return json_reply(to_json(wire.ProcessResponse(models=rows)))

    async def show(self, call: Call) -> Response:
        request = decode(call.take_body(), wire.ShowRequest)
        name = request.model or request.name
        if not name:
            raise InvalidRequest("model is required")
        shown = await self.olm.store.show(local_name(name), verbose=bool(request.verbose))
        info = dict(shown.model_info)
        if call.user_agent.startswith(_COPILOT):
            info["general.basename"] = name
        return json_reply(to_json(_show(shown, info, system=request.system)))

    async def copy(self, call: Call) -> Response:
        request = decode(call.take_body(), wire.CopyRequest)
        await self.olm.store.copy(request.source or "", request.destination or "")
        return empty()

    async def delete(self, call: Call) -> Response:
        request = decode(call.take_body(), wire.DeleteRequest)
        await self.olm.store.delete(request.model or request.name or "")
        return empty()

    async def has_blob(self, _call: Call, digest: str) -> Response:
        if not await self.olm.store.has_blob(parse_digest(digest)):
            raise NotFound(f'blob "{digest}" not found')
        return empty()


def _details(details: ModelDetails) -> wire.Details:
    return wire.Details(
        parent_model=details.parent_model,
        format=details.format,
        family=details.family,
        families=details.families or None,
        parameter_size=details.parameter_size,
        quantization_level=details.quantization_level,
        context_length=details.context_length,
        embedding_length=details.embedding_length,
    )


def _tags_row(model: ModelSummary) -> wire.TagsModel:
    return wire.TagsModel(
        name=model.name,
        model=model.name,
        modified_at=rfc3339(model.modified_ns, local=True),
        size=model.size_bytes,
        digest=model.digest,
        details=_details(model.details),
        capabilities=model.capabilities,
    )


def _process_row(model: LoadedModel, now_ns: int) -> wire.ProcessModel:
    ahead_s = min(model.expires_s, _FOREVER_S)
    return wire.ProcessModel(
        name=model.name,
        model=model.name,
        size=model.size_bytes,
        digest=model.digest,
        details=_details(model.details),
        expires_at=rfc3339(now_ns + round(ahead_s * 1e9), local=True),
        size_vram=model.vram_bytes,
        context_length=model.n_ctx,
    )


def _show(
    shown: ShowResult, info: Mapping[str, object], *, system: str | None
) -> wire.ShowResponse:
    model = shown.model
    return wire.ShowResponse(
        license="\n".join(model.licenses),
        modelfile=shown.modelfile,
        parameters=shown.parameters,
        template=shown.template,
        system=system or model.system,
        details=_details(model.details),
        messages=[
            wire.ResponseMessage(role=message.role, content=message.content)
            for message in model.messages
        ]
        or None,
        model_info=dict(info),
        projector_info=dict(shown.projector_info) if shown.projector_info else None,
        tensors=[wire.Tensor(name=n, type=t, shape=s) for n, t, s in shown.tensors] or None,
        capabilities=model.capabilities,
        modified_at=rfc3339(model.modified_ns, local=True),
        requires=shown.requires,
        links=dict(shown.links) or None,
        adapters=[
            wire.Adapter(id=i, name=item.name, scale=item.scale, digest=item.digest)
            for i, item in enumerate(shown.adapters)
        ]
        or None,
    )
