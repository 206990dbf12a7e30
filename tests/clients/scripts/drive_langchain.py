"""`langchain-ollama`: the chat model, tools, structured answers, embeddings; the model is looked up at the start."""

from __future__ import annotations

from typing import Any

import pydantic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings
from steps import QUESTION, WEATHER, failure, get_weather, run_steps


class Person(pydantic.BaseModel):
    """A person."""

    name: str
    age: int


def _model(name: str = "tiny", **fields: Any) -> ChatOllama:
    return ChatOllama(model=name, temperature=0, reasoning=False, **fields)


def _list() -> list[str]:
    """It has no list of its own, but looks the model up in the server's when it is told to check it."""
    _model(validate_model_on_init=True)
    found: dict[str, Any] = {}
    with failure(found):
        _model("nope", validate_model_on_init=True)
    assert "not found" in found["text"], found
    return ["tiny:latest"]


def _chat() -> dict[str, Any]:
    message = _model(num_predict=8).invoke(QUESTION)
    meta, usage = message.response_metadata, message.usage_metadata
    return {"text": message.content, "reason": meta["done_reason"], "usage": usage}


def _stream() -> list[str]:
    return [str(chunk.content) for chunk in _model(num_predict=8).stream(QUESTION)]


def _tool() -> dict[str, Any]:
    model = _model().bind_tools([tool(get_weather)])
    messages: list[Any] = [HumanMessage(WEATHER)]
    asked = model.invoke(messages)
    (call,) = asked.tool_calls
    result = ToolMessage(get_weather(**call["args"]), tool_call_id=call["id"])
    told = model.invoke([*messages, asked, result])
    return {"name": call["name"], "arguments": call["args"], "answer": told.content}


def _structured() -> object:
    person = _model().with_structured_output(Person).invoke("Describe a person as JSON.")
    assert isinstance(person, Person), person
    return person.model_dump()


def _thinking() -> str:
    message = ChatOllama(model="tiny", temperature=0, reasoning=True).invoke("Who are you?")
    return str(message.additional_kwargs["reasoning_content"])


def _error() -> dict[str, Any]:
    found: dict[str, Any] = {}
    with failure(found):
        _model("nope").invoke(QUESTION)
    return found


def _embed() -> list[list[float]]:
    return OllamaEmbeddings(model="tiny").embed_documents(["a", "b"])


run_steps(
    {
        "list": _list,
        "chat": _chat,
        "stream": _stream,
        "tool": _tool,
        "structured": _structured,
        "thinking": _thinking,
        "error": _error,
        "embed": _embed,
    }
)
