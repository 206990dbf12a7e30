"""What the tests of parsers and renderers share: tools, joined events, cuts, and the form of a family's samples.

A family registers itself with a file `samples_<family>.py` in this folder, which may hold:

    SAMPLES: list[Sample]   answers as a model writes them, and what they must become (fields left None are not checked)
    PAIRS: list[Pair]       renderers whose assistant turns a parser must read back

`test_registry.py` collects them all: every sample is also re-chunked, cut short, and fed character by character.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

import attrs
import llguidance
from hypothesis import strategies as st

from olm.chat.parsers import PARSERS, ParseInput, Parser, ParserFamily
from olm.chat.tools import Tool, read_tools
from olm.chat.types import AnswerEvent, CallArguments, CallEnd, CallStart, Piece, Think

__all__ = [
    "TOOLS",
    "Answer",
    "Pair",
    "Sample",
    "answer_of",
    "cut",
    "cuts",
    "events_of",
    "ids",
    "is_accepted",
    "joined",
    "make_parser",
    "make_tool",
    "pairs",
    "rechunk_property",
    "samples",
]

Call = tuple[str, dict[str, object]]
_N_BEGINNINGS = 12
_N_CUTS = 120
"""So many beginnings of a sample and cuts in two are tried, evenly spread: enough for every state and every sample."""


def make_tool(name: str, properties: dict[str, object], **more: object) -> Tool:
    """Make a tool whose parameters have these schemas. `more` goes beside `properties`, as `required=[…]`."""
    parameters = {"type": "object", "properties": properties, **more}
    function = {"name": name, "description": f"Do {name}.", "parameters": parameters}
    return read_tools(json.dumps([{"type": "function", "function": function}]))[0]


TOOLS = (
    make_tool(
        "get_weather",
        {
            "city": {"type": "string", "description": "Where"},
            "days": {"type": "integer"},
            "metric": {"type": "boolean"},
            "parts": {"type": "array", "items": {"type": "string"}},
            "limits": {"type": "object", "properties": {"low": {"type": "number"}}},
        },
        required=["city"],
    ),
    make_tool("add", {"a": {"type": "number"}, "b": {"type": "number"}}, required=["a", "b"]),
    make_tool("now", {}),
)


@attrs.frozen(kw_only=True)
class Sample:
    """An answer's text for a parser, and what must come of it. `calls` are pairs of a name and its arguments."""

    parser: str
    text: str
    tools: Sequence[Tool] = TOOLS
    think: Think | None = None
    prompt: str = ""
    prefill: str | None = None
    content: str | None = None
    thinking: str | None = None
    calls: Sequence[Call] | None = None
    malformed: bool | None = None


@attrs.frozen(kw_only=True)
class Pair:
    """A renderer, the parser of its family, and where an assistant turn stands in the prompt.

    Attributes:
        opening, closing: what surrounds the turn: the part between the first `opening` and the next `closing` is parsed.
            ChatML's unless said.
        think: what is asked of both sides.
        keeps_thinking, keeps_content: whether the renderer writes them beside tool calls in the turn after the last
            question; what it drops is not expected back.
        max_calls: how many calls the family can write in a turn.
    """

    renderer: str
    parser: str
    opening: str = "<|im_start|>assistant\n"
    closing: str = "<|im_end|>"
    think: Think | None = None
    keeps_thinking: bool = False
    keeps_content: bool = True
    max_calls: int = 2


@attrs.frozen
class Answer:
    """All events of an answer, added up. `broken` counts the calls that ended with None."""

    content: str
    thinking: str
    calls: list[Call]
    malformed: str = ""
    broken: int = 0


def ids() -> Iterable[str]:
    """Name calls `call_0`, `call_1`, …, as a parser's `new_id` under test."""
    return (f"call_{number}" for number in itertools.count())


def make_parser(sample: Sample) -> Parser:
    """Make the parser of a sample with countable ids."""
    names = iter(ids())
    given_input = ParseInput(
        tools=sample.tools,
        think=sample.think,
        prompt=sample.prompt,
        prefill=sample.prefill,
        new_id=lambda: next(names),
    )
    return PARSERS[sample.parser].make(given_input)


def events_of(parser: Parser, parts: Iterable[str]) -> list[AnswerEvent]:
    """Push the parts and finish; joined events."""
    events = [event for part in parts for event in parser.push(part)]
    return joined([*events, *parser.finish()])


def joined(events: Iterable[AnswerEvent]) -> list[AnswerEvent]:
    """Join neighbouring pieces of one kind and neighbouring arguments of one call; empty ones are dropped."""
    whole: list[AnswerEvent] = []
    for event in itertools.chain.from_iterable(_split(event) for event in events):
        last = whole[-1] if whole else None
        if isinstance(event, CallArguments) and isinstance(last, CallArguments):
            assert event.index == last.index, "arguments of two calls must not be mixed"
            whole[-1] = CallArguments(event.index, last.json + event.json)
        elif isinstance(event, Piece) and isinstance(last, Piece) and _kind(event) == _kind(last):
            whole[-1] = Piece(
                last.content + event.content,
                last.thinking + event.thinking,
                malformed=last.malformed,
            )
        else:
            whole.append(event)
    return whole


