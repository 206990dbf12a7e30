"""`pydantic-ai` with its Ollama provider: an agent, its stream, its tools, typed output, embeddings."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pydantic
from pydantic_ai import Agent, Embedder
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.ollama import OllamaProvider
from steps import QUESTION, WEATHER, failure, get_weather, run_steps


class Person(pydantic.BaseModel):
    """A person."""

    name: str
    age: int


_PROVIDER = OllamaProvider(base_url=os.environ["OPENAI_BASE_URL"])


def _agent(name: str = "tiny", **fields: Any) -> Agent[None, Any]:
    model = OpenAIChatModel(name, provider=_PROVIDER)
    return Agent(model, model_settings={"temperature": 0, "max_tokens": 200}, **fields)


def _chat() -> dict[str, Any]:
    result = _agent().run_sync(QUESTION)
    usage = result.usage
    return {
        "text": result.output,
        "reason": result.response.finish_reason,
        "usage": {"input": usage.input_tokens, "output": usage.output_tokens},
    }


def _stream() -> list[str]:
    async def ask() -> list[str]:
        async with _agent().run_stream(QUESTION) as running:
            return [text async for text in running.stream_text(delta=True, debounce_by=None)]

    return asyncio.run(ask())


def _tool() -> dict[str, Any]:
    calls: list[dict[str, str]] = []
    agent = _agent()

    @agent.tool_plain(name="get_weather")
    def noted(location: str) -> str:
        """Get the weather for a city.

        Args:
            location: The city
        """
        calls.append({"location": location})
        return get_weather(location)

    answer = agent.run_sync(WEATHER).output
    (arguments,) = calls
    return {"name": "get_weather", "arguments": arguments, "answer": answer}


def _structured() -> object:
    """By a forced call of an output tool, which is what it does unless told otherwise."""
    made = _agent(output_type=Person).run_sync("Describe a person as JSON.").output
    assert isinstance(made, Person), made
    return made.model_dump()


def _error() -> dict[str, Any]:
    found: dict[str, Any] = {}
    with failure(found):
        _agent("nope").run_sync(QUESTION)
    return found


def _embed() -> list[list[float]]:
    embedder = Embedder(OpenAIEmbeddingModel("tiny", provider=_PROVIDER))
    result = embedder.embed_documents_sync(["a", "b"])
    return [list(vector) for vector in result.embeddings]


run_steps(
    {
        "chat": _chat,
        "stream": _stream,
        "tool": _tool,
        "structured": _structured,
        "error": _error,
        "embed": _embed,
    }
)
