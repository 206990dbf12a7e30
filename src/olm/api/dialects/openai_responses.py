"""Requests of `/v1/responses` as chats, and the object that answers them before anything is said. Pure.

Ollama's words and defaults where it takes a field (spec/ollama §2.5, commit fb30760), except where they hide something:
a temperature that was not asked for stays the Modelfile's, and what olm cannot do is refused. Fields that Ollama ignores
follow OpenAI's API reference. Items are in `openai_responses_items`, answers in `openai_responses_events`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import msgspec

from olm.actors.client import ChatRequest
from olm.api import schemas_responses as wire
from olm.api.dialects.common import checked_top, quoted
from olm.api.dialects.constraints import constraint
from olm.api.dialects.openai_common import (
    form_of_answer,
    model_name,
    sampling_options,
    stop_strings,
    think_of,
)
from olm.api.dialects.openai_responses_items import messages_of
from olm.api.dialects.openai_responses_tools import ResponsesTools, read_responses_tools
from olm.chat.types import ChatMessage, Constraint
from olm.errors import InvalidRequest
from olm.units import parse_keep_alive

__all__ = ["Wanted", "new_response", "responses_request"]

_LOGPROBS: Final = "message.output_text.logprobs"
_MAX_METADATA: Final = 16
_MAX_KEY_CHARS: Final = 64
_MAX_VALUE_CHARS: Final = 512
_PLAIN_TEXT: Final = msgspec.Raw(b'{"type":"text"}')


@attrs.frozen
class Wanted:
    """What a request wants: a chat, and of which tools the calls are told in two names."""

    chat: ChatRequest
    tools: ResponsesTools


def responses_request(
    request: wire.ResponsesRequest,
    items: Sequence[wire.InputItem],
    before: Sequence[wire.InputItem] = (),
) -> Wanted:
    """Translate a request.

    Args:
        items: its input, read. before: the conversation that it continues.

    Raises:
        InvalidRequest: with Ollama's text where it has one.
    """
    _refuse_unsupported(request)
    if not items and not before and not request.instructions:
        raise InvalidRequest("input is required", param="input")
    tools = read_responses_tools(request.tools, request.tool_choice)
    truncate = _truncates(request.truncation)
    chat = ChatRequest(
        model=model_name(request.model),
        messages=_messages(request.instructions, [*before, *items]),
        tools_json=tools.tools.text,
        tool_choice=tools.choice,
        parallel_tool_calls=request.parallel_tool_calls is not False,
        constraint=_constraint(request),
        think=think_of(request),
        options=_options(request),
        keep_alive_s=parse_keep_alive(request.keep_alive),
        truncate=truncate,
        shift=truncate,
        n_logprobs=_n_logprobs(request),
    )
    return Wanted(chat, tools)


def new_response(
    request: wire.ResponsesRequest, told: Sequence[msgspec.Raw], *, response_id: str, created_s: int
) -> wire.ResponseObject:
    """The object of a response that has just begun; sampling that the request leaves open is null, as the Modelfile's.

    Args:
        told: the tools as they are told back.
        created_s: seconds since the epoch.
    """
    reasoning = request.reasoning
    return wire.ResponseObject(
        id=response_id,
        object="response",
        created_at=created_s,
        completed_at=None,
        status="in_progress",
        incomplete_details=None,
        model=request.model or "",
        previous_response_id=request.previous_response_id or None,
        instructions=request.instructions or None,
        output=[],
        error=None,
        tools=list(told),
        tool_choice=request.tool_choice or "auto",
        truncation="auto" if _truncates(request.truncation) else "disabled",
        parallel_tool_calls=request.parallel_tool_calls is not False,
        text={"format": _format_text(request) or _PLAIN_TEXT},
        top_p=request.top_p,
        presence_penalty=request.presence_penalty or 0,
        frequency_penalty=request.frequency_penalty or 0,
        top_logprobs=request.top_logprobs or 0,
        temperature=request.temperature,
        reasoning=wire.ResponseReasoning(
            effort=(reasoning.effort if reasoning else None) or request.reasoning_effort,
            summary=reasoning.summary if reasoning else None,
        ),
        usage=None,
        max_output_tokens=request.max_output_tokens,
        max_tool_calls=request.max_tool_calls,
        store=request.store is not False,
        background=False,
        service_tier="default",
        metadata=_metadata(request.metadata),
        safety_identifier=request.safety_identifier,
        prompt_cache_key=request.prompt_cache_key,
        user=request.user,
    )


def _refuse_unsupported(request: wire.ResponsesRequest) -> None:
    if request.conversation is not None:
        raise InvalidRequest(
            "conversations are not supported: continue a response with previous_response_id",
            param="conversation",
        )
    if request.prompt is not None:
        raise InvalidRequest("prompt templates are not supported", param="prompt")


def _messages(instructions: str | None, items: Sequence[wire.InputItem]) -> Sequence[ChatMessage]:
    messages = messages_of(items)
    return [ChatMessage("system", instructions), *messages] if instructions else messages


def _options(request: wire.ResponsesRequest) -> Mapping[str, object]:
    options = sampling_options(request)
    limit = request.max_output_tokens
    if limit is not None:
        if limit < 1:
            raise InvalidRequest(
                f"max_output_tokens must be at least 1, not {limit}",
                param="max_output_tokens",
                code="integer_below_min_value",
            )
        options["num_predict"] = limit
    stop = stop_strings(request.stop, strict=False)
    if stop is not None:
        options["stop"] = stop
    return options


def _n_logprobs(request: wire.ResponsesRequest) -> int:
    n_top = checked_top(request.top_logprobs)
    is_wanted = request.top_logprobs is not None or _LOGPROBS in (request.include or ())
    return n_top if is_wanted else -1


def _truncates(value: str | None) -> bool:
    """Whether a prompt that is too long is cut. OpenAI's default is that it is refused, Ollama always cuts."""
    match value:
        case None | "" | "auto":
            return True
        case "disabled":
            return False
        case _:
            shown = quoted(value)
            raise InvalidRequest(
                f'invalid truncation: {shown} (must be "auto" or "disabled")', param="truncation"
            )


