"""What the tests of `olm.native` share: an answer gathered from events, and the types of their fixtures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from olm.chat.parsers import PARSERS, ParseInput
from olm.chat.rendering import Rendered

if TYPE_CHECKING:
    from olm.chat.types import TokenLogprob
    from olm.native.engine import Done, Engine, Failed, Progress


def plain_rendered(text: str) -> Rendered:
    """A prompt whose answer is content and nothing else."""
    given = ParseInput(new_id=str)
    return Rendered(text=text, make_parser=lambda: PARSERS["passthrough"].make(given))


@attrs.define
class Answer:
    """Everything an engine said about one request."""

    text: str = ""
    tokens: list[int] = attrs.Factory(list)
    logprobs: list[TokenLogprob] = attrs.Factory(list)
    pieces: list[str] = attrs.Factory(list)
    progress: list[Progress] = attrs.Factory(list)
    done: Done | None = None
    failed: Failed | None = None

    @property
    def ended(self) -> bool:
        """Whether its last event has come."""
        return self.done is not None or self.failed is not None


class Ask(Protocol):
    """Wait for the answers of requests."""

    async def __call__(self, engine: Engine, *requests: int) -> list[Answer]: ...


class Greedy(Protocol):
    """The reference: llama.cpp's plainest loop."""

    def __call__(self, tokens: list[int], n_predict: int, n_chunk: int = 0) -> list[int]: ...


class MakeEngine(Protocol):
    """Make an engine on the built-in model."""

    def __call__(self, **fields: object) -> Engine: ...


class Chat(Protocol):
    """Tokens of a question in the built-in model's chat form, thinking closed."""

    def __call__(self, question: str) -> list[int]: ...
