"""What a turn sends back, in Ollama's form: one JSON line an event, or all of them merged into one. Pure.

A tool call is told whole, at its end: the form has no place for parts of one. A streamed token must be cheap, so the
constant parts of its line are made once a stream. Source of the form: spec/ollama §1.4, §1.5, §1.9 and appendix B.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol, TypedDict

import attrs
import msgspec

from olm.actors.client import RenderedPrompt
from olm.api import schemas as wire
from olm.api.dialects.turn import Answer, merged, reason_of
from olm.api.encoding import Stamper, json_text, to_json
from olm.chat.types import CallEnd, Done, Piece, TokenLogprob, ToolCall, TurnEvent

__all__ = ["ChatForm", "Form", "GenerateForm"]


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
        self._stamper = Stamper()

    def stamp(self) -> str:
        return self._stamper.stamp(self._epoch_ns())


class _BaseForm(ABC):
    """What both forms share: which event makes a line, and the cheap way to spell the commonest two."""

    _CONTENT: ClassVar[bytes]
    _THINKING: ClassVar[bytes]
    _END: ClassVar[bytes]

    def __init__(self, model: str, *, epoch_ns: Callable[[], int] = time.time_ns) -> None:
        self._model = model
        self._clock = _Clock(epoch_ns)
        self._head = b'{"model":' + json_text(model) + b',"created_at":"'

    def line(self, event: TurnEvent, *, load_ns: int, total_ns: Callable[[], int]) -> bytes:
        """One line of the stream."""
        if isinstance(event, Piece):
            return self._piece(event)
        if isinstance(event, CallEnd):
            return self._call(event.call) if event.call is not None else b""
        if isinstance(event, Done):
            return self._final(self._rest(), event, load_ns, total_ns()) + b"\n"
        return b""  # the beginning and the parts of a call: Ollama's clients want it whole

    def _piece(self, piece: Piece) -> bytes:
        if not piece.logprobs:
            if not piece.thinking:
                return self._spell(self._CONTENT, piece.content) if piece.content else b""
            if not piece.content:
                return self._spell(self._THINKING, piece.thinking)
        # Logprobs flow while a parser holds its text back, so the content may be empty.
        return self._line(Answer(piece.content, piece.thinking, logprobs=piece.logprobs))

    def _spell(self, middle: bytes, text: str) -> bytes:
        stamp = self._clock.stamp().encode()
        return self._head + stamp + middle + json_text(text) + self._END

    @abstractmethod
    def _call(self, call: ToolCall) -> bytes:
        """The line of a whole tool call."""

    def _rest(self) -> Answer:
        """What is left to be said in the last line of a stream."""
        return Answer()

    @abstractmethod
    def _line(self, answer: Answer) -> bytes:
        """A line of the stream that is not the last."""

    @abstractmethod
    def _final(self, answer: Answer, done: Done, load_ns: int, total_ns: int) -> bytes:
        """The last document, counts included."""


class ChatForm(_BaseForm):
    """`/api/chat`: `message` objects. Merged answers carry tool calls only when the request had tools."""

    _CONTENT = b'","message":{"role":"assistant","content":'
    _THINKING = b'","message":{"role":"assistant","content":"","thinking":'
    _END = b'},"done":false}\n'

    def __init__(
        self, model: str, *, has_tools: bool = False, epoch_ns: Callable[[], int] = time.time_ns
    ) -> None:
        super().__init__(model, epoch_ns=epoch_ns)
        self._has_tools = has_tools

    def whole(
        self, events: Sequence[TurnEvent], *, load_ns: int, total_ns: Callable[[], int]
    ) -> bytes:
        """The merged answer."""
        answer, done = merged(events)
        if not self._has_tools:
            answer = attrs.evolve(answer, calls=())
        return self._final(answer, done, load_ns, total_ns())

    def without_turn(self, reason: str) -> bytes:
        """The answer of a request that only loads or unloads."""
        return to_json(
            wire.ChatResponse(
                model=self._model,
                created_at=self._clock.stamp(),
                message=wire.ResponseMessage(role="assistant", content=""),
                done=True,
                done_reason=reason,
            )
        )

    def rendered(self, prompt: RenderedPrompt) -> bytes:
        """The answer of `_debug_render_only`; its message is empty, the role included (spec §1.5)."""
        return to_json(
            wire.ChatResponse(
                model=self._model,
                created_at=self._clock.stamp(),
                message=wire.ResponseMessage(role="", content=""),
                done=False,
                debug_info=_debug_info(prompt),
            )
        )

    def _call(self, call: ToolCall) -> bytes:
        return self._line(Answer(calls=(call,)))

    def _line(self, answer: Answer) -> bytes:
        response = wire.ChatResponse(
            model=self._model,
            created_at=self._clock.stamp(),
            message=_chat_message(answer),
            done=False,
            logprobs=_logprobs(answer.logprobs),
        )
        return to_json(response) + b"\n"

    def _final(self, answer: Answer, done: Done, load_ns: int, total_ns: int) -> bytes:
        return to_json(
            wire.ChatResponse(
                model=self._model,
                created_at=self._clock.stamp(),
                message=_chat_message(answer),
                done=True,
                done_reason=reason_of(done),
                logprobs=_logprobs(answer.logprobs),
                **_ending(done, load_ns, total_ns),
            )
        )


class GenerateForm(_BaseForm):
    """`/api/generate`: `response` texts; tool calls are told with the last line."""

    _CONTENT = b'","response":'
    _THINKING = b'","response":"","thinking":'
    _END = b',"done":false}\n'

    def __init__(self, model: str, *, epoch_ns: Callable[[], int] = time.time_ns) -> None:
        super().__init__(model, epoch_ns=epoch_ns)
        self._calls: list[ToolCall] = []

    def whole(
        self, events: Sequence[TurnEvent], *, load_ns: int, total_ns: Callable[[], int]
    ) -> bytes:
        """The merged answer."""
        answer, done = merged(events)
        return self._final(answer, done, load_ns, total_ns())

    def without_turn(self, reason: str) -> bytes:
        """The answer of a request that only loads or unloads."""
        return to_json(
            wire.GenerateResponse(
                model=self._model,
                created_at=self._clock.stamp(),
                response="",
                done=True,
                done_reason=reason,
            )
        )

    def rendered(self, prompt: RenderedPrompt) -> bytes:
        """The answer of `_debug_render_only`."""
        return to_json(
            wire.GenerateResponse(
                model=self._model,
                created_at=self._clock.stamp(),
                response="",
                done=False,
                debug_info=_debug_info(prompt),
            )
        )

    def _call(self, call: ToolCall) -> bytes:
        self._calls.append(call)
        return b""

    def _rest(self) -> Answer:
        return Answer(calls=self._calls)

    def _line(self, answer: Answer) -> bytes:
        response = wire.GenerateResponse(
            model=self._model,
            created_at=self._clock.stamp(),
            response=answer.content,
            thinking=answer.thinking,
            done=False,
            logprobs=_logprobs(answer.logprobs),
        )
        return to_json(response) + b"\n"

    def _final(self, answer: Answer, done: Done, load_ns: int, total_ns: int) -> bytes:
        return to_json(
            wire.GenerateResponse(
                model=self._model,
                created_at=self._clock.stamp(),
                response=answer.content,
                thinking=answer.thinking,
                done=True,
                done_reason=reason_of(done),
                context=done.context,
                tool_calls=_calls(answer.calls),
                logprobs=_logprobs(answer.logprobs),
                **_ending(done, load_ns, total_ns),
            )
        )


class _Ending(TypedDict):
    """The fields of a last line that both forms have. `truncated` and `malformed_tool_call` are olm's additions."""

    total_duration: int
    load_duration: int
    prompt_eval_count: int
    prompt_eval_cached_count: int
    truncated: bool
    prompt_eval_duration: int
    eval_count: int
    eval_duration: int
    malformed_tool_call: bool


