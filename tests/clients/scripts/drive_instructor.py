"""`instructor` over the OpenAI client: classes from forced tool calls, from JSON, and piece by piece."""

from __future__ import annotations

from typing import Any

import instructor
import openai
import pydantic
from steps import failure, run_steps


class Person(pydantic.BaseModel):
    """A person."""

    name: str
    age: int


_OPENAI = openai.OpenAI(api_key="none", max_retries=0)
_ASK: Any = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Describe a person as JSON."}],
    "temperature": 0,
    "max_retries": 1,
}


def _client(mode: instructor.Mode) -> instructor.Instructor:
    return instructor.from_openai(_OPENAI, mode=mode)


def _structured() -> object:
    """By a forced call, by `json_object`, and by `json_schema`."""
    modes = (instructor.Mode.TOOLS, instructor.Mode.JSON, instructor.Mode.JSON_SCHEMA)
    made = [_client(mode).create(response_model=Person, **_ask_in(mode)) for mode in modes]
    assert all(isinstance(person, Person) for person in made), made
    return made[0].model_dump()


def _ask_in(mode: instructor.Mode) -> dict[str, Any]:
    return {**_ASK, "extra_body": {"reasoning_effort": "none"}, "max_tokens": 200}


def _stream() -> list[str]:
    parts = _client(instructor.Mode.TOOLS).create_partial(response_model=Person, **_ASK)
    return [part.model_dump_json() for part in parts]


def _list() -> list[str]:
    return [model.id for model in _OPENAI.models.list()]


def _error() -> dict[str, Any]:
    found: dict[str, Any] = {}
    with failure(found):
        _client(instructor.Mode.TOOLS).create(response_model=Person, **{**_ASK, "model": "nope"})
    return found


run_steps({"list": _list, "structured": _structured, "stream": _stream, "error": _error})
