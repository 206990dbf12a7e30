"""The vectors that families port from Ollama's tests, each whole and character by character."""

from __future__ import annotations

from types import ModuleType
from typing import Final

import pytest

from chat import samples_cohere, samples_deepseek, samples_glm, samples_olmo3
from chat.chat_kit import Sample, answer_of, events_of, make_parser

_FAMILIES: Final[tuple[ModuleType, ...]] = (
    samples_cohere,
    samples_deepseek,
    samples_glm,
    samples_olmo3,
)
_VECTORS: Final[list[Sample]] = [
    vector
    for module in _FAMILIES
    for vector in getattr(module, "VECTORS")  # noqa: B009
]


@pytest.mark.parametrize("vector", _VECTORS, ids=lambda vector: vector.parser)
def test_a_vector_becomes_what_it_should(vector: Sample) -> None:
    events = events_of(make_parser(vector), [vector.text])
    answer = answer_of(events)

    assert events_of(make_parser(vector), vector.text) == events
    assert (answer.content, answer.thinking) == (vector.content, vector.thinking)
    assert answer.calls == list(vector.calls or [])
    assert bool(answer.malformed) is bool(vector.malformed)