def _ending(done: Done, load_ns: int, total_ns: int) -> _Ending:
    return {
        "total_duration": total_ns,
        "load_duration": load_ns,
        "prompt_eval_count": done.n_prompt,
        "prompt_eval_cached_count": done.n_cached,
        "truncated": done.truncated,
        "prompt_eval_duration": done.prompt_ns,
        "eval_count": done.n_generated,
        "eval_duration": done.eval_ns,
        "malformed_tool_call": done.malformed,
    }


def _debug_info(prompt: RenderedPrompt) -> wire.DebugInfo:
    return wire.DebugInfo(rendered_template=prompt.text, image_count=prompt.n_images)


def _chat_message(answer: Answer) -> wire.ResponseMessage:
    return wire.ResponseMessage(
        role="assistant",
        content=answer.content,
        thinking=answer.thinking,
        tool_calls=_calls(answer.calls),
    )


def _calls(calls: Sequence[ToolCall]) -> list[wire.Call] | None:
    if not calls:
        return None
    return [
        wire.Call(
            id=call.id,
            function=wire.CallFunction(
                index=call.index, name=call.name, arguments=_one_line(call.arguments_json)
            ),
        )
        for call in calls
    ]


def _one_line(arguments_json: str) -> msgspec.Raw:
    """Arguments as the model ordered them, without the blanks it put between them: a line break would cut the line."""
    return msgspec.Raw(msgspec.json.format(arguments_json.encode(), indent=-1))


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
