"""Ollama's requests as values for the clients of `olm.actors.client`: checks, defaults and error texts. Pure.

The order of the checks and the words are those of spec/ollama §1.3 to §1.11 (Ollama commit fb30760). What depends on
the model (capabilities, options, images) is checked by the scheduler, which knows it. Answers: `ollama_events`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from olm.actors import client
from olm.actors import jobs_client as jobs
from olm.api import schemas as wire
from olm.api.dialects.common import checked_name, checked_top, json_object, parse_think
from olm.api.dialects.constraints import constraint
from olm.api.dialects.tools import read_tools, tool_call, tool_choice
from olm.chat.types import ChatMessage, Think
from olm.errors import InvalidRequest, ModelNotFound, NotYetSupported
from olm.units import parse_keep_alive

__all__ = [
    "LoadModel",
    "UnloadModel",
    "chat_request",
    "create_request",
    "embed_request",
    "embedding_request",
    "generate_request",
    "pull_request",
    "push_request",
]


@attrs.frozen
class LoadModel:
    """A request without a prompt: load the model and say so."""

    model: str
    options: Mapping[str, object]
    keep_alive_s: float | None
    think: Think | None = None


@attrs.frozen
class UnloadModel:
    """A request without a prompt and with `keep_alive` 0: let the model go."""

    model: str


def generate_request(
    request: wire.GenerateRequest,
) -> client.GenerateRequest | LoadModel | UnloadModel:
    """Translate `/api/generate`.

    Raises:
        InvalidRequest, ModelNotFound: with Ollama's text and status.
    """
    keep_alive_s, think = parse_keep_alive(request.keep_alive), parse_think(request.think)
    n_logprobs = _n_logprobs(request.logprobs, request.top_logprobs)
    name = checked_name(request.model, ModelNotFound(f"model '{request.model or ''}' not found"))
    prompt, suffix = request.prompt or "", request.suffix or ""
    if not prompt and keep_alive_s == 0:
        return UnloadModel(name)
    raw, template, system = bool(request.raw), request.template or "", request.system or ""
    context = tuple(request.context or ())
    if raw and (template or system or context):
        raise InvalidRequest("raw mode does not support template, system, or context")
    if not prompt:
        return LoadModel(name, request.options or {}, keep_alive_s, think)
    return client.GenerateRequest(
        model=name,
        prompt=prompt,
        suffix=suffix,
        system=system,
        template=template,
        context=context,
        raw=raw,
        images=tuple(request.images or ()),
        constraint=constraint(request.format, request.structured_outputs, request.grammar),
        think=think,
        options=request.options or {},
        keep_alive_s=keep_alive_s,
        truncate=request.truncate is not False,
        shift=request.shift is not False,
        n_logprobs=n_logprobs,
    )


def chat_request(request: wire.ChatRequest) -> client.ChatRequest | LoadModel | UnloadModel:
    """Translate `/api/chat`.

    Raises:
        InvalidRequest: with Ollama's text and status, and olm's own for the fields it adds.
    """
    keep_alive_s, think = parse_keep_alive(request.keep_alive), parse_think(request.think)
    n_logprobs = _n_logprobs(request.logprobs, request.top_logprobs)
    name = checked_name(request.model, InvalidRequest("model is required"))
    messages = [_message(message) for message in request.messages or ()]
    if not messages:
        if keep_alive_s == 0:
            return UnloadModel(name)
        return LoadModel(name, request.options or {}, keep_alive_s, think)
    tools = read_tools(request.tools)
    return client.ChatRequest(
        model=name,
        messages=messages,
        tools_json=tools.text,
        tool_choice=tool_choice(request.tool_choice, tools),
        parallel_tool_calls=request.parallel_tool_calls is not False,
        template_kwargs_json=json_object(request.chat_template_kwargs),
        constraint=constraint(request.format, request.structured_outputs, request.grammar),
        think=think,
        options=request.options or {},
        keep_alive_s=keep_alive_s,
        truncate=request.truncate is not False,
        shift=request.shift is not False,
        n_logprobs=n_logprobs,
    )


def embed_request(request: wire.EmbedRequest) -> client.EmbedRequest | LoadModel:
    """Translate `/api/embed`; no input, an empty string or an empty list only loads the model.

    Raises:
        InvalidRequest: `invalid input type`; ModelNotFound for an empty name.
    """
    keep_alive_s = parse_keep_alive(request.keep_alive)
    inputs = _inputs(request.input)
    name = checked_name(request.model, ModelNotFound(f"model '{request.model or ''}' not found"))
    if not inputs:
        return LoadModel(name, request.options or {}, keep_alive_s)
    return client.EmbedRequest(
        model=name,
        inputs=inputs,
        truncate=request.truncate is not False,
        dimensions=max(0, request.dimensions or 0),
        options=request.options or {},
        keep_alive_s=keep_alive_s,
    )


def embedding_request(request: wire.EmbeddingRequest) -> client.EmbedRequest | LoadModel:
    """Translate the old `/api/embeddings`, whose vectors are not normalised.

    Raises:
        InvalidRequest: `model is required`.
    """
    keep_alive_s = parse_keep_alive(request.keep_alive)
    name = checked_name(request.model, InvalidRequest("model is required"))
    if not request.prompt:
        return LoadModel(name, request.options or {}, keep_alive_s)
    return client.EmbedRequest(
        model=name,
        inputs=(request.prompt,),
        normalize=False,
        options=request.options or {},
        keep_alive_s=keep_alive_s,
    )


def create_request(request: wire.CreateRequest) -> jobs.CreateRequest:
    """Translate `/api/create`; the deprecated `name` and `quantization` stand in for the new fields.

    Raises:
        InvalidRequest, NotYetSupported: for what can be told without the store.
    """
    if request.draft_quantize and not request.draft_files:
        raise InvalidRequest("--draft-quantize requires a DRAFT model")
    if request.remote_host and request.draft_files:
        raise InvalidRequest("DRAFT cannot be used with remote models")
    if request.remote_host:
        raise NotYetSupported("models on a remote host are not supported yet")
    return jobs.CreateRequest(
        model=request.model or request.name or "",
        from_=request.from_ or "",
        files=request.files or {},
        adapters=request.adapters or {},
        template=request.template or None,
        system=request.system or None,
        licenses=_licenses(request.license),
        parameters=request.parameters or {},
        messages=[_message(message) for message in request.messages] if request.messages else None,
        quantize=request.quantize or request.quantization or "",
        renderer=request.renderer or "",
        parser=request.parser or "",
        requires=request.requires or "",
        links=request.links or {},
        draft_files=request.draft_files or {},
        draft_quantize=request.draft_quantize or "",
        tensor_types=request.tensor_types or {},
        imatrix=request.imatrix or {},
        info=request.info or {},
    )


def _n_logprobs(wanted: bool | None, top: int | None) -> int:
    n_top = checked_top(top)
    return n_top if wanted else -1


def _message(message: wire.Message) -> ChatMessage:
    return ChatMessage(
        role=(message.role or "").lower(),
        content=message.content or "",
        thinking=message.thinking or "",
        images=tuple(message.images or ()),
        tool_calls=tuple(tool_call(call) for call in message.tool_calls or ()),
        tool_name=message.tool_name or "",
        tool_call_id=message.tool_call_id or "",
    )


def _inputs(value: object) -> Sequence[str]:
    match value:
        case None | "":
            return ()
        case str():
            return (value,)
        case list() if all(isinstance(item, str) for item in value):
            return tuple(value)
        case _:
            raise InvalidRequest("invalid input type")


def pull_request(request: wire.PullRequest) -> jobs.PullRequest:
    """Translate `/api/pull`; the deprecated `name` stands in for `model`."""
    return jobs.PullRequest(
        request.model or request.name or "", bool(request.insecure), _rate(request.limit_rate)
    )


def push_request(request: wire.PushRequest) -> jobs.PushRequest:
    """Translate `/api/push`, as `pull_request` does."""
    return jobs.PushRequest(
        request.model or request.name or "", bool(request.insecure), _rate(request.limit_rate)
    )


def _rate(value: int | None) -> int:
    if value is not None and value < 0:
        raise InvalidRequest("limit_rate is a number of bytes a second, 0 for no limit")
    return value or 0


def _licenses(value: object) -> Sequence[str]:
    match value:
        case None | "":
            return ()
        case str():
            return (value,)
        case list():
            if not all(isinstance(item, str) for item in value):
                raise InvalidRequest("license must be a string or a list of strings")
            return tuple(value)
        case _:
            raise InvalidRequest("license must be a string or a list of strings")
