"""What turns send back, in OpenAI's chat form: a chunk an event, or one document for all choices. Pure.

A tool call is told as it is written: its name at once, its arguments in parts. A streamed token must be cheap, so the
constant parts of its chunk are made once a stream. Source of the form: spec/ollama §2.2 and appendix B; where Ollama
leaves out what OpenAI's own types require (`top_logprobs`), OpenAI's. Completions: `openai_completions_events`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import attrs

from olm.actors.client import RenderedPrompt
from olm.api import schemas_openai as wire
from olm.api.dialects.turn import merged, reason_of
from olm.api.encoding import json_text, to_json
from olm.api.schemas import DebugInfo
from olm.chat.types import (
    CallArguments,
    CallEnd,
    CallStart,
    Done,
    Piece,
    TokenLogprob,
    ToolCall,
    TurnEvent,
)

__all__ = [
    "Answering",
    "ChatForm",
    "Tally",
    "chat_document",
    "chat_rendered",
    "debug_info",
    "finish_reason",
    "token_logprobs",
    "usage_chunk",
]

_CHUNK_END: Final = b'},"finish_reason":null}]}\n\n'
_ARGUMENTS: Final = b'"tool_calls":[{"index":%d,"function":{"arguments":%b}}]'
_CALL: Final = b'"content":"","tool_calls":[{"index":%d,"id":%b,"type":"function","function":{"name":%b,"arguments":""}}]'


@attrs.frozen
class Answering:
    """What all chunks of an answer repeat. `created_s` is seconds since the epoch."""

    id: str
    model: str
    created_s: int


class Tally:
    """The ends of all turns of an answer, from which its usage is told.

    Args:
        n_turns: how many there are.
        n_each: how many answer the same prompt: they stand next to each other, and its tokens count once.
    """

    def __init__(self, n_turns: int = 1, n_each: int = 1) -> None:
        self._n_turns = n_turns
        self._n_each = n_each
        self._ends: dict[int, Done] = {}

    def add(self, index: int, done: Done) -> bool:
        """Note the end of a turn; True when it was the last one to end."""
        self._ends[index] = done
        return len(self._ends) == self._n_turns

    def usage(self) -> wire.Usage:
        """Sum the tokens up."""
        asked = [done for index, done in self._ends.items() if index % self._n_each == 0]
        n_prompt = sum(done.n_prompt for done in asked)
        n_generated = sum(done.n_generated for done in self._ends.values())
        return wire.Usage(
            prompt_tokens=n_prompt,
            completion_tokens=n_generated,
            total_tokens=n_prompt + n_generated,
            prompt_tokens_details=wire.CachedTokens(
                cached_tokens=sum(done.n_cached for done in asked)
            ),
        )


class ChatForm:
    """Writes the chunks of one choice.

    Args:
        tally: shared by the choices of an answer; given when the client wants the usage, which the last one writes.
    """

    def __init__(self, answer: Answering, index: int = 0, tally: Tally | None = None) -> None:
        self._index = index
        self._tally = tally
        opening = _opening(answer)
        self._usage_lead = opening + b'[],"usage":'
        self._head = opening + b'[{"index":%d,"delta":{' % index
        self._lead = self._head + b'"role":"assistant",'
        self._is_first = True
        self._n_calls = 0

    def line(self, event: TurnEvent, *, load_ns: int, total_ns: Callable[[], int]) -> bytes:
        """The chunks of one event, empty for one that says nothing. Raises OlmError for a cancelled turn."""
        if isinstance(event, Piece):
            return self._piece(event)
        if isinstance(event, CallArguments):
            return self._chunk(_ARGUMENTS % (event.index, json_text(event.json)))
        if isinstance(event, CallStart):
            call = (event.index, json_text(event.id), json_text(event.name))
            return self._chunk(_CALL % call)
        if isinstance(event, CallEnd):
            self._n_calls += event.call is not None
            return b""
        return self._end(event)

    def _piece(self, piece: Piece) -> bytes:
        if not piece.logprobs and not piece.thinking:
            return self._chunk(b'"content":' + json_text(piece.content)) if piece.content else b""
        logprobs = _logprobs_field(piece.logprobs)
        if not piece.thinking:
            return self._chunk(b'"content":' + json_text(piece.content), logprobs)
        if not piece.content:
            return self._chunk(b'"content":"","reasoning":' + json_text(piece.thinking), logprobs)
        # Both in one event are two chunks; the first carries the logprobs.
        thinking = self._chunk(b'"reasoning":' + json_text(piece.thinking), logprobs)
        return thinking + self._chunk(b'"content":' + json_text(piece.content))

    def _chunk(self, delta: bytes, logprobs: bytes = b"") -> bytes:
        lead = self._lead
        if self._is_first:
            self._is_first, self._lead = False, self._head
        if logprobs:
            return lead + delta + b'},"finish_reason":null' + logprobs + b"}]}\n\n"
        return lead + delta + _CHUNK_END

    def _end(self, done: Done) -> bytes:
        reason = finish_reason(done, has_calls=self._n_calls > 0)
        first = self._chunk(b'"content":""') if self._is_first else b""
        last = self._head + b'},"finish_reason":' + json_text(reason) + b"}]}\n\n"
        return first + last + usage_chunk(self._usage_lead, self._tally, self._index, done)


def usage_chunk(lead: bytes, tally: Tally | None, index: int, done: Done) -> bytes:
    """The chunk that tells the usage, after the last choice's end and if it is wanted; else nothing.

    Args:
        lead: the chunk up to its usage.
    """
    if tally is None or not tally.add(index, done):
        return b""
    return lead + to_json(tally.usage()) + b"}\n\n"


def chat_document(answer: Answering, turns: Sequence[Sequence[TurnEvent]]) -> bytes:
    """Everything in one document (`stream: false`): the turns are the choices, all for one prompt.

    Raises:
        OlmError: a turn was cancelled or ended without saying how.
    """
    tally = Tally(len(turns), len(turns))
    choices = [_choice(index, events, tally) for index, events in enumerate(turns)]
    return _document(answer, choices, tally.usage())


def chat_rendered(answer: Answering, prompt: RenderedPrompt) -> bytes:
    """The answer of `_debug_render_only`; its message is empty, the role included."""
    empty = wire.ChatChoice(
        index=0, message=wire.ChatMessage(role="", content=""), finish_reason=None
    )
    return _document(answer, [empty], Tally().usage(), debug_info(prompt))


def debug_info(prompt: RenderedPrompt) -> DebugInfo:
    """What `_debug_render_only` tells."""
    return DebugInfo(rendered_template=prompt.text, image_count=prompt.n_images)


def finish_reason(done: Done, *, has_calls: bool = False) -> str:
    """Why a choice ended. Calls are the reason only when the turn ended by itself. Raises OlmError when cancelled."""
    reason = reason_of(done)
    return "tool_calls" if has_calls and reason == "stop" else reason


def _opening(answer: Answering) -> bytes:
    parts = (
        json_text(answer.id),
        answer.created_s,
        json_text(answer.model),
        json_text(wire.FINGERPRINT),
    )
    return (
        b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,'
        b'"system_fingerprint":%b,"choices":' % parts
    )


def _document(
    answer: Answering,
    choices: list[wire.ChatChoice],
    usage: wire.Usage,
    info: DebugInfo | None = None,
) -> bytes:
    return to_json(
        wire.ChatCompletion(
            id=answer.id,
            object="chat.completion",
            created=answer.created_s,
            model=answer.model,
            system_fingerprint=wire.FINGERPRINT,
            choices=choices,
            usage=usage,
            debug_info=info,
        )
    )


def _choice(index: int, events: Sequence[TurnEvent], tally: Tally) -> wire.ChatChoice:
    said, done = merged(events)
    tally.add(index, done)
    return wire.ChatChoice(
        index=index,
        message=wire.ChatMessage(
            role="assistant",
            content=said.content,
            reasoning=said.thinking,
            tool_calls=[_call(call) for call in said.calls] or None,
        ),
        finish_reason=finish_reason(done, has_calls=bool(said.calls)),
        logprobs=_logprobs(said.logprobs) if said.logprobs else None,
    )


def _call(call: ToolCall) -> wire.FunctionCall:
    return wire.FunctionCall(
        id=call.id,
        index=call.index,
        type="function",
        function=wire.CallFunction(name=call.name, arguments=call.arguments_json),
    )


def _logprobs_field(entries: Sequence[TokenLogprob]) -> bytes:
    return b',"logprobs":' + to_json(_logprobs(entries)) if entries else b""


def _logprobs(entries: Sequence[TokenLogprob]) -> wire.ChatLogprobs:
    return wire.ChatLogprobs(content=token_logprobs(entries))


def token_logprobs(entries: Sequence[TokenLogprob]) -> list[wire.TokenLogprob]:
    """Log-probabilities of tokens, in the form of chat and of responses."""
    return [
        wire.TokenLogprob(
            token=entry.token.decode("utf-8", "replace"),
            logprob=entry.logprob,
            bytes=list(entry.token),
            top_logprobs=[
                wire.TopLogprob(
                    token=top.token.decode("utf-8", "replace"),
                    logprob=top.logprob,
                    bytes=list(top.token),
                )
                for top in entry.top
            ],
        )
        for entry in entries
    ]