def _format_text(request: wire.ResponsesRequest) -> msgspec.Raw | None:
    text = bytes(request.text.format).strip() if request.text is not None else b""
    return msgspec.Raw(text) if text not in (b"", b"null") else None


def _constraint(request: wire.ResponsesRequest) -> Constraint | None:
    """`text.format`, or one of the forms that other servers and olm have beside it."""
    other = form_of_answer(request)
    wanted = _text_format(_format_text(request))
    if wanted is not None and other is not None:
        raise InvalidRequest("text.format and other forms cannot be combined", param="text.format")
    return wanted or other


def _text_format(raw: msgspec.Raw | None) -> Constraint | None:
    if raw is None:
        return None
    try:
        wanted = msgspec.json.decode(raw, type=wire.TextFormat)
    except ValueError as exc:
        raise InvalidRequest(f"text.format: {exc}", param="text.format") from None
    match wanted.type:
        case "text":
            return None
        case "json_object":
            return Constraint("json")
        case "json_schema":
            schema = bytes(wanted.schema).strip()
            if not schema.startswith(b"{"):
                raise InvalidRequest(
                    "text.format: a JSON schema is missing or is not an object",
                    param="text.format.schema",
                )
            return constraint(msgspec.Raw(schema), None, None)
        case other:
            shown = quoted(other or "")
            raise InvalidRequest(
                f'invalid text.format: {shown} (must be "text", "json_object" or "json_schema")',
                param="text.format",
            )


def _metadata(given: Mapping[str, object] | None) -> dict[str, str]:
    """Check the client's own notes: OpenAI's bounds, since they are told back twice and kept."""
    kept = {key: value for key, value in (given or {}).items() if isinstance(value, str)}
    too_long = any(len(k) > _MAX_KEY_CHARS or len(v) > _MAX_VALUE_CHARS for k, v in kept.items())
    if len(kept) != len(given or {}) or len(kept) > _MAX_METADATA or too_long:
        raise InvalidRequest(
            f"metadata must be up to {_MAX_METADATA} texts of up to {_MAX_VALUE_CHARS} characters "
            f"under names of up to {_MAX_KEY_CHARS}",
            param="metadata",
        )
    return kept
