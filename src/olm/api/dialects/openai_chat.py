"""OpenAI's chat requests as `ChatRequest`s, one for each choice that is wanted. Pure.

The order of the checks is Ollama's: messages, stop, effort, then the model (spec/ollama §2.2, commit fb30760). Messages
are translated in `openai_chat_messages`, answers in `openai_events`.
"""

from __future__ import annotations

from typing import Final

from olm.actors.client import ChatRequest
from olm.api import schemas_openai as wire
from olm.api.dialects.common import checked_top, json_object, quoted
from olm.api.dialects.openai_chat_messages import chat_messages
from olm.api.dialects.openai_common import (
    checked_count,
    each_choice,
    form_of_answer,
    model_name,
    sampling_options,
    stop_strings,
    think_of,
)
from olm.api.dialects.tools import Tools, only_tools, read_tools, tool_choice
from olm.chat.types import ToolChoice
from olm.errors import InvalidRequest
from olm.units import parse_keep_alive

__all__ = ["chat_requests"]

_NONE_GIVEN: Final = "[] is too short - 'messages'"


def chat_requests(request: wire.ChatCompletionRequest) -> list[ChatRequest]:
    """Translate `/v1/chat/completions`.

    Raises:
        InvalidRequest: with Ollama's text and status where it takes the field, else with olm's own.
    """
    if not request.messages:
        raise InvalidRequest(_NONE_GIVEN, param="messages")
    messages = chat_messages(request.messages)
    options = sampling_options(request)
    if request.max_completion_tokens is not None:
        options["num_predict"] = request.max_completion_tokens
    stop = stop_strings(request.stop, strict=False)
    if stop is not None:
        options["stop"] = stop
    think, constraint = think_of(request), form_of_answer(request)
    n_choices = checked_count(request.n, param="n")
    n_top = checked_top(request.top_logprobs)
    tools, choice = _tools(request)
    first = ChatRequest(
        model=model_name(request.model),
        messages=messages,
        tools_json=tools.text,
        tool_choice=choice,
        parallel_tool_calls=request.parallel_tool_calls is not False,
        template_kwargs_json=json_object(request.chat_template_kwargs),
        constraint=constraint,
        think=think,
        options=options,
        keep_alive_s=parse_keep_alive(request.keep_alive),
        truncate=request.truncate is not False,
        shift=request.shift is not False,
        n_logprobs=n_top if request.logprobs else -1,
    )
    return each_choice(first, n_choices)


def _tools(request: wire.ChatCompletionRequest) -> tuple[Tools, ToolChoice]:
    try:
        tools = read_tools(request.tools)
    except InvalidRequest as exc:
        raise InvalidRequest(exc.message, param="tools") from exc
    try:
        match request.tool_choice:
            case {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(allowed)}}:
                tools = only_tools(tools, [_allowed_name(entry) for entry in allowed])
                return tools, tool_choice(mode, tools)
            case value:
                return tools, tool_choice(value, tools)
    except InvalidRequest as exc:
        raise InvalidRequest(exc.message, param="tool_choice") from exc


def _allowed_name(entry: object) -> str:
    match entry:
        case {"type": "function", "function": {"name": str(name)}}:
            return name
        case _:
            raise InvalidRequest(f"invalid tool_choice: {quoted(entry)} does not name a function")
