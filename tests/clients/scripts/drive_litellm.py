"""`litellm`: its `ollama_chat` and `ollama` providers, and `openai` on the same server."""

from __future__ import annotations

import json
import os
from typing import Any

import litellm
from steps import QUESTION, WEATHER, failure, get_weather, run_steps

_HOST = os.environ["OLLAMA_HOST"]
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather for a city",
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string", "description": "The city"}},
            "required": ["location"],
        },
    },
}


def _ask(messages: list[Any], model: str = "ollama_chat/tiny", **fields: Any) -> Any:
    base = os.environ["OPENAI_BASE_URL"] if model.startswith("openai/") else _HOST
    return litellm.completion(
        model=model, messages=messages, api_base=base, api_key="none", temperature=0, **fields
    )


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _list() -> list[str]:
    """It asks /api/tags and /api/show what a model can do."""
    os.environ["OLLAMA_API_BASE"] = _HOST
    from litellm.llms.ollama.common_utils import OllamaModelInfo

    assert litellm.get_model_info("ollama_chat/tiny")["supports_function_calling"]
    return OllamaModelInfo().get_models(None, _HOST)


def _chat() -> dict[str, Any]:
    answers = [
        _ask([_user(QUESTION)], model, max_tokens=8)
        for model in ("ollama_chat/tiny", "ollama/tiny", "openai/tiny")
    ]
    message = answers[0].choices[0]
    texts = [
        a.choices[0].message.content or a.choices[0].message.reasoning_content for a in answers
    ]
    assert all(texts), texts
    return {
        "text": texts[0],
        "reason": message.finish_reason,
        "usage": answers[0].usage.model_dump(),
    }


def _stream() -> list[str]:
    deltas = [
        part.choices[0].delta
        for part in _ask([_user(QUESTION)], reasoning_effort="disable", max_tokens=8, stream=True)
    ]
    return [delta.content or "" for delta in deltas]


def _tool() -> dict[str, Any]:
    fields = {"tools": [_TOOL], "model": "ollama_chat/tiny"}
    messages: list[Any] = [_user(WEATHER)]
    message = _ask(messages, **fields).choices[0].message
    (call,) = message.tool_calls
    arguments = json.loads(call.function.arguments)
    result = {"role": "tool", "tool_call_id": call.id, "content": get_weather(**arguments)}
    told = _ask([*messages, message, result], **fields).choices[0].message
    return {"name": call.function.name, "arguments": arguments, "answer": told.content}


def _error() -> dict[str, Any]:
    found: dict[str, Any] = {}
    with failure(found):
        _ask([_user(QUESTION)], "ollama_chat/nope")
    return found


def _embed() -> list[list[float]]:
    made = litellm.embedding(model="ollama/tiny", input=["a", "b"], api_base=_HOST)
    return [row["embedding"] for row in made.data]


run_steps(
    {
        "list": _list,
        "chat": _chat,
        "stream": _stream,
        "tool": _tool,
        "error": _error,
        "embed": _embed,
    }
)
