"""What a turn sends back, in Ollama's form: one JSON line an event, or all of them merged into one. Pure.

A streamed token must be cheap, so the constant parts of its line are made once a stream. Source of the form:
spec/ollama §1.4, §1.5, §1.9 and appendix B.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from olm.api import schemas as wire
from olm.chat.types import Done, Piece, TokenLogprob, ToolCall, TurnEvent
from olm.errors import OlmError

__all__ = ["ChatForm", "Form", "GenerateForm", "merge_pieces"]

_string = msgspec.json.Encoder().encode
_DONE_FALSE: Final = b',"done":false}\n'


class Form(Protocol):
    """Writes the events of one turn; made anew for each."""

    def line(self, event: TurnEvent, *, load_ns: int, total_ns: Callable[[], int]) -> bytes:
        """One NDJSON line, empty for an event that says nothing. Raises OlmError for a cancelled turn."""

    def whole(
        self, events: Sequence[TurnEvent], *, load_ns: int, total_ns: Callable[[], int]
    ) -> bytes:
        """Everything in one JSON document (`stream: false`)."""


class _Clock:
    """The wall clock of one stream, as stamps; the source is replaced in tests."""

    def __init__(self, epoch_ns: Callable[[], int] = time.time_ns) -> None:
        self._epoch_ns = epoch_ns
        self._stamper = wire.Stamper()

    def stamp(self) -> str:
        return self._stamper.stamp(self._epoch_ns())


class _BaseForm:
    def __init__(self, model: str, *, epoch_ns: Callable[[], int] = time.time_ns) -> None:
        self._model = model
        self._clock = _Clock(epoch_ns)
        self._head = b'{"model":' + wire.go_escape(_string(model)) + b',"created_at":"'


class ChatForm(_BaseForm):
    """`/api/chat`: `message` objects. Merged answers carry tool calls only when the request had tools."""

    _MIDDLE: Final = b'","message":{"role":"assistant","content":'

    def __init__(
        self, model: str, *, has_tools: bool = False, epoch_ns: Callable[[], int] = time.time_ns
    ) -> None:
        super().__init__(model, epoch_ns=epoch_ns)
        self._has_tools = has_tools

    def line(self, event: TurnEvent, *, load_ns: int, total_ns: Callable[[], int]) -> bytes:
        """One line of the stream."""
        if isinstance(event, Done):
            return self._final(Piece(), event, load_ns, total_ns()) + b"\n"
        if event.content and not (event.thinking or event.tool_calls or event.logprobs):
            content = wire.go_escape(_string(event.content))
            stamp = self._clock.stamp().encode()
            return self._head + stamp + self._MIDDLE + content + b"}" + _DONE_FALSE
        if event == Piece():
            return b""
        response = wire.ChatResponse(
            model=self._model,
            created_at=self._clock.stamp(),
            message=_chat_message(event),
            done=False,
            logprobs=_logprobs(event.logprobs),
        )
        return wire.to_json(response) + b"\n"

    def whole(
        self, events: Sequence[TurnEvent], *, load_ns: int, total_ns: Callable[[], int]
    ) -> bytes:
        """The merged answer."""
        piece, done = merge_pieces(events)
        if not self._has_tools:
            piece = msgspec.structs.replace(piece, tool_calls=())
        return self._final(piece, done, load_ns, total_ns())

    def without_turn(self, reason: str) -> bytes:
        """The answer of a request that only loads or unloads."""
        return wire.to_json(
            wire.ChatResponse(
                model=self._model,
                created_at=self._clock.stamp(),
                message=wire.ResponseMessage(role="assistant", content=""),
                done=True,
                done_reason=reason,
            )
        )

    def _final(self, piece: Piece, done: Done, load_ns: int, total_ns: int) -> bytes:
        return wire.to_json(
            wire.ChatResponse(
                model=self._model,
                created_at=self._clock.stamp(),
                message=_chat_message(piece),
                done=True,
                done_reason=_reason(done),
                logprobs=_logprobs(piece.logprobs),
                **_metrics(done, load_ns, total_ns),
            )
        )


class GenerateForm(_BaseForm):
    """`/api/generate`: `response` texts; tool calls are told with the last line."""

    _MIDDLE: Final = b'","response":'

    def __init__(self, model: str, *, epoch_ns: Callable[[], int] = time.time_ns) -> None:
        super().__init__(model, epoch_ns=epoch_ns)
        self._tool_calls: tuple[ToolCall, ...] = ()

    def line(self, event: TurnEvent, *, load_ns: int, total_ns: Callable[[], int]) -> bytes:
        """One line of the stream."""
        if isinstance(event, Done):
            rest = Piece(tool_calls=self._tool_calls)
            return self._final(rest, event, load_ns, total_ns()) + b"\n"
        self._tool_calls += event.tool_calls
        if event.content and not (event.thinking or event.logprobs):
            content = wire.go_escape(_string(event.content))
            return self._head + self._clock.stamp().encode() + self._MIDDLE + content + _DONE_FALSE
        if not (event.thinking or event.logprobs):
            return b""
        response = wire.GenerateResponse(
            model=self._model,
            created_at=self._clock.stamp(),
            response=event.content,
            thinking=event.thinking,
            done=False,
            logprobs=_logprobs(event.logprobs),
        )
        return wire.to_json(response) + b"\n"

    def whole(
        self, events: Sequence[TurnEvent], *, load_ns: int, total_ns: Callable[[], int]
    ) -> bytes:
        """The merged answer."""
        piece, done = merge_pieces(events)
        return self._final(piece, done, load_ns, total_ns())

    def without_turn(self, reason: str) -> bytes:
        """The answer of a request that only loads or unloads."""
        return wire.to_json(
            wire.GenerateResponse(
                model=self._model,
                created_at=self._clock.stamp(),
                response="",
                done=True,
                done_reason=reason,
            )
        )

    def _final(self, piece: Piece, done: Done, load_ns: int, total_ns: int) -> bytes:
        return wire.to_json(
            wire.GenerateResponse(
                model=self._model,
                created_at=self._clock.stamp(),
                response=piece.content,
                thinking=piece.thinking,
                done=True,
                done_reason=_reason(done),
                context=done.context,
                tool_calls=_calls(piece.tool_calls),
                logprobs=_logprobs(piece.logprobs),
                **_metrics(done, load_ns, total_ns),
            )
        )


def merge_pieces(events: Sequence[TurnEvent]) -> tuple[Piece, Done]:
    """Put the pieces of a whole turn together.

    Raises:
        OlmError: the turn ended without saying how.
    """
    pieces = [event for event in events if isinstance(event, Piece)]
    done = next((event for event in events if isinstance(event, Done)), None)
    if done is None:
        raise OlmError("the answer ended without a final event")
    merged = Piece(
        content="".join(piece.content for piece in pieces),
        thinking="".join(piece.thinking for piece in pieces),
        tool_calls=tuple(call for piece in pieces for call in piece.tool_calls),
        logprobs=tuple(entry for piece in pieces for entry in piece.logprobs),
    )
    return merged, done


def _reason(done: Done) -> str:
    if done.reason == "cancelled":
        # Ollama's text and status for a request that was called off before it ended
        raise OlmError("request canceled", status=499)
    return done.reason


def _metrics(done: Done, load_ns: int, total_ns: int) -> dict[str, int]:
    return {
        "total_duration": total_ns,
        "load_duration": load_ns,
        "prompt_eval_count": done.n_prompt,
        "prompt_eval_cached_count": done.n_cached,
        "prompt_eval_duration": done.prompt_ns,
        "eval_count": done.n_generated,
        "eval_duration": done.eval_ns,
    }


def _chat_message(piece: Piece) -> wire.ResponseMessage:
    return wire.ResponseMessage(
        role="assistant",
        content=piece.content,
        thinking=piece.thinking,
        tool_calls=_calls(piece.tool_calls),
    )


def _calls(calls: Sequence[ToolCall]) -> list[wire.Call] | None:
    if not calls:
        return None
    return [
        wire.Call(
            id=call.id,
            function=wire.CallFunction(
                index=call.index,
                name=call.name,
                arguments=msgspec.Raw(call.arguments_json.encode()),
            ),
        )
        for call in calls
    ]


def _logprobs(entries: Sequence[TokenLogprob]) -> list[wire.Logprob] | None:
    if not entries:
        return None
    return [
        wire.Logprob(
            token=entry.token.decode("utf-8", "replace"),
            logprob=entry.logprob,
            bytes=list(entry.token),
            top_logprobs=[
                wire.TokenProb(
                    token=top.token.decode("utf-8", "replace"),
                    logprob=top.logprob,
                    bytes=list(top.token),
                )
                for top in entry.top
            ]
            or None,
        )
        for entry in entries
    ]