def _split(event: AnswerEvent) -> list[AnswerEvent]:
    if not isinstance(event, Piece):
        return [event]
    parts: list[AnswerEvent] = []
    if event.thinking:
        parts.append(Piece(thinking=event.thinking))
    if event.content:
        parts.append(Piece(content=event.content, malformed=event.malformed))
    return parts


def _kind(piece: Piece) -> tuple[bool, bool]:
    return bool(piece.thinking), piece.malformed


def answer_of(events: Iterable[AnswerEvent]) -> Answer:
    """Add events up, and assert that they obey the contract: indices from 0, deltas that make the whole, ends for starts."""
    content = thinking = malformed = ""
    calls: list[Call] = []
    open_call: CallStart | None = None
    parts: list[str] = []
    n_started = broken = 0
    for event in events:
        if isinstance(event, Piece):
            content += event.content
            thinking += event.thinking
            malformed += event.content if event.malformed else ""
        elif isinstance(event, CallStart):
            assert open_call is None, "the call before has ended"
            assert event.index == n_started, "indices count from 0"
            assert event.name, "a call has a name"
            open_call, parts, n_started = event, [], n_started + 1
        elif isinstance(event, CallArguments):
            assert open_call is not None, "arguments stand in a call"
            assert event.index == open_call.index
            parts.append(event.json)
        else:
            assert open_call is not None, "an end has a start"
            if event.call is None:
                broken += 1
            else:
                calls.append(_checked(event, open_call, "".join(parts)))
            open_call = None
    assert open_call is None, "every call ends"
    return Answer(content, thinking, calls, malformed, broken)


def _checked(event: CallEnd, start: CallStart, arguments_json: str) -> Call:
    call = event.call
    assert call is not None
    assert (call.index, call.id, call.name) == (start.index, start.id, start.name)
    assert call.arguments_json == arguments_json, "the deltas add up to the whole"
    arguments = json.loads(arguments_json)
    assert isinstance(arguments, dict), "arguments are an object"
    return call.name, arguments


def cut(text: str, places: Iterable[int]) -> list[str]:
    """Cut a text at these places; those outside of it are ignored."""
    inside = sorted({0, len(text), *(place for place in places if 0 < place < len(text))})
    return [text[a:b] for a, b in itertools.pairwise(inside)]


def cuts(text: str) -> st.SearchStrategy[list[str]]:
    """Draw ways to cut a text into parts, whole and single characters among them."""
    if len(text) < 2:
        return st.just([text])
    some = st.lists(st.integers(1, len(text) - 1), max_size=12).map(lambda at: cut(text, at))
    return some | st.just(list(text)) | st.just([text])


def rechunk_property(sample: Sample) -> None:
    """Assert that the joined events of a sample do not depend on how its text is cut, and that any beginning is read.

    Cuts in two and the cut into characters are tried; other cuts are drawn by the tests of `test_registry`.
    """
    text = sample.text
    whole = events_of(make_parser(sample), [text])

    answer_of(whole)
    assert events_of(make_parser(sample), list(text)) == whole
    for at in range(1, len(text), max(1, len(text) // _N_CUTS)):
        assert events_of(make_parser(sample), [text[:at], text[at:]]) == whole, at
    for end in range(0, len(text), max(1, len(text) // _N_BEGINNINGS)):
        beginning = events_of(make_parser(sample), [text[:end]])
        answer_of(beginning)
        assert events_of(make_parser(sample), list(text[:end])) == beginning, end


def is_accepted(
    family: ParserFamily, text: str, tools: Sequence[Tool], *, parallel: bool = True
) -> bool:
    """Say whether a family's grammar of calls accepts a text from the trigger to the end of the last call."""
    assert family.calls is not None
    matcher = _matcher("start: calls\n" + family.calls.lark(tools, parallel)).deep_copy()
    taken = matcher.try_consume_tokens(list(text.encode()))
    return taken == len(text.encode()) and matcher.is_accepting()


@cache
def _matcher(rules: str) -> llguidance.LLMatcher:
    matcher = llguidance.LLMatcher(
        llguidance.LLTokenizer("byte"), llguidance.LLMatcher.grammar_from_lark(rules)
    )
    assert not matcher.is_error(), f"{matcher.get_error()}\n{rules}"
    return matcher


def samples() -> list[Sample]:
    """Collect the samples of all families."""
    return [sample for module in _sample_modules() for sample in getattr(module, "SAMPLES", [])]


def pairs() -> list[Pair]:
    """Collect the pairs of all families."""
    return [pair for module in _sample_modules() for pair in getattr(module, "PAIRS", [])]


def _sample_modules() -> list[object]:
    files = sorted(Path(__file__).parent.glob("samples_*.py"))
    return [import_module(f"chat.{file.stem}") for file in files]
