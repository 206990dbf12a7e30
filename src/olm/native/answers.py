"""Requests that the engine works on, and what becomes of its events: pieces of a turn, or the vectors of an embedding.

Translation and the parsing of text, no I/O; the pace of streams is kept in `feeds`, submitting and cancelling is `worker`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import trio

from olm.chat import types
from olm.chat.parsers import Parser
from olm.errors import InvalidRequest, NativeError, OlmError
from olm.log import get_logger
from olm.native import engine as native
from olm.native import wire
from olm.native.engine import Event, Failed
from olm.native.feeds import Feed
from olm.native.loaded import portable
from olm.native.prompting import Prepared

__all__ = ["EmbeddingAnswer", "TurnAnswer"]

Logprobs = tuple[types.TokenLogprob, ...]

_log = get_logger("worker")


class TurnAnswer:
    """A running turn: writes the engine's events as the chat's own, its text taken apart by the parser of the turn."""

    __slots__ = ("_context", "_malformed", "_parser", "_stops", "_truncated", "feed")

    def __init__(self, feed: Feed, msg: wire.Turn, prepared: Prepared) -> None:
        self.feed = feed
        self._truncated = prepared.truncated
        self._context = list(prepared.tokens) if msg.want_context else None
        # The engine's list of stops begins with these; a template's own come behind, and are not told.
        self._stops = msg.sampling.stop if msg.tell_stop else ()
        self._parser = _parser(prepared)
        self._malformed = False

    def on_event(self, event: Event) -> None:
        """Take one event of this request."""
        match event:
            case native.Piece():
                self._piece(event)
            case native.Done():
                self._piece(event)
                rest = self._parse(None)
                self._push(rest if event.reason == "stop" else _broken_off(rest), ())
                self.feed.push(self._done(event))
            case Failed():
                self.feed.fail(_run_error(event))
            case native.Progress() | native.Embedding():
                pass
            case _:
                assert_never(event)

    def _piece(self, event: native.Piece | native.Done) -> None:
        if self._context is not None:
            self._context.extend(event.tokens)
        if event.text or event.logprobs:
            self._push(self._parse(event.text), event.logprobs)

    def _parse(self, text: str | None) -> list[types.AnswerEvent]:
        """Give the parser more text, or None for the end of it."""
        if self._parser is None:
            return [types.Piece(content=text)] if text else []
        try:
            return self._parser.finish() if text is None else self._parser.push(text)
        except Exception:
            # A bug of one parser: the answer is paid for, and the other turns have no part in it.
            _log.exception("a parser failed; the rest of the answer is passed on as it is")
            self._parser = None
            return [types.Piece(content=text or "", malformed=True)]

    def _push(self, events: Sequence[types.AnswerEvent], logprobs: Logprobs) -> None:
        """Hand over what the parser gave; logprobs go out with their step, even when its text is held back."""
        if logprobs:
            match events:
                case [types.Piece(content, thinking, _, malformed), *rest]:
                    events = [types.Piece(content, thinking, logprobs, malformed), *rest]
                case _:
                    events = [types.Piece(logprobs=logprobs), *events]
        for event in events:
            self._malformed = self._malformed or (
                isinstance(event, types.Piece) and event.malformed
            )
            self.feed.push(event)

    def _done(self, event: native.Done) -> types.Done:
        return types.Done(
            reason=event.reason,
            n_prompt=event.n_prompt,
            n_cached=event.n_cached,
            # The engine leaves the end token out; Ollama's eval_count has it.
            n_generated=event.n_generated + (event.end_token >= 0),
            prompt_ns=event.prompt_ns,
            eval_ns=event.eval_ns,
            context=tuple(self._context or ()),
            truncated=self._truncated,
            malformed=self._malformed,
            stop=self._stops[event.stop] if 0 <= event.stop < len(self._stops) else "",
        )


def _parser(prepared: Prepared) -> Parser | None:
    if prepared.rendered is None:
        return None
    try:
        return prepared.rendered.make_parser()
    except Exception:
        _log.exception("a parser could not be made; the answer is passed on as it is")
        return None


def _broken_off(rest: Sequence[types.AnswerEvent]) -> list[types.AnswerEvent]:
    """Take back the calls that a parser completed by guess at the end of a text that was cut off.

    A model may forget the last marker, and then the call is whole. But when it ran out of tokens, half of an argument may
    be missing, and nobody should run such a call: it comes back as text.
    """
    kept: list[types.AnswerEvent] = []
    started = {event.index for event in rest if isinstance(event, types.CallStart)}
    for event in rest:
        match event:
            case types.CallEnd(index, types.ToolCall() as call):
                kept += [] if index in started else [types.CallEnd(index, None)]
                text = f"{call.name} {call.arguments_json}"
                kept.append(types.Piece(content=text, malformed=True))
            case types.CallStart() | types.CallArguments():
                pass
            case _:
                kept.append(event)
    return kept


class EmbeddingAnswer:
    """A running embedding request."""

    __slots__ = ("_event", "_signal")

    def __init__(self) -> None:
        self._event: Event | None = None
        self._signal = trio.Event()

    @property
    def is_done(self) -> bool:
        """Whether the engine has answered."""
        return self._event is not None

    def on_event(self, event: Event) -> None:
        """Take one event of this request."""
        if not isinstance(event, native.Progress):
            self._event = event
            self._signal.set()

    async def wait(self) -> native.Embedding:
        """Wait for the vectors. Raises what the engine failed with."""
        await self._signal.wait()
        match self._event:
            case native.Embedding() as embedding:
                return embedding
            case Failed() as failed:
                raise _run_error(failed)
            case other:
                raise NativeError(f"the engine ended an embedding request with {other!r}")


def _run_error(failed: Failed) -> OlmError:
    """Say that a running request failed, in Ollama's words (spec/ollama §1.12), unless the request itself is wrong."""
    error = portable(failed.error)
    if isinstance(error, InvalidRequest):
        return error
    text = f"an error was encountered while running the model: {error.message}"
    return type(error)(text, **error.details)
