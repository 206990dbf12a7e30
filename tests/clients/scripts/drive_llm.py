"""`llm` with `llm-ollama`: models are found through its plug-in, tools run by its chain."""

from __future__ import annotations

import os
import tempfile
from typing import Any

# Before `llm` looks: its keys and logs must not be the user's.
os.environ["LLM_USER_PATH"] = tempfile.mkdtemp(prefix="llm-")

import llm
from steps import QUESTION, WEATHER, failure, get_weather, run_steps

_SHORT = {"num_predict": 8, "temperature": 0, "think": False}


def _list() -> list[str]:
    return [model.model_id for model in llm.get_models() if str(model).startswith("Ollama")]


def _chat() -> dict[str, Any]:
    response = llm.get_model("tiny").prompt(QUESTION, stream=False, **_SHORT)
    usage = response.usage()
    reason = response.json()["done_reason"]
    return {"text": response.text(), "reason": reason, "usage": vars(usage)}


def _stream() -> list[str]:
    return list(llm.get_model("tiny").prompt(QUESTION, **_SHORT))


def _tool() -> dict[str, Any]:
    calls: list[dict[str, str]] = []

    def get_weather_noted(location: str) -> str:
        calls.append({"location": location})
        return get_weather(location)

    tool = llm.Tool.function(get_weather_noted, name="get_weather")
    chain = llm.get_model("tiny").chain(
        WEATHER, tools=[tool], options={"temperature": 0, "think": False}
    )
    answer = chain.text()
    (arguments,) = calls
    return {"name": "get_weather", "arguments": arguments, "answer": answer}


def _structured() -> object:
    schema = llm.schema_dsl("name, age int")
    import json

    prompt = "Describe a person as JSON."
    return json.loads(llm.get_model("tiny").prompt(prompt, schema=schema, temperature=0).text())


def _error() -> dict[str, Any]:
    """A name it has not found goes nowhere, so a known one is asked for what the server refuses."""
    found: dict[str, Any] = {}
    model = llm.get_model("tiny")
    model.model_id = "nope"
    with failure(found):
        model.prompt(QUESTION).text()
    return found


def _embed() -> list[list[float]]:
    return list(llm.get_embedding_model("tiny").embed_multi(["a", "b"]))


run_steps(
    {
        "list": _list,
        "chat": _chat,
        "stream": _stream,
        "tool": _tool,
        "structured": _structured,
        "error": _error,
        "embed": _embed,
    }
)
