"""Anthropic's requests as values for the clients of `olm.actors.client`: checks, defaults and error texts. Pure.

Order and words of the checks: spec/ollama §2.7; what Ollama ignores there is honoured as Anthropic documents it. The
content of messages is read by `anthropic_blocks`, answers are written by `anthropic_events`.
"""

from __future__ import annotations

from typing import Final

import attrs
import msgspec

from olm.actors import client
from olm.api import schemas_anthropic as wire
from olm.api.dialects.anthropic_blocks import read_messages
from olm.api.dialects.common import checked_name, json_object, quoted
from olm.api.dialects.tools import Tools, read_tools, tool_choice
from olm.chat.types import Constraint, Think, ToolChoice
from olm.errors import InvalidRequest, ModelNotFound

__all__ = ["count_request", "estimated_tokens", "messages_request", "without_thinking"]

_BYTES_PER_TOKEN: Final = 4
_BUDGET: Final = "think_budget"
_EFFORTS: Final[dict[str, Think]] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "max",
}


def messages_request(request: wire.MessagesRequest) -> client.ChatRequest:
    """Translate `/v1/messages`.

    Raises:
        InvalidRequest: with Ollama's text, and olm's own for what Ollama does not read. ModelNotFound: a name that is none.
    """
    return _chat(request, max_tokens=request.max_tokens or 0, options=_options(request))


def count_request(request: wire.CountRequest) -> client.ChatRequest:
    """Translate `/v1/messages/count_tokens`, which wants no `max_tokens`. Raises as `messages_request`."""
    return _chat(request, max_tokens=None, options={})


def without_thinking(request: client.ChatRequest) -> client.ChatRequest:
    """Give up thinking that a model cannot do: this API's clients ask for it without looking (spec/ollama §2.7)."""
    options = {key: value for key, value in request.options.items() if key != _BUDGET}
    return attrs.evolve(request, think=None, options=options)


def estimated_tokens(request: client.ChatRequest) -> int:
    """Guess the tokens of a prompt before there is one, at four bytes a token as Ollama does; never less than one."""
    n_chars = len(request.tools_json)
    for message in request.messages:
        n_chars += len(message.content) + len(message.thinking)
        n_chars += sum(len(call.name) + len(call.arguments_json) for call in message.tool_calls)
    return max(1, n_chars // _BYTES_PER_TOKEN)


def _chat(
    request: wire.CountRequest, *, max_tokens: int | None, options: dict[str, object]
) -> client.ChatRequest:
    """Do the checks in Ollama's order. `max_tokens` is None where it is not wanted."""
    if not request.model:
        raise InvalidRequest("model is required")
    if max_tokens is not None and max_tokens <= 0:
        raise InvalidRequest("max_tokens is required and must be positive")
    if not request.messages:
        raise InvalidRequest("messages is required")
    messages = read_messages(request.system, request.messages)
    if not messages:
        raise InvalidRequest("messages: all of them are empty")
    tools = _tools(request.tools or [])
    choice = request.tool_choice or wire.ToolChoice()
    think, budget = _thinking(request)
    return client.ChatRequest(
        model=checked_name(request.model, ModelNotFound(f"model '{request.model}' not found")),
        messages=messages,
        tools_json=tools.text,
        tool_choice=_tool_choice(choice, tools),
        parallel_tool_calls=not choice.disable_parallel_tool_use,
        constraint=_constraint(request),
        think=think,
        options={**options, _BUDGET: budget} if budget else options,
        # Anthropic refuses what does not fit, and its clients shorten the conversation themselves.
        truncate=False,
        shift=False,
    )


def _options(request: wire.MessagesRequest) -> dict[str, object]:
    """Only what the request says, so that the Modelfile's parameters hold for the rest."""
    given: dict[str, object] = {
        "num_predict": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "stop": request.stop_sequences or None,
    }
    return {key: value for key, value in given.items() if value is not None}


def _thinking(request: wire.CountRequest) -> tuple[Think | None, int]:
    """Whether to think, and for how many tokens at most (0: without bound).

    Without the field there is no thinking, as Anthropic documents it: clients that do not ask for it read the first
    block as text, and their `max_tokens` leaves no room. (Ollama lets the model do as it likes.)
    """
    effort = request.output_config.effort if request.output_config is not None else None
    level = _EFFORTS.get((effort or "").strip().lower())
    if request.thinking is None:
        return (False if level is None else level), 0
    match request.thinking.type:
        case "enabled":
            return True, max(0, request.thinking.budget_tokens or 0)
        case "disabled":
            return False, 0
        case _:
            return level, 0  # `adaptive` and what may come: as the model likes


def _constraint(request: wire.CountRequest) -> Constraint | None:
    """Structured outputs: `output_config.format`, or `output_format` as the beta had it."""
    wanted = request.output_config.format if request.output_config is not None else None
    wanted = wanted or request.output_format
    if wanted is None:
        return None
    if wanted.type != "json_schema" or wanted.schema is None:
        raise InvalidRequest('output format must be {"type": "json_schema", "schema": {...}}')
    return Constraint("json_schema", json_object(wanted.schema) or "{}")


def _tools(tools: list[wire.Tool]) -> Tools:
    """Bring tools into the form that templates know, OpenAI's, and check that.

    Raises:
        InvalidRequest: a tool without a name or of a malformed schema, or one that Anthropic's servers would run.
    """
    functions = []
    for tool in tools:
        if not tool.name:
            raise InvalidRequest("tools: a tool must have a name")
        if tool.input_schema is None and tool.type not in (None, "", "custom"):
            raise InvalidRequest(
                f"tools: {quoted(tool.type)} is a tool of Anthropic's and not supported; "
                "a tool of your own has an input_schema"
            )
        function = {"name": tool.name, "parameters": tool.input_schema or {"type": "object"}}
        if tool.description:
            function = {"name": tool.name, "description": tool.description, **function}
        functions.append({"type": "function", "function": function})
    return read_tools(msgspec.Raw(msgspec.json.encode(functions)))


def _tool_choice(choice: wire.ToolChoice, tools: Tools) -> ToolChoice:
    match choice.type:
        case None | "auto":
            return ToolChoice()
        case "none":
            return ToolChoice("none")
        case "any" if tools.names:
            return ToolChoice("required")
        case "any":
            raise InvalidRequest('tool_choice "any" needs tools')
        case "tool":
            return tool_choice({"type": "function", "function": {"name": choice.name or ""}}, tools)
        case other:
            kind = quoted(other)
            raise InvalidRequest(
                f'invalid tool_choice type: {kind} (must be "auto", "any", "tool", or "none")'
            )
