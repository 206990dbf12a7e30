"""What becomes of the engine's events on their way to a turn's stream: parsed text, logprobs, calls that break off."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import attrs
import msgspec
import pytest

from olm.chat.parsers import PARSERS, ParseInput, Parser
from olm.chat.rendering import Rendered
from olm.chat.tools import read_tools
from olm.chat.types import (
    AnswerEvent,
    CallEnd,
    CallStart,
    ChatMessage,
    ChatPrompt,
    Done,
    DoneReason,
    Piece,
    Sampling,
    TokenLogprob,
    ToolCall,
    TurnEvent,
)
from olm.native import engine as native
from olm.native.answers import TurnAnswer
from olm.native.feeds import Feed
from olm.native.prompting import Prepared
from olm.native.wire import Turn

pytestmark = pytest.mark.native

CALL = '<tool_call>\n{"name": "remove", "arguments": {"path": "/home/ann/old"}}'
TURN = Turn(prompt=ChatPrompt(messages=(ChatMessage("user", "hi"),)))
LOGPROB = (TokenLogprob(b"x", -0.5),)


@attrs.define
class Sink:
    """Stands for a feed: keeps what it is given."""

    events: list[TurnEvent] = attrs.field(factory=list)

    def push(self, event: TurnEvent) -> None:
        self.events.append(event)


def qwen3() -> Parser:
    tools = read_tools('[{"type": "function", "function": {"name": "remove"}}]')
    return PARSERS["qwen3"].make(ParseInput(tools=tools, new_id=lambda: "id"))


def answer(make_parser: Callable[[], Parser] = qwen3) -> tuple[TurnAnswer, Sink]:
    sink = Sink()
    prepared = Prepared((1, 2), Rendered(text="", make_parser=make_parser))
    return TurnAnswer(
        cast("Feed", sink), TURN, prepared
    ), sink  # it has the one method that is called


def done(reason: DoneReason, text: str = "") -> native.Done:
    return native.Done(1, text, (), (), reason, 2, 0, 5, -1, 0, 0)


def test_a_call_without_its_last_marker_is_whole_when_the_model_stopped() -> None:
    turn, sink = answer()

    turn.on_event(native.Piece(1, CALL, (5,)))
    turn.on_event(done("stop"))

    call = ToolCall("remove", '{"path": "/home/ann/old"}', "id")
    assert CallEnd(0, call) in sink.events
    assert isinstance(sink.events[-1], Done)
    assert not sink.events[-1].malformed


def test_a_call_cut_off_by_a_limit_comes_back_as_text() -> None:
    class Guessing:
        """Completes what it has at the end, as some families do."""

        def push(self, text: str) -> list[AnswerEvent]:
            return []

        def finish(self) -> list[AnswerEvent]:
            call = ToolCall("remove", '{"path":"/home/ann"}')
            return [CallStart(0, "id", "remove"), CallEnd(0, call)]

    turn, sink = answer(Guessing)

    turn.on_event(done("length", "remove /home/ann"))

    piece, last = sink.events
    assert piece == Piece(content='remove {"path":"/home/ann"}', malformed=True)
    assert isinstance(last, Done)
    assert last.malformed


@pytest.mark.parametrize(
    ("place", "tell_stop", "told"),
    [
        (1, True, "END"),
        (-1, True, ""),
        (2, True, ""),  # the template's own
        (1, False, ""),  # the Modelfile's
    ],
)
def test_only_a_requests_own_stop_strings_are_told(place: int, tell_stop: bool, told: str) -> None:
    sink = Sink()
    turn = msgspec.structs.replace(TURN, sampling=Sampling(stop=("", "END")), tell_stop=tell_stop)
    answer = TurnAnswer(cast("Feed", sink), turn, Prepared((1, 2)))

    answer.on_event(msgspec.structs.replace(done("stop"), stop=place))

    assert isinstance(sink.events[-1], Done)
    assert sink.events[-1].stop == told


def test_logprobs_go_out_while_text_is_held_back() -> None:
    turn, sink = answer()

    turn.on_event(native.Piece(1, "<tool", (5,), LOGPROB))
    turn.on_event(native.Piece(1, "s are here", (5,), LOGPROB))

    assert sink.events == [
        Piece(logprobs=LOGPROB),
        Piece(content="<tools are here", logprobs=LOGPROB),
    ]


def test_a_parser_that_fails_costs_its_turn_nothing_but_the_parsing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        def push(self, text: str) -> list[AnswerEvent]:
            raise ZeroDivisionError

        def finish(self) -> list[AnswerEvent]:
            raise ZeroDivisionError

    turn, sink = answer(Broken)

    turn.on_event(native.Piece(1, "paid ", (5,)))
    turn.on_event(done("stop", "for"))

    assert sink.events[:2] == [Piece(content="paid ", malformed=True), Piece(content="for")]
    assert cast("Done", sink.events[2]).malformed
    assert "ZeroDivisionError" in caplog.text
