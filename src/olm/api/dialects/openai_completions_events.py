"""What turns send back, in the form of OpenAI's completions: a chunk an event, or one document for all choices. Pure.

Thinking and calls have no place in this form and are left out, as in Ollama. Source of the form: spec/ollama §2.3 (commit
fb30760, field order of `openai/openai.go`); the log-probabilities, which Ollama computes and drops, are OpenAI's.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Callable, Sequence

from olm.actors.client import RenderedPrompt
from olm.api import schemas_openai as wire
from olm.api.dialects.openai_completions import CompletionPlan
from olm.api.dialects.openai_events import (
    Answering,
    Tally,
    debug_info,
    finish_reason,
    usage_chunk,
)
from olm.api.dialects.turn import merged
from olm.api.encoding import json_text, to_json
from olm.api.schemas import DebugInfo
from olm.chat.types import Done, Piece, TokenLogprob, TurnEvent

__all__ = ["CompletionForm", "completion_document", "completion_rendered"]


class CompletionForm:
    """Writes the chunks of one choice.

    Args:
        tally: as in `ChatForm`.
        echo: the prompt's text, sent as the first chunk when it is not empty.
    """

    def __init__(
        self, answer: Answering, index: int = 0, tally: Tally | None = None, echo: str = ""
    ) -> None:
        self._index = index
        self._tally = tally
        self._echo = echo
        parts = (json_text(answer.id), answer.created_s)
        opening = b'data: {"id":%b,"object":"text_completion","created":%d,"choices":' % parts
        parts_of_end = (json_text(answer.model), json_text(wire.FINGERPRINT))
        closing = b',"model":%b,"system_fingerprint":%b' % parts_of_end
        self._usage_lead = opening + b"[]" + closing + b',"usage":'
        self._head = opening + b'[{"text":'
        self._middle = b',"index":%d,"finish_reason":' % index
        self._tail = b"}]" + closing + b"}\n\n"
        self._plain_end = self._middle + b"null" + self._tail
        self._logprobs = _LegacyLogprobs()

    def line(self, event: TurnEvent, *, load_ns: int, total_ns: Callable[[], int]) -> bytes:
        """The chunks of one event, empty for one that says nothing. Raises OlmError for a cancelled turn."""
        if isinstance(event, Piece):
            chunk = self._piece(event)
        elif isinstance(event, Done):
            chunk = self._end(event)
        else:
            return b""
        if self._echo and chunk:
            chunk = self._head + json_text(self._echo) + self._plain_end + chunk
            self._echo = ""
        return chunk

    def _piece(self, piece: Piece) -> bytes:
        if piece.thinking or not piece.logprobs:
            if not piece.content:
                return b""
            return self._head + json_text(piece.content) + self._plain_end
        logprobs = to_json(self._logprobs.of(piece.logprobs))
        return (
            self._head
            + json_text(piece.content)
            + self._middle
            + b'null,"logprobs":'
            + logprobs
            + self._tail
        )

    def _end(self, done: Done) -> bytes:
        last = self._head + b'""' + self._middle + json_text(finish_reason(done)) + self._tail
        return last + usage_chunk(self._usage_lead, self._tally, self._index, done)


class _LegacyLogprobs:
    """Writes log-probabilities in the old form; remembers where in the text the next token begins."""

    def __init__(self) -> None:
        # A token may end in the middle of a character, which then counts for the token that completes it.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def of(self, entries: Sequence[TokenLogprob]) -> wire.CompletionLogprobs:
        offsets: list[int] = []
        for entry in entries:
            offsets.append(self._offset)
            self._offset += len(self._decoder.decode(entry.token))
        return wire.CompletionLogprobs(
            tokens=[_token_text(entry.token) for entry in entries],
            token_logprobs=[entry.logprob for entry in entries],
            top_logprobs=[_best(entry) for entry in entries]
            if any(entry.top for entry in entries)
            else None,
            text_offset=offsets,
        )


def _best(entry: TokenLogprob) -> dict[str, float]:
    """The alternatives, and the taken token when it is not among them."""
    best = {_token_text(top.token): top.logprob for top in entry.top}
    best.setdefault(_token_text(entry.token), entry.logprob)
    return best


def _token_text(token: bytes) -> str:
    """A token as text; one that is no whole UTF-8 as OpenAI writes it, so that no two are the same."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)


def completion_document(
    answer: Answering,
    plan: CompletionPlan,
    turns: Sequence[Sequence[TurnEvent]],
    echoes: Sequence[str],
) -> bytes:
    """Everything in one document (`stream: false`).

    Args:
        turns: the events of each turn of the plan.
        echoes: what stands before the answers to each prompt.

    Raises:
        OlmError: a turn was cancelled or ended without saying how.
    """
    tally = Tally(len(turns), plan.n_each)
    for index, events in enumerate(turns):
        tally.add(index, merged(events)[1])
    choices: list[wire.CompletionChoice] = []
    for number, echo in enumerate(echoes):
        group = turns[number * plan.n_each : (number + 1) * plan.n_each]
        if plan.n_each > plan.n_kept:
            group = sorted(group, key=_mean_logprob, reverse=True)[: plan.n_kept]
        for events in group:
            choices.append(_choice(events, len(choices), echo, with_logprobs=plan.with_logprobs))
    return _document(answer, choices, tally.usage())


def _choice(
    events: Sequence[TurnEvent], index: int, echo: str, *, with_logprobs: bool
) -> wire.CompletionChoice:
    said, done = merged(events)
    return wire.CompletionChoice(
        text=echo + said.content,
        index=index,
        finish_reason=finish_reason(done),
        logprobs=_LegacyLogprobs().of(_spoken(events)) if with_logprobs else None,
    )


def _spoken(events: Sequence[TurnEvent]) -> list[TokenLogprob]:
    """The tokens of an answer without its thoughts."""
    pieces = (event for event in events if isinstance(event, Piece) and not event.thinking)
    return [entry for piece in pieces for entry in piece.logprobs]


def _mean_logprob(events: Sequence[TurnEvent]) -> float:
    """How likely the answer's tokens were; an answer without any is the last to be chosen."""
    entries = merged(events)[0].logprobs
    return sum(entry.logprob for entry in entries) / len(entries) if entries else -math.inf


def completion_rendered(answer: Answering, prompt: RenderedPrompt) -> bytes:
    """The answer of `_debug_render_only`."""
    empty = wire.CompletionChoice(text="", index=0, finish_reason=None)
    return _document(answer, [empty], Tally().usage(), debug_info(prompt))


def _document(
    answer: Answering,
    choices: list[wire.CompletionChoice],
    usage: wire.Usage,
    info: DebugInfo | None = None,
) -> bytes:
    return to_json(
        wire.Completion(
            id=answer.id,
            object="text_completion",
            created=answer.created_s,
            model=answer.model,
            system_fingerprint=wire.FINGERPRINT,
            choices=choices,
            usage=usage,
            debug_info=info,
        )
    )
